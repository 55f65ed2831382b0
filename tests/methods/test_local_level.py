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
    student: dict[str, torch.Tensor],
    teacher: dict[str, torch.Tensor],
    keys: str,
    k: int,
    tau: float,
    mask: bool,
    chance: np.ndarray,
) -> float:
    n = len(student["audio"])
    s, t = ({m: F.normalize(z, dim=1) for m, z in of.items()} for of in (student, teacher))
    w = torch.from_numpy(chance)[:, None]
    ends = {m: F.normalize(t[m] + w * t[o], dim=1) for m, o in (("audio", "visual"), ("visual", "audio"))}
    total = 0.0
    for query, other in (("audio", "visual"), ("visual", "audio")):
        here, there = ends[query], ends[other]
        key = there if keys == "teacher" else s[other]
        for i in range(n):
            near = sorted((j for j in range(n) if j != i), key=lambda j: -float(here[i] @ there[j]))[:k]
            weight = [math.exp(float(here[i] @ there[j]) / 0.1) for j in near]
            compared = [j for j in range(n) if not (mask and j == i)]
            log_sum = math.log(sum(math.exp(float(s[query][i] @ key[j]) / tau) for j in compared))
            for j, w in zip(near, weight, strict=True):
                total -= w / sum(weight) * (float(s[query][i] @ key[j]) / tau - log_sum) / n / 2
    return total


@pytest.mark.parametrize("keys", ["student", "teacher"])
@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("doubted", [False, True])
def test_equals_its_definition(keys: str, mask: bool, doubted: bool) -> None:
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
    chance = np.random.default_rng(3).random(40) if doubted else np.ones(40)
    features = Features(pairs, rows, method.scalers_, torch.device("cpu"), chance=chance if doubted else None)
    objective = method._build(features, {"warm_start_ridge": 3.0})
    for p in objective.student.parameters():  # a student that is no longer its teacher
        p.data += 0.1
    batch = features.batch(torch.arange(40))
    with torch.no_grad():
        student = {m: objective.student.tower(m)(x).double() for m, x in batch.x.items()}
        teacher = {m: objective.teacher.tower(m)(x).double() for m, x in batch.x.items()}
        loss = objective.losses(batch, Noise(0, 0))
    assert list(loss) == ["local"]
    assert float(loss["local"]) == pytest.approx(naive(student, teacher, keys, 7, 0.2, mask, chance), rel=1e-5)
