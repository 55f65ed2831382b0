"""The local level as a whole, against a loop written from the paper."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from conftest import make_pairs
from hscmae.methods import HSCMAE
from hscmae.streams import Noise
from hscmae.training.features import Features


def naive(
    student: dict[str, torch.Tensor], teacher: dict[str, torch.Tensor], keys: str, k: int, tau: float, mask: bool
) -> float:
    n = len(student["audio"])
    s = {m: F.normalize(z, dim=1) for m, z in student.items()}
    t = F.normalize(sum(F.normalize(z, dim=1) for z in teacher.values()), dim=1)
    total = 0.0
    for query, other in (("audio", "visual"), ("visual", "audio")):
        key = t if keys == "teacher" else s[other]
        for i in range(n):
            near = sorted((j for j in range(n) if j != i), key=lambda j: -float(t[i] @ t[j]))[:k]
            weight = [math.exp(float(t[i] @ t[j]) / 0.1) for j in near]
            compared = [j for j in range(n) if not (mask and j == i)]
            log_sum = math.log(sum(math.exp(float(s[query][i] @ key[j]) / tau) for j in compared))
            for j, w in zip(near, weight, strict=True):
                total -= w / sum(weight) * (float(s[query][i] @ key[j]) / tau - log_sum) / n / 2
    return total


@pytest.mark.parametrize("keys", ["student", "teacher"])
@pytest.mark.parametrize("mask", [False, True])
def test_equals_its_definition(keys: str, mask: bool) -> None:
    pairs = make_pairs(40)
    settings: dict[str, Any] = {"loss_global_weight": 0, "loss_sample_weight": 0, "loss_learn_weights": False}
    method = HSCMAE(
        dim=5,
        network_width=8,
        masking_ratio=0,
        masking_spread=0,
        affinity_keys=keys,
        affinity_k=7,
        affinity_mask_pair=mask,
        **settings,
    )
    rows = np.arange(len(pairs))
    method.dims_, method.scalers_ = pairs.dims, method._fit_scalers(pairs, rows)
    features = Features(pairs, rows, method.scalers_, torch.device("cpu"))
    objective = method._build(features, {"warm_start_ridge": 3.0})
    for p in objective.student.parameters():  # a student that is no longer its teacher
        p.data += 0.1
    batch = features.batch(torch.arange(40))
    with torch.no_grad():
        student = {m: objective.student.tower(m)(x).double() for m, x in batch.x.items()}
        teacher = {m: objective.teacher.tower(m)(x).double() for m, x in batch.x.items()}
        loss = objective.losses(batch, Noise(0, 0))
    assert list(loss) == ["local"]
    assert float(loss["local"]) == pytest.approx(naive(student, teacher, keys, 7, 0.2, mask), rel=1e-5)
