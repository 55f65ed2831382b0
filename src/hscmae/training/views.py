"""The kernel view: a network is trained on components of a kernel in place of the standardised values.

A closed form on them is a kernel method, and the network begins there. Components keep their sizes (one scale for all
of a modality), so that what is masked and reconstructed is first of all what the kernel sees.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import torch

from hscmae.linear.kernel import KernelMap, landmark_map
from hscmae.streams import generator
from hscmae.training.features import Features

MOMENT_ROWS = 16_384
# What float32 tells from 0 beside the largest eigenvalue.
RESOLUTION = 1e-6


class Kernel(Protocol):
    """Settings of a kernel: see ``config.View``."""

    @property
    def bandwidth(self) -> float: ...
    @property
    def linear(self) -> float: ...
    @property
    def landmarks(self) -> int: ...
    @property
    def rank(self) -> int: ...


@torch.no_grad()
def kernel_views(features: Features, settings: Kernel, seed: int) -> dict[str, KernelMap]:
    """Per modality the map from standardised rows to kernel components of mean 0 and, over all of them, variance 1.

    Args:
        features: training rows, standardised; landmarks are drawn from those that have the modality.
        settings: bandwidth, share of the linear kernel, number of landmarks and rank.
        seed: of the draw.
    """
    views = {}
    for m, present in features.present.items():
        heard = torch.nonzero(present).flatten()
        drawn = torch.randperm(len(heard), generator=generator(seed, f"landmarks/{m}"))[: settings.landmarks]
        landmarks = features.batch(heard[drawn.to(heard.device)]).x[m]
        mean = landmarks.new_zeros(landmarks.shape[1])  # rows are standardised
        view = landmark_map(
            landmarks,
            mean,
            settings.rank,
            factor=settings.bandwidth,
            linear=settings.linear,
            resolution=RESOLUTION,
        )
        rows = features.sample(MOMENT_ROWS, generator(seed, "kernel moments"))
        z = view(rows.x[m][rows.present[m]])  # (n, rank), float64
        scale = z.var(0, correction=0).mean().sqrt().clamp(min=torch.finfo(z.dtype).tiny)
        centred = replace(view, basis=view.basis / scale, offset=(view.offset + z.mean(0)) / scale)
        views[m] = centred.to(torch.float32)
    return views
