"""Raw clips to paired features: find and pair media files, decode them, describe each modality by a light extractor.

The built-in extractors need no trained network: statistics of the log-mel spectrogram, and histograms of colour,
gradients and shape. They are made for trying things out; features of trained networks are better.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hscmae.cpus import usable_cpus
from hscmae.data.pairs import Pairs
from hscmae.data.store import StoreWriter, open_store
from hscmae.errors import InputError
from hscmae.extract import audio, visual
from hscmae.extract.media import MediaClip, find_clips, read_audio, read_pictures
from hscmae.extras import require

__all__ = ["DIMS", "MediaClip", "extract", "features_of", "find_clips"]

log = logging.getLogger(__name__)

Vector = npt.NDArray[np.float32]
DIMS = {"audio": audio.DIM, "visual": visual.DIM}
BLOCK_CLIPS = 512


def extract(
    paths: Sequence[str | Path],
    output: str | Path,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    overwrite: bool = False,
) -> Pairs:
    """Describe media files and write their features to a store, one row a clip, in the order of the ids.

    A file that cannot be read is logged as a warning, one line each, and its clip lacks that modality; a clip of which
    nothing can be read is left out.

    Args:
        paths: media files and folders; see ``find_clips``.
        output: the store's folder.
        workers: threads; one a core where not given.
        progress: called with (clips done, clips in all).
        overwrite: replace a store that is there.

    Returns:
        The pairs in the store, memory-mapped: modalities "audio" and "visual", or the one that there is.

    Raises:
        InputError: no media files, none that can be read, the extra ``media`` missing, or ``output`` exists.
    """
    clips = find_clips(paths)
    for module in ("av", "PIL.Image"):
        require(module, "media")
    modalities = [m for m in DIMS if any(getattr(clip, m) for clip in clips)]
    waiting, done = iter(clips), 0
    with (
        StoreWriter(output, overwrite=overwrite, source="media files") as writer,
        ThreadPoolExecutor(workers or usable_cpus()) as pool,
    ):
        while block := list(islice(waiting, BLOCK_CLIPS)):
            rows: list[tuple[str, dict[str, Vector]]] = []
            for clip, (features, problems) in zip(block, pool.map(_read, block), strict=True):
                for problem in problems:
                    log.warning(problem)
                if features:
                    rows.append((clip.id, features))
                done += 1
                if progress is not None:
                    progress(done, len(clips))
            if rows:
                writer.append(_as_pairs(rows, modalities))
        if not writer.rows:
            raise InputError(f"none of the {len(clips)} clips can be read")
    return open_store(output)


def features_of(clip: MediaClip) -> dict[str, Vector]:
    """The features of one clip: modality name -> shape (``DIMS[name]``,), for the modalities that it has.

    Raises:
        InputError: a file that cannot be read.
    """
    features, problems = _read(clip)
    if problems:
        raise InputError(problems[0])
    return features


def _read(clip: MediaClip) -> tuple[dict[str, Vector], list[str]]:
    """Features of the modalities that can be read, and a line about each that cannot."""
    features: dict[str, Vector] = {}
    problems: list[str] = []
    for name, path in (("audio", clip.audio), ("visual", clip.visual)):
        if path is None:
            continue
        try:
            features[name] = (
                audio.describe(read_audio(path)) if name == "audio" else visual.describe(read_pictures(path))
            )
        except InputError as error:
            problems.append(str(error))
    return features, problems


def _as_pairs(rows: Sequence[tuple[str, dict[str, Vector]]], modalities: Sequence[str]) -> Pairs:
    present = {m: np.array([m in features for _, features in rows]) for m in modalities}
    return Pairs(
        {m: np.stack([features.get(m, np.zeros(DIMS[m], np.float32)) for _, features in rows]) for m in modalities},
        ids=np.array([name.encode() for name, _ in rows], dtype=np.bytes_),
        present=present,
        source="media files",
    )
