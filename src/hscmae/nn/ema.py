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
    """A copy of the student in evaluation mode, without gradients."""
    teacher = copy.deepcopy(student).eval()
    for parameter in teacher.parameters():
        parameter.requires_grad_(False)
    return teacher


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, decay: float) -> None:
    r"""Move the teacher: :math:`\theta_t \leftarrow \mu\,\theta_t + (1 - \mu)\,\theta_s`.

    Floating-point buffers are averaged like parameters; integer buffers are copied.
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
    """
    if decay == 0:
        return 0.0
    return 1 - (1 - decay) * (math.cos(math.pi * min(step / steps, 1.0)) + 1) / 2
