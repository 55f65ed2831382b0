"""The recipe: how features were extracted from media; it travels from the store to the model to the embeddings.

A JSON object: for each modality the extractor, its fingerprint (SHA-256 of the weights, sampling, constants) and
dimension; windows and pooling; versions. Features of another recipe mean something else, so they are refused by name.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hscmae.data.store import is_store, read_manifest
from hscmae.errors import InputError

Recipe = Mapping[str, Any]
MODALITIES = ("audio", "visual")


def recipe_of(path: str | Path) -> dict[str, Any] | None:
    """The recipe of a store, of embeddings or of a trained model; ``None`` where it has none, as feature files.

    Raises:
        InputError: a damaged manifest.
    """
    path = Path(path)
    if is_store(path):
        found = read_manifest(path).get("recipe")
    elif (path / "config.json").is_file():
        try:
            found = json.loads((path / "config.json").read_bytes()).get("recipe")
        except (ValueError, AttributeError) as error:
            raise InputError(f"{path / 'config.json'}: damaged ({error})") from None
    else:
        return None
    return found if isinstance(found, dict) else None


def require_same_recipe(
    found: Recipe | None, expected: Recipe | None, what: str, modalities: Iterable[str] = MODALITIES
) -> None:
    """Refuse features that were extracted otherwise; nothing is compared where either side has no recipe.

    Args:
        found: the recipe of what is given.
        expected: the recipe that it must be like.
        what: names what is given, for the message.
        modalities: those that matter, and of these only what both sides have.

    Raises:
        InputError: another extractor, other weights, constants or windows.

    >>> require_same_recipe({"audio": {"extractor": "light"}}, {"audio": {"extractor": "yamnet"}}, "clips")
    Traceback (most recent call last):
    ...
    hscmae.errors.InputError: clips: audio extracted by light, not by yamnet as is needed here: extract it anew
    """
    if found is None or expected is None:
        return
    for m in modalities:
        if m not in found or m not in expected or found[m] == expected[m]:
            continue
        here, there = found[m], expected[m]
        differing = sorted(key for key in {*here, *there} if here.get(key) != there.get(key))
        if "extractor" in differing:
            how = f"by {here.get('extractor')}, not by {there.get('extractor')} as is needed here"
        elif "sha256" in differing:
            how = f"by {here.get('extractor')} with weights {_short(here)}, not {_short(there)} as is needed here"
        else:
            how = f"by {here.get('extractor')} with other settings than is needed here ({', '.join(differing)})"
        raise InputError(f"{what}: {m} extracted {how}: extract it anew")
    if found.get("window") != expected.get("window"):
        raise InputError(
            f"{what}: extracted in windows of {found.get('window')} s, not {expected.get('window')} as is needed here: "
            "extract it anew"
        )


def _short(entry: Mapping[str, Any]) -> str:
    return f"{str(entry.get('sha256'))[:12]}..."
