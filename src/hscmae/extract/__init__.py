"""Raw clips to paired features: find and pair media files, decode them safely, describe them by networks.

One file an extractor (``light_audio``, ``yamnet``, ``efficientnet``, ``transformers``, ...) behind the interface in
``base``; ``media`` decodes, ``windows`` cuts, ``jail`` does both in child processes, ``pipeline`` runs the networks
beside them, ``spool`` and ``assemble`` make a store of the results. ``hscmae.extract`` may be called as the function
``extract`` that it holds.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hscmae.extract.base import AudioExtractor, VisualExtractor
    from hscmae.extract.job import extract, features_of
    from hscmae.extract.media import Fit, Limits, MediaClip, find_clips
    from hscmae.extract.recipe import job_for, recipe_for
    from hscmae.extract.registry import get_extractor

# Imported on first use: the decoding processes import this package and shall not wait for torch.
_HOME = {
    "AudioExtractor": "base",
    "Fit": "media",
    "Limits": "media",
    "MediaClip": "media",
    "VisualExtractor": "base",
    "extract": "job",
    "features_of": "job",
    "find_clips": "media",
    "get_extractor": "registry",
    "job_for": "recipe",
    "recipe_for": "recipe",
}

__all__ = [
    "AudioExtractor",
    "Fit",
    "Limits",
    "MediaClip",
    "VisualExtractor",
    "extract",
    "features_of",
    "find_clips",
    "get_extractor",
    "job_for",
    "recipe_for",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'hscmae.extract' has no attribute {name!r}")
    return getattr(import_module(f"hscmae.extract.{_HOME[name]}"), name)


class _Callable(ModuleType):
    """``hscmae.extract`` is both this package and, as users know it, a function."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        return import_module("hscmae.extract.job").extract(*args, **options)


sys.modules[__name__].__class__ = _Callable
