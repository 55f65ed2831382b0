"""What a fit needs to know of its pairs at large: scalers, and covariances in the scalers' units, streamed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
import torch

from hscmae.data.pairs import Float64Array, Pairs
from hscmae.data.pooling import How
from hscmae.data.scaling import Moments, Standardizer, standardizer_of
from hscmae.linear.agreement import (
    LOWER,
    MIN_PAIRS,
    REPEATS,
    UPPER,
    chance_right,
    cross_fit,
    random_better,
    wrong_share,
    wrong_share_quantiles,
)
from hscmae.linear.cca import Covariances, Rows, stream_covariances
from hscmae.training import distributed
from hscmae.training.features import row_blocks

ERROR_BELOW = 0.16  # the quantile of a normal distribution a standard error below its mean
BACKGROUND_ROWS = 1000  # for how many training rows background pairs count; why so many, see docs/background.md


def background_share(rows: int) -> float:
    """How far the covariances of so many training rows are drawn towards those of background pairs, in (0, 1]."""
    return BACKGROUND_ROWS / (BACKGROUND_ROWS + rows)


def raw_covariances(
    pairs: Pairs, rows: npt.NDArray[np.intp], how: How, chance: Float64Array | None = None
) -> Covariances:
    """Covariances of the features of the given rows, sequences pooled, in one pass over them.

    ``chance`` of shape (len(pairs),) weighs the pairs in the cross-covariance.
    """

    def blocks() -> Iterator[Rows]:
        done = 0
        for x, present in row_blocks(pairs, rows, how):
            doubles = {m: torch.from_numpy(values.astype(np.float64)) for m, values in x.items()}
            here = rows[done : done + len(next(iter(doubles.values())))]
            weight = None if chance is None else torch.from_numpy(chance[here])
            yield doubles, {m: torch.from_numpy(values) for m, values in present.items()}, weight
            done += len(here)

    return stream_covariances(blocks())


def doubt(
    pairs: Pairs, rows: npt.NDArray[np.intp], seed: int
) -> tuple[Float64Array | None, dict[str, float | list[float]]]:
    """The chance of each pair that it is right, and what is known of the share of wrong ones.

    The share is taken a standard error below its estimate: of few pairs little is known, and one that is right but
    doubted costs as much as one that is wrong and believed (``docs/decisions.md``, 2026-11-27). Rows that lack a
    modality are no pair; where there are too few to judge, or that share is 0, none is doubted.

    Args:
        pairs: of vectors, as they are trained on.
        rows: training rows; no others are looked at.
        seed: of the cross-fit.

    Returns:
        Chances, shape (len(pairs),), or ``None`` where nothing is doubted; estimated share and its interval, by name.
    """
    paired = rows[pairs.complete()[rows]]
    if len(paired) < MIN_PAIRS:
        return None, {}
    chance, rng = np.ones(len(pairs)), np.random.default_rng(seed)
    for repeats in (1, REPEATS):  # a quick look, which says of clean pairs all that there is to say
        observed, random = cross_fit(pairs.features, paired, rng, repeats=repeats).agreement()
        low, sure, high = wrong_share_quantiles(observed, random, rng, (LOWER, ERROR_BELOW, UPPER))
        if not sure:
            break
    found: dict[str, float | list[float]] = {
        "wrong_share": round(wrong_share(observed, random), 4),
        "wrong_share_ci": [round(low, 4), round(high, 4)],
    }
    chance[paired] = chance_right(random_better(observed, random), sure)
    distributed.copy_first([torch.from_numpy(chance)])
    return chance if (chance < 1).any() else None, distributed.first_of(found)


def fit_scalers(
    pairs: Pairs, rows: npt.NDArray[np.intp], how: How, background: Covariances | None
) -> dict[str, Standardizer]:
    """Standardisers of the given rows, their variances drawn towards those of background pairs, if any are given.

    Of pooled vectors, not of steps: they are what towers see, and scaling commutes with pooling.
    """
    moments = {m: Moments(d) for m, d in pairs.dims.items()}
    for x, present in row_blocks(pairs, rows, how):
        for m, values in x.items():
            moments[m].add(values[present[m]])
    if background is None:
        return {m: gathered.standardizer() for m, gathered in moments.items()}
    share, scalers = background_share(len(rows)), {}
    for m, gathered in moments.items():
        variance = (1 - share) * gathered.squares / max(1, gathered.count)
        scalers[m] = standardizer_of(gathered.mean, variance + share * background.within[m].diagonal().numpy())
    return scalers


def standardised(moments: Covariances, scalers: Mapping[str, Standardizer]) -> Covariances:
    """The covariances of the standardised features, from those of the features."""
    scale = {m: torch.from_numpy(s.scale.astype(np.float64)) for m, s in scalers.items()}
    first, second = scale.values()
    return Covariances(
        mean={m: (mean - torch.from_numpy(scalers[m].mean)) / scale[m] for m, mean in moments.mean.items()},
        within={m: cov / torch.outer(scale[m], scale[m]) for m, cov in moments.within.items()},
        cross=moments.cross / torch.outer(first, second),
    )
