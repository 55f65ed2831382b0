"""Kernel features: what makes a closed form nonlinear, and still a closed form.

A linear method on the leading components of a kernel is the kernel method in its primal form. The components come from
landmarks (Nystroem: Williams and Seeger, NIPS 2000), so that time and memory grow with the rows, not with their
square; with every row a landmark and every component kept nothing is approximated.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 1024  # so many rows times some thousand landmarks are memory that is used again from block to block
COINCIDING = 1e-12  # squared distance of unit rows that rounding alone holds apart


@dataclass(frozen=True, eq=False)
class KernelMap:
    r"""A map that is linear in the kernel with the landmarks, ``k(x, landmarks) @ basis - offset``.

    Of centred rows :math:`k(x, y) = \exp(-\lVert x / |x| - y / |y| \rVert^2 / b) + \lambda\, x^\top y / s`, a Gaussian
    kernel of directions and a share of the linear kernel, which alone knows of norms; s is the mean squared norm of
    the landmarks.

    Attributes:
        mean: what rows are centred by, shape (d,).
        landmarks: centred, at unit norm, shape (l, d).
        bandwidth: b, a scalar.
        linear: :math:`\lambda / s` times the norm that each landmark had, shape (l,).
        basis: shape (l, r).
        offset: shape (r,).

    >>> features = kernel_map(torch.randn(20, 3), torch.arange(10), rank=4)
    >>> features.landmarks.shape, features(torch.randn(7, 3)).shape
    (torch.Size([10, 3]), torch.Size([7, 4]))
    """

    mean: Tensor
    landmarks: Tensor
    bandwidth: Tensor
    linear: Tensor
    basis: Tensor
    offset: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Map rows, shape (n, d) -> (n, r), in the type of the landmarks."""
        blocks = torch.split(x, BLOCK)  # (b, d) each
        return torch.cat([self._kernel(block) @ self.basis - self.offset for block in blocks])

    def then(self, mean: Tensor, weight: Tensor) -> KernelMap:
        """This map followed by an affine one, ``z -> (z - mean) @ weight``, as one map.

        >>> x = torch.randn(20, 3)
        >>> features, mean, weight = kernel_map(x, torch.arange(20), 5), torch.ones(5).double(), torch.eye(5).double()
        >>> features.then(mean, weight)(x).allclose(features(x) - 1)
        True
        """
        return replace(self, basis=self.basis @ weight, offset=(self.offset + mean) @ weight)

    def to(self, kind: torch.dtype | torch.device) -> KernelMap:
        """The same map in another type, or on another device."""
        return KernelMap(**{name: value.to(kind) for name, value in vars(self).items()})

    def _kernel(self, x: Tensor) -> Tensor:
        rows = x.to(self.landmarks) - self.mean  # (n, d)
        product = rows @ self.landmarks.T  # (n, l)
        norm = torch.linalg.vector_norm(rows, dim=1, keepdim=True)  # (n, 1)
        # Squared distances of unit rows, (n, l); a row at the mean has no direction and stays there, at norm 0.
        apart = product / torch.where(norm > 0, norm, 1.0)
        apart.mul_(-2).add_(2).sub_((norm == 0).to(apart)).sub_((self.landmarks == 0).all(dim=1).to(apart))
        return apart.clamp_(min=0).neg_().div_(self.bandwidth).exp_().add_(product * self.linear)


def kernel_map(x: Tensor, landmarks: Tensor, rank: int, *, factor: float = 1.0, linear: float = 0.0) -> KernelMap:
    r"""The leading components of the kernel of ``KernelMap``: features whose inner products are the kernel.

    With the landmarks' kernel :math:`K = U \Lambda U^\top` the features of a row are
    :math:`k(x, \text{landmarks})\, U_r \Lambda_r^{-1/2}`.

    Args:
        x: rows, shape (n, d); computed in float64.
        landmarks: which of the rows, shape (l,), int64.
        rank: r, the number of components; at most l.
        factor: bandwidth in units of the median squared distance between landmarks.
        linear: :math:`\lambda`, the weight of the linear kernel beside the Gaussian one.

    With every row a landmark and every component kept, inner products of features are the kernel:

    >>> x = torch.randn(20, 3)
    >>> z = kernel_map(x, torch.arange(20), rank=20)(x)
    >>> z.shape, (z @ z.T).diagonal().allclose(torch.ones(20).double())
    (torch.Size([20, 20]), True)
    """
    rows = x.double()
    return landmark_map(rows[landmarks], rows.mean(0), rank, factor=factor, linear=linear)


def landmark_map(
    landmarks: Tensor, mean: Tensor, rank: int, *, factor: float = 1.0, linear: float = 0.0, resolution: float = 1e-12
) -> KernelMap:
    """``kernel_map`` where the landmarks themselves are at hand, shape (l, d), and the mean of all rows, shape (d,).

    Components whose eigenvalue is below ``resolution`` of the largest are no more than rounding noise: they are 0.

    >>> x = torch.randn(20, 3, dtype=torch.float64)
    >>> same = kernel_map(x, torch.arange(10), rank=4)
    >>> landmark_map(x[:10], x.mean(0), rank=4)(x).allclose(same(x))
    True
    """
    mean = mean.double()  # (d,)
    centred = landmarks.double() - mean  # (l, d)
    norm = centred.norm(dim=1)  # (l,)
    unit = F.normalize(centred, dim=1)  # (l, d)
    apart = torch.cdist(unit, unit).square()  # (l, l)
    # More than half of the pairs may coincide: those of a single column, each at unit norm, are 1 or -1.
    typical = apart.median() if apart.median() > COINCIDING else apart.mean().clamp(min=COINCIDING)
    weight = linear * norm / norm.square().mean().clamp(min=torch.finfo(norm.dtype).tiny)  # (l,)
    bare = KernelMap(mean, unit, factor * typical, weight, unit.new_zeros(len(unit), 0), unit.new_zeros(0))
    values, vectors = torch.linalg.eigh(bare._kernel(landmarks))  # ascending: (l,), (l, l)
    rank = min(rank, len(unit))
    vectors, values = vectors[:, -rank:], values[-rank:]
    basis = torch.where(values > resolution * values[-1], vectors / values.clamp(min=0).sqrt(), 0.0)  # (l, r)
    return replace(bare, basis=basis, offset=basis.new_zeros(rank))
