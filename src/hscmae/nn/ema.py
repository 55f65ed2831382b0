"""The EMA teacher: a copy of the student, moved by exponential moving average, buffers included.

The teacher is always in evaluation mode and takes no gradient.
"""

from __future__ import annotations

import copy
import math
from typing import TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


def make_teacher(student: M) -> M:
    """A copy of the student in evaluation mode, without gradients.

    >>> student = nn.Linear(2, 2)
    >>> teacher = make_teacher(student)
    >>> torch.equal(teacher.weight, student.weight), teacher.weight.requires_grad, teacher.training
    (True, False, False)
    """
    teacher = copy.deepcopy(student).eval()
    for parameter in teacher.parameters():
        parameter.requires_grad_(False)
    return teacher


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, decay: float) -> None:
    r"""Move the teacher: :math:`\theta_t \leftarrow \mu\,\theta_t + (1 - \mu)\,\theta_s`.

    Floating-point buffers are averaged like parameters; integer buffers are copied.

    >>> student, teacher = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    >>> _ = student.weight.data.fill_(1.0), teacher.weight.data.fill_(0.0)
    >>> update_teacher(teacher, student, decay=0.75)
    >>> teacher.weight.item()
    0.25
    """
    torch._foreach_lerp_(list(teacher.parameters()), list(student.parameters()), 1 - decay)
    for ours, theirs in zip(teacher.buffers(), student.buffers(), strict=True):
        if ours.is_floating_point():
            ours.lerp_(theirs, 1 - decay)
        else:
            ours.copy_(theirs)


def decay_at(step: int, steps: int, decay: float) -> float:
    r"""Decay schedule of BYOL (Grill et al. 2020): from ``decay`` up to 1 along a cosine.

    :math:`\mu = 1 - (1 - \mu_0)\,(\cos(\pi\,\text{step}/\text{steps}) + 1) / 2`; a decay of 0 stays 0, so that the
    teacher is a copy of the student at every step.

    >>> [round(decay_at(step, 100, 0.9), 3) for step in (0, 50, 100)]
    [0.9, 0.95, 1.0]
    """
    if decay == 0:
        return 0.0
    return 1 - (1 - decay) * (math.cos(math.pi * min(step / steps, 1.0)) + 1) / 2
