"""Finding an extractor by name: built in, of another package, or any checkpoint of ``transformers``.

Own extractors are entry points of the group ``hscmae.extractors``: a function of a list of weights (files and folders,
see ``weights.py``) that gives an ``AudioExtractor`` or a ``VisualExtractor``.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points

from hscmae.errors import InputError
from hscmae.extract import transformers
from hscmae.extract.base import Extractor, Weights

GROUP = "hscmae.extractors"
BUILT_IN = {
    "audio": {
        "light": "hscmae.extract.light_audio",
        "yamnet": "hscmae.extract.yamnet",
        "vggish": "hscmae.extract.vggish",
    },
    "visual": {
        "light": "hscmae.extract.light_visual",
        "efficientnet-lite0": "hscmae.extract.efficientnet",
        "inception-v3": "hscmae.extract.inception",
    },
}


def names(modality: str) -> list[str]:
    """The extractors of a modality: built in, and those of other packages."""
    own = [point.name for point in entry_points(group=GROUP)]
    return [*sorted({*BUILT_IN[modality], *own}), "transformers:ID"]


def get_extractor(name: str, modality: str, weights: Weights = ()) -> Extractor:
    """An extractor, its network loaded.

    Args:
        name: as ``names`` gives them; ``transformers:`` takes a checkpoint's id or folder.
        modality: "audio" or "visual".
        weights: files and folders in which weights are looked for first.

    Raises:
        InputError: an unknown name, an extra that is missing, weights that are missing or not the right ones, or an
            extractor of the other modality.
    """
    if name.startswith("transformers:"):
        extractor: Extractor = transformers.load(name.removeprefix("transformers:"), modality)
    elif name in BUILT_IN[modality]:
        extractor = import_module(BUILT_IN[modality][name]).load(weights)
    else:
        points = entry_points(group=GROUP, name=name)
        if not points:
            raise InputError(f"no {modality} extractor {name!r}; there are {', '.join(names(modality))}")
        extractor = next(iter(points)).load()(weights)
    if extractor.modality != modality:
        raise InputError(f"{name} describes {extractor.modality}, not {modality}")
    return extractor
