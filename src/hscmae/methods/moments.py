"""What a fit needs to know of its pairs at large: scalers, and covariances in the scalers' units, streamed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hscmae.data.pairs import Pairs
from hscmae.data.pooling import How
from hscmae.data.scaling import Moments, Standardizer, standardizer_of
from hscmae.linear.cca import Covariances, stream_covariances
from hscmae.training.features import row_blocks

BACKGROUND_ROWS = 1000  # for how many training rows background pairs count; why so many, see docs/background.md


def background_share(rows: int) -> float:
    """How far the covariances of so many training rows are drawn towards those of background pairs, in (0, 1]."""
    return BACKGROUND_ROWS / (BACKGROUND_ROWS + rows)


def raw_covariances(pairs: Pairs, rows: npt.NDArray[np.intp], how: How) -> Covariances:
    """Covariances of the features of the given rows, sequences pooled, in one pass over them."""

    def blocks() -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
        for x, present in row_blocks(pairs, rows, how):
            doubles = {m: torch.from_numpy(values.astype(np.float64)) for m, values in x.items()}
            yield doubles, {m: torch.from_numpy(values) for m, values in present.items()}

    return stream_covariances(blocks())


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
