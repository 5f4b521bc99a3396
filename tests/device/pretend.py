"""A pretend accelerator: the CPU's values, CUDA's rules about devices, and counts of what a GPU's host would do.

A tensor on it wraps one of the CPU, and ``__torch_dispatch__`` runs each operation on what is inside. What CUDA refuses
raises: a CPU tensor among the device's (unless it has no dimension and the operation is pointwise, or it is an index),
a generator of the CPU, an operation without a CUDA kernel. Counted are operations that compute (launches), what makes
the host wait, and copies from the host that are not pinned or not asynchronous. It says nothing of a GPU's numerics,
and nothing of its time.
"""

from __future__ import annotations

import weakref
from collections import Counter
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

from tests.device.counting import (
    COPIES,
    COUNTS,
    CPU,
    FREE,
    INDEXED,
    NAME,
    TAKE_SCALARS,
    WAIT,
    DevicesMixedError,
    ours,
)


class Pretend(torch.Tensor):
    """A tensor on the device."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]
    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> Pretend:
        found = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device=torch.device(NAME, 0),
            requires_grad=False,
        )
        found.inner = inner
        return found

    def __init__(self, inner: torch.Tensor) -> None:
        pass

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Pretend({self.inner!r})"

    def tolist(self) -> Any:
        return self.detach().cpu().tolist()

    def numpy(self, **_: Any) -> Any:
        raise TypeError(f"can't convert {NAME} device type tensor to numpy. Use Tensor.cpu() first")

    __array__ = numpy

    def __deepcopy__(self, memo: dict[int, Any]) -> Pretend:
        if id(self) not in memo:
            with torch.no_grad():
                made = Pretend(self.inner.detach().clone())
            made.requires_grad_(self.requires_grad)
            if getattr(self, "_is_param", False):
                made._is_param = True  # type: ignore[attr-defined]
            memo[id(self)] = made
        return memo[id(self)]

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(function, args, kwargs or {})


def _inner(value: Any) -> Any:
    if isinstance(value, Pretend):
        return value.inner
    return CPU if isinstance(value, torch.device) and value.type == NAME else value


def _name(function: Any) -> str:
    return function._schema.name.removeprefix("aten::")


def _run(function: Any, args: Any, kwargs: Any) -> Any:
    name = _name(function)
    tensors = [one for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
    _refuse(function, name, args, tensors, kwargs)
    _count(function, name, args, kwargs)
    kwargs_inside = {key: _inner(value) for key, value in kwargs.items() if key != "pin_memory"}
    found = function(*tree_map(_inner, args), **tree_map(_inner, kwargs_inside))
    if torch.Tag.inplace_view in function.tags:
        _follow(function, args, kwargs)
    to = kwargs.get("device")
    if to is not None and to.type != NAME:
        return found
    return _returned(function, found, args, kwargs)


def _returned(function: Any, found: Any, args: Any, kwargs: Any) -> Any:
    """Wrap what an operation returns; what it has written into is returned itself."""
    schema = function._schema
    if not isinstance(found, torch.Tensor | list | tuple):
        return found
    several = isinstance(found, list | tuple)
    results = list(found) if several else [found]
    for place, result in enumerate(schema.returns[: len(results)] if several else schema.returns):
        alias = result.alias_info
        if alias is None or not alias.is_write:
            continue
        for number, argument in enumerate(schema.arguments):
            own = argument.alias_info
            if own is not None and own.is_write and own.before_set & alias.before_set:
                results[place] = args[number] if number < len(args) else kwargs[argument.name]
    wrapped = [
        Pretend(one) if isinstance(one, torch.Tensor) and not isinstance(one, Pretend) else one for one in results
    ]
    return type(found)(wrapped) if several else wrapped[0]


def _follow(function: Any, args: Any, kwargs: Any) -> None:
    """Change sizes and strides of the wrapper, as the operation has changed those of the tensor inside."""
    with torch._C._DisableTorchDispatch():
        before = torch._C._meta_in_tls_dispatch_include()
        torch._C._set_meta_in_tls_dispatch_include(True)
        try:
            function(*args, **kwargs)
        finally:
            torch._C._set_meta_in_tls_dispatch_include(before)


def _refuse(function: Any, name: str, args: Any, tensors: list[torch.Tensor], kwargs: Any) -> None:
    """Raise where CUDA would."""
    full = f"aten::{name}" + (f".{function._schema.overload_name}" if function._schema.overload_name else "")
    if not torch._C._dispatch_has_computed_kernel_for_dispatch_key(full, "CUDA"):
        raise NotImplementedError(f"no CUDA kernel: {full}")
    _refuse_generators(full, (*args, *kwargs.values()))
    others = [one for one in tensors if not isinstance(one, Pretend)]
    if not others or len(others) == len(tensors) or name in COPIES:
        return
    if name in INDEXED and isinstance(args[0], Pretend):
        values = args[2] if len(args) > 2 else None
        if isinstance(values, torch.Tensor) and not isinstance(values, Pretend) and values.dim():
            raise DevicesMixedError(f"values are on the CPU, the indexed tensor is not: {full}")
        for one in args[1]:
            if one is not None and not isinstance(one, Pretend):
                COUNTS.wait("index from the CPU")
        return
    pointwise = torch.Tag.pointwise in function.tags or name in TAKE_SCALARS
    if pointwise and all(one.dim() == 0 for one in others) and (not name.endswith("_") or isinstance(args[0], Pretend)):
        return
    raise DevicesMixedError(f"Expected all tensors to be on the same device: {full}")


def _refuse_generators(full: str, values: Any) -> None:
    for value in values:
        if isinstance(value, _GENERATOR) and not _OURS[value._cdata]:
            raise DevicesMixedError(f"Expected a {NAME} device type for generator: {full}")


def _count(function: Any, name: str, args: Any, kwargs: Any) -> None:
    view = name in FREE or any(
        result.alias_info is not None and not result.alias_info.is_write for result in function._schema.returns
    )
    if not view:
        COUNTS.launches[COUNTS.part] += 1
        COUNTS.operations[COUNTS.part, name, ours()] += 1
    masks = name in INDEXED and any(one is not None and one.dtype in (torch.bool, torch.uint8) for one in args[1])
    repeats = name == "repeat_interleave" and kwargs.get("output_size") is None
    if name in WAIT or repeats or (masks and (name == "index" or args[2].numel() != 1)):
        COUNTS.wait(name)
    elif name == "copy_":
        _copied(args[0], args[1], asynchronous=bool(args[2] if len(args) > 2 else kwargs.get("non_blocking")))
    elif name == "_to_copy" and kwargs.get("device") is not None and kwargs["device"].type == "cpu":
        COUNTS.wait("copy to the CPU")


def _copied(destination: torch.Tensor, source: torch.Tensor, *, asynchronous: bool) -> None:
    here = [one for one in (destination, source) if not isinstance(one, Pretend)]
    if not here:
        return
    COUNTS.copies += 1
    if not asynchronous or not _is_pinned(here[0]):
        COUNTS.blocking["blocking" if not asynchronous else "pageable", ours()] += 1
        COUNTS.wait("copy")


# ------------------------------------------------------------------------------------ generators, pinned memory, events

_GENERATOR = torch.Generator
_OURS: Counter[int] = Counter()  # addresses of the device's generators: what comes back from C++ is another object
_PINNED: Counter[int] = Counter()  # addresses of pinned storages


class _Generators(type):
    def __call__(cls, device: Any = "cpu") -> Any:
        if torch.device(device).type != NAME:
            return _GENERATOR(device)
        made = type("Generator", (_GENERATOR,), {})()
        _OURS[made._cdata] += 1
        weakref.finalize(made, lambda address: _OURS.subtract([address]), made._cdata)
        return made

    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, _GENERATOR)


class _Generator(metaclass=_Generators):
    """Takes the place of torch.Generator."""


def _pin(tensor: torch.Tensor, *_: Any) -> torch.Tensor:
    made = tensor.clone(memory_format=torch.preserve_format)
    storage = made.untyped_storage()
    _PINNED[storage.data_ptr()] += 1
    weakref.finalize(storage, lambda address: _PINNED.subtract([address]), storage.data_ptr())
    made._keeps = storage  # type: ignore[attr-defined]
    return made


def _is_pinned(tensor: torch.Tensor) -> bool:
    return _PINNED[tensor.untyped_storage().data_ptr()] > 0


class _Event:
    """One stream: what was recorded before something that has arrived has arrived too."""

    recorded = arrived = 0

    def record(self, *_: Any) -> None:
        _Event.recorded += 1
        self.number = _Event.recorded

    def query(self) -> bool:
        return self.number <= _Event.arrived

    def synchronize(self) -> None:
        if not self.query():
            COUNTS.wait("event")
            _Event.arrived = self.number


class _Module(_DummyBackendModule):
    Event = _Event

    def synchronize(self) -> None:
        COUNTS.wait("synchronize")

    def empty_cache(self) -> None:
        pass


# ------------------------------------------------------------------------------------ tensors that are made there


def _factory(operation: Any) -> Any:
    def kernel(*args: Any, **kwargs: Any) -> Pretend:
        name = _name(operation)
        _refuse_generators(name, (*args, *kwargs.values()))
        if name not in FREE:
            COUNTS.launches[COUNTS.part] += 1
            COUNTS.operations[COUNTS.part, name, ours()] += 1
        kwargs = {key: value for key, value in kwargs.items() if key != "pin_memory"}
        return Pretend(operation(*args, **{**kwargs, "device": CPU}))

    return kernel


def _copy_from(source: torch.Tensor, destination: Any, non_blocking: bool = False) -> Any:
    """torch.tensor(..., device=) comes here, past __torch_dispatch__."""
    _copied(destination, source, asynchronous=non_blocking)
    COUNTS.launches[COUNTS.part] += 1
    destination.inner.copy_(_inner(source))
    return destination


_installed: list[torch.library.Library] = []


def install() -> torch.device:
    """Make the device known to torch, once; return it."""
    if _installed:
        return torch.device(NAME, 0)
    _setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
    # Module.to() must make new parameters: `.data = ` would leave the CPU's tensor inside of the old ones.
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    library = torch.library.Library("aten", "IMPL")
    skipped = ("sparse", "quantized", "mkldnn", "nested", "from_file", "_make_dep", "cudnn")
    for full in torch._C._dispatch_get_all_op_names():
        if not full.startswith("aten::") or any(word in full for word in skipped):
            continue
        name, _, overload = full[6:].partition(".")
        operation = getattr(getattr(torch.ops.aten, name, None), overload or "default", None)
        if operation is None:
            continue
        arguments, returned = operation._schema.arguments, operation._schema.returns
        makes = any(one.name == "device" for one in arguments) and not any(
            "Tensor" in str(one.type) for one in arguments
        )
        if makes and len(returned) == 1 and "Tensor" in str(returned[0].type):
            library.impl(full[6:], _factory(operation), "PrivateUse1")
    library.impl("_copy_from", _copy_from, "PrivateUse1")
    _installed.append(library)
    empty = torch.empty

    def empty_or_pinned(*args: Any, pin_memory: bool = False, **kwargs: Any) -> torch.Tensor:
        made = empty(*args, **kwargs)
        return _pin(made) if pin_memory else made

    torch.Generator = _Generator  # type: ignore[misc, assignment]
    torch.empty = empty_or_pinned  # type: ignore[assignment]
    torch.Tensor.pin_memory = _pin  # type: ignore[method-assign, assignment]
    torch.Tensor.is_pinned = _is_pinned  # type: ignore[method-assign, assignment]
    return torch.device(NAME, 0)
