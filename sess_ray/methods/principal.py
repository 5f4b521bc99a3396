"""The first principal component, for the maps that are projections on it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

SQUARINGS = 12  # 2^12 steps of the power iteration
STEPS = 128  # of Lanczos; they separate eigenvalues as close as the squarings do
CONVERGED = 1e-6  # the angle that an eigenvector still lacks
ROUNDING = 4 * torch.finfo(torch.float32).eps  # of a residual, as a share of the eigenvalue


def project(values: Tensor, centred: bool) -> Tensor:
    """Return the part of the sum over channels that lies along the first principal component, (N, u, v).

    The component is the first left singular vector of the values (N, K, u, v), as positions times channels; if
    `centred`, of what is left when each channel's mean is subtracted.
    """
    samples = values.flatten(2).mT  # (N, positions, K)
    if centred:
        samples = samples - samples.mean(1, keepdim=True)
    if values.device.type == "cpu":
        along = _lanczos(lambda rows: rows @ samples @ samples.mT, samples.sum(2))
    elif samples.shape[1] <= samples.shape[2]:
        along = _projector(samples @ samples.mT) @ samples.sum(2)[..., None]
    else:  # with u and v the left and the right vector, u u' S 1 = S v v' 1
        along = samples @ _projector(samples.mT @ samples).sum(2, keepdim=True)
    return along.view(len(values), *values.shape[2:])


def first_part(matrices: Tensor, vectors: Tensor) -> Tensor:
    """Return the part of vectors (N, M) that lies along the first eigenvectors of symmetric matrices (N, M, M)."""
    if matrices.device.type == "cpu":
        return _lanczos(lambda rows: rows @ matrices, vectors)
    # So that no eigenvalue below 0 is the largest in absolute value.
    matrices = matrices.clone()
    matrices.diagonal(dim1=1, dim2=2).add_(matrices.norm(dim=(1, 2))[:, None])
    return (_projector(matrices) @ vectors[..., None])[..., 0]


def _lanczos(times: Callable[[Tensor], Tensor], vectors: Tensor) -> Tensor:
    """Return the part of vectors (N, M) along the first eigenvectors of the matrices that `times` multiplies rows by.

    This needs no product of matrices: a handful of steps, each of which reads the samples, take a fraction of the time
    of the products of positions with positions. It looks whether it has converged, which costs nothing on a CPU.
    """
    count, size = vectors.shape
    steps = min(size, STEPS)
    basis = vectors.new_zeros(count, steps, size)
    images = torch.zeros_like(basis)
    # The second summand is in nobody's way: it only keeps the start from being orthogonal to what is looked for.
    numbers = torch.arange(1, size + 1, dtype=vectors.dtype, device=vectors.device)
    row = _unit(_unit(vectors) + 0.1 * _unit(numbers.square().sin()))[:, None]
    for step in range(1, steps + 1):
        basis[:, step - 1 : step] = row
        images[:, step - 1 : step] = row = times(row)
        seen, seen_images = basis[:, :step], images[:, :step]
        if step % 2 == 0 or step == steps:
            # Values that are not finite stay so in what is found, but a decomposition refuses them.
            eigenvalues, coefficients = torch.linalg.eigh((seen_images @ seen.mT).nan_to_num(0, 0, 0))
            last = coefficients[..., -1:].mT
            found = last @ seen
            largest, gaps = eigenvalues[:, -1:], eigenvalues[:, -1:] - eigenvalues[:, -2:-1]
            residuals = (last @ seen_images - largest[..., None] * found).norm(dim=2)
            if not (residuals > CONVERGED * gaps + ROUNDING * largest).any():
                break
        least = ROUNDING * row.norm(dim=-1, keepdim=True)
        for _ in range(2):  # once leaves what rounding leaves
            row = row - (row @ seen.mT) @ seen
        row = _unit(row, least)
    return (vectors[:, None] @ found.mT @ found)[:, 0]


def _unit(vectors: Tensor, least: float | Tensor = 0.0) -> Tensor:
    """Return vectors of length 1; zeros where they are no longer than `least`, which is then but rounding."""
    norms = vectors.norm(dim=-1, keepdim=True)
    return torch.where(norms > least, vectors / norms, 0)


def _projector(matrices: Tensor) -> Tensor:
    """Return the projectors on the first eigenvectors of symmetric positive semi-definite matrices (N, M, M).

    The matrices' powers converge to them; unlike a decomposition, this does not wait for a GPU.
    """
    for _ in range(SQUARINGS):
        matrices = _over_trace(matrices)
        matrices = matrices @ matrices
    return _over_trace(matrices)


def _over_trace(matrices: Tensor) -> Tensor:
    traces = matrices.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
    return matrices / torch.where(traces == 0, 1.0, traces)
