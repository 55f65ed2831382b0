"""The artefact: a folder with ``model.safetensors``, ``config.json`` and ``README.md``, the model card.

No pickle, on the way in or out. Each file is written under a temporary name, flushed and renamed, ``config.json``
last: a folder without it is not a model yet. It names the SHA-256 of the weights, so a mixture is noticed. What a
method packs into one, and how it is restored, stands in ``methods.base``.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from hscmae.errors import InputError
from hscmae.files import FolderKind, output_folder, recover, write_atomic
from hscmae.version import __version__

VERSION = 1
FORMAT = "hscmae-model"
WEIGHTS, CONFIG, CARD, SEEN = "model.safetensors", "config.json", "README.md", "training_rows.safetensors"
PUBLISHED = [WEIGHTS, CONFIG, CARD]
ARTIFACT = FolderKind("a model", [CONFIG], FORMAT, [*PUBLISHED, SEEN])


def is_artifact(folder: Path) -> bool:
    """Whether ``folder`` holds a finished model."""
    return (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()


def replace_artifact(
    folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor], seen: Mapping[str, Tensor]
) -> None:
    """``write_artifact`` to a new folder, or in place of a model that is there, which stays until the new one is whole.

    Raises:
        InputError: ``folder`` holds something else, or anything beside a model.
    """
    with output_folder(folder, ARTIFACT, resume=False, overwrite=True, resumable=lambda _: False) as place:
        write_artifact(place, config, tensors, seen)


def write_artifact(
    folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor], seen: Mapping[str, Tensor]
) -> None:
    """Write the files of a model into ``folder``.

    Args:
        folder: made if missing.
        config: method, preset, settings, modalities, training and data, JSON values.
        tensors: the weights by name.
        seen: keys of the rows that it was trained on, see ``data.fingerprint``; they stay with the folder and are not
            part of what is published.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = save({name: value.detach().contiguous() for name, value in tensors.items()})
    whole = {
        "format": FORMAT,
        "format_version": VERSION,
        **config,
        "versions": {"hscmae": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "sha256": hashlib.sha256(weights).hexdigest(),
    }
    (folder / CONFIG).unlink(missing_ok=True)
    write_atomic(folder / CARD, model_card(whole).encode())
    write_atomic(folder / SEEN, save(dict(seen)))
    write_atomic(folder / WEIGHTS, weights)
    write_atomic(folder / CONFIG, (json.dumps(whole, indent=2) + "\n").encode())


def read_config(folder: Path) -> dict[str, Any]:
    """``config.json`` of an artefact.

    Raises:
        InputError: there is none, it is not JSON, or of a format that this version does not know.
    """
    recover(folder)
    path = folder / CONFIG
    if not path.is_file():
        unfinished = (folder / "metrics.jsonl").exists()
        raise InputError(
            f"{folder}: training has not finished; go on with `hscmae train ... --output {folder} --resume`"
            if unfinished
            else f"{folder}: not a trained model (no {CONFIG})"
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        version, _ = config["format_version"], config["sha256"]
        settings, modalities = config["settings"], config["modalities"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: damaged ({error})") from None
    if version != VERSION:
        raise InputError(f"{path}: format version {version}, this program reads {VERSION}")
    if not isinstance(settings, dict) or not isinstance(modalities, dict):
        raise InputError(f"{path}: damaged (settings and modalities must be objects)")
    return dict(config)


def read_artifact(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """``config.json`` and the weights that it describes.

    Raises:
        InputError: not an artefact, or a damaged one.
    """
    config = read_config(folder)
    path = folder / WEIGHTS
    if not path.is_file():
        raise InputError(f"{path}: missing")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != config["sha256"]:
        raise InputError(f"{path}: checksum wrong: damaged, or not the weights that {CONFIG} describes")
    try:
        # Copied to where torch would have put them: at other addresses a product may round otherwise.
        return config, {name: value.clone() for name, value in load(content).items()}
    except SafetensorError as error:
        raise InputError(f"{path}: not weights ({error})") from None


def read_seen(folder: Path) -> dict[str, Tensor] | None:
    """Keys of the rows that a model was trained on, or ``None`` where they did not come with it.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / SEEN
    if not path.is_file():
        return None
    try:
        return load(path.read_bytes())
    except SafetensorError as error:
        raise InputError(f"{path}: damaged ({error})") from None


def model_card(config: Mapping[str, Any]) -> str:
    """The artefact's ``README.md``; names that come from files are quoted for where they stand."""
    environment = Environment(
        loader=PackageLoader("hscmae", "."),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["cell"] = lambda text: " ".join(str(text).split()).replace("|", "\\|")
    return environment.get_template("card.md.j2").render(config=config)
