"""The device tests where pytest, or what the other tests need, is missing: ``python -m tests.device.plain cuda``.

As a plugin (``pytest --noconftest -p tests.device.plain``) it gives the option and the fixtures alone.
"""

from __future__ import annotations

import sys
import time
import traceback

import torch

TOLERANCE = 1e-3

try:
    import pytest
except ModuleNotFoundError:
    pytest = None

if pytest is not None:

    def pytest_addoption(parser):
        parser.addoption("--device", default="cuda")

    def pytest_configure(config):
        config.addinivalue_line("markers", "device: runs on --device")

    @pytest.fixture(scope="session")
    def device(request):
        return torch.device(request.config.getoption("--device"))

    @pytest.fixture(scope="session")
    def tolerance():
        return TOLERANCE


class _Marks:
    """As much of pytest as the module of tests names."""

    device = None

    def parametrize(self, name, values):
        def mark(function):
            function.cases = (name, list(values))
            return function

        return mark


class _Pytest:
    mark = _Marks()

    @staticmethod
    def fixture(*_, **__):
        return lambda function: function

    class Skipped(Exception):  # noqa: N818
        pass

    @classmethod
    def skip(cls, reason):
        raise cls.Skipped(reason)


def main(name: str) -> int:
    if pytest is None:
        sys.modules["pytest"] = _Pytest
    from tests.device import test_engine as tests

    fixtures = {"device": torch.device(name), "tolerance": TOLERANCE}
    plain = lambda function: getattr(function, "__wrapped__", function)  # noqa: E731
    fixtures |= {"model": plain(tests.model)(), "pictures": plain(tests.pictures)()}
    failed = passed = 0
    for label, function in list(vars(tests).items()):
        if not label.startswith("test_"):
            continue
        argument, cases = getattr(function, "cases", (None, [None]))
        for case in cases:
            wanted = function.__code__.co_varnames[: function.__code__.co_argcount]
            given = {one: case if one == argument else fixtures[one] for one in wanted}
            begin = time.perf_counter()
            try:
                function(**given)
                passed += 1
            except _Pytest.Skipped:
                pass
            except Exception:
                failed += 1
                print("FAILED", label, case, f"{time.perf_counter() - begin:.1f} s")
                traceback.print_exc(limit=-2)
    print(f"{passed} passed, {failed} failed")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
