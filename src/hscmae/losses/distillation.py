"""Distillation: the teacher's clean geometry carried into the student's masked embedding."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def cosine_distillation(student: Tensor, teacher: Tensor, valid: Tensor | None = None) -> Tensor:
    r"""Mean cosine distance :math:`1 - \cos(s_i, t_i)`; minimised, in [0, 2]. Needs common coordinates.

    Args:
        student: masked embeddings, shape (n, dim).
        teacher: clean embeddings of the same rows, shape (n, dim).
        valid: rows that exist, shape (n,), bool.
    """
    distance = 1 - F.cosine_similarity(student, teacher, dim=1)
    if valid is None:
        return distance.mean()
    return torch.where(valid, distance, 0.0).sum() / valid.sum().clamp(min=1)


def relational_distillation(student: Tensor, teacher: Tensor, valid: Tensor | None = None) -> Tensor:
    r"""Mean squared difference of the two cosine affinity matrices off the diagonal; minimised, in [0, 4].

    .. math:: L = \frac{1}{n(n - 1)}\sum_{i \ne j} \left(\cos(s_i, s_j) - \cos(t_i, t_j)\right)^2

    Unchanged by any rotation of either side (Park et al. 2019, relational knowledge distillation).

    Args:
        student: masked embeddings, shape (n, dim).
        teacher: clean embeddings of the same rows, shape (n, dim').
        valid: rows that exist, shape (n,), bool.
    """
    s, t = F.normalize(student, dim=1), F.normalize(teacher, dim=1)
    difference = (s @ s.T - t @ t.T).square()
    off_diagonal = ~torch.eye(len(s), dtype=torch.bool, device=s.device)
    if valid is not None:
        off_diagonal = off_diagonal & valid[:, None] & valid[None, :]
    return torch.where(off_diagonal, difference, 0.0).sum() / off_diagonal.sum().clamp(min=1)
