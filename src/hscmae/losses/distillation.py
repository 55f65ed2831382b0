"""Distillation: the teacher's clean geometry carried into the student's masked embedding."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def cosine_distillation(
    student: Tensor,
    teacher: Tensor,
    valid: Tensor | None = None,
    *,
    total: Callable[[Tensor], Tensor] = lambda own: own,
) -> Tensor:
    r"""Mean cosine distance :math:`1 - \cos(s_i, t_i)`; minimised, in [0, 2]. Needs common coordinates.

    Args:
        student: masked embeddings, shape (n, dim).
        teacher: clean embeddings of the same rows, shape (n, dim).
        valid: rows that exist, shape (n,), bool.
        total: sums over processes what is summed over their rows.

    >>> teacher = torch.eye(3)
    >>> cosine_distillation(5 * teacher, teacher), cosine_distillation(-teacher, teacher)
    (tensor(0.), tensor(2.))
    """
    distance = 1 - F.cosine_similarity(student, teacher, dim=1)  # (n,)
    if valid is None:
        valid = torch.ones_like(distance, dtype=torch.bool)
    sums = total(torch.stack([torch.where(valid, distance, 0.0).sum(), valid.sum().to(distance.dtype)]))
    return sums[0] / sums[1].clamp(min=1)


def relational_distillation(
    student: Tensor,
    teacher: Tensor,
    valid: Tensor | None = None,
    *,
    rows: slice = slice(None),
    total: Callable[[Tensor], Tensor] = lambda own: own,
) -> Tensor:
    r"""Mean squared difference of the two cosine affinity matrices off the diagonal; minimised, in [0, 4].

    .. math:: L = \frac{1}{n(n - 1)}\sum_{i \ne j} \left(\cos(s_i, s_j) - \cos(t_i, t_j)\right)^2

    Unchanged by any rotation of either side (Park et al. 2019, relational knowledge distillation).

    Args:
        student: masked embeddings, shape (n, dim).
        teacher: clean embeddings of the same rows, shape (n, dim').
        valid: rows that exist, shape (n,), bool.
        rows: those of one process, where several share the work.
        total: sums over processes what is summed over their rows.

    A student turned as a whole still agrees with its teacher, one collapsed to a point does not:

    >>> teacher = torch.eye(3)
    >>> relational_distillation(teacher.roll(1, dims=1), teacher)
    tensor(0.)
    >>> relational_distillation(torch.ones(3, 2), teacher).round()
    tensor(1.)
    """
    s, t = F.normalize(student, dim=1), F.normalize(teacher, dim=1)  # (n, dim), (n, dim')
    difference = (s[rows] @ s.T - t[rows] @ t.T).square()  # (b, n)
    place = torch.arange(len(s), device=s.device)
    off_diagonal = place[rows, None] != place  # (b, n)
    if valid is not None:
        off_diagonal = off_diagonal & valid[rows, None] & valid[None, :]
    sums = total(torch.stack([torch.where(off_diagonal, difference, 0.0).sum(), off_diagonal.sum().to(s.dtype)]))
    return sums[0] / sums[1].clamp(min=1)
