"""The artefact: a folder with ``model.safetensors``, ``config.json`` and ``README.md``, the model card.

No pickle, on the way in or out. Each file is written under a temporary name, flushed and renamed, ``config.json``
last: a folder without it is not a model yet. It names the SHA-256 of the weights, so a mixture is noticed.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from hscmae.data.scaling import Standardizer
from hscmae.errors import InputError
from hscmae.extras import require
from hscmae.files import write_atomic
from hscmae.version import __version__

if TYPE_CHECKING:
    from hscmae.methods.base import Method

FORMAT = 1
WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"


def is_artifact(folder: Path) -> bool:
    """Whether ``folder`` holds a finished model."""
    return (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()


def save_artifact(method: Method, folder: Path, data: Mapping[str, Any] | None = None) -> None:
    """Write a fitted method to ``folder``, replacing a model that is there.

    Args:
        method: the fitted method.
        folder: made if missing.
        data: what it was trained on, for the record: source, holdout, excluded ids.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = dict(method._tensors())
    for m, scaler in method.scalers_.items():
        tensors[f"scaler/mean/{m}"] = torch.from_numpy(scaler.mean)
        tensors[f"scaler/scale/{m}"] = torch.from_numpy(scaler.scale)
    if method.anchors_ is not None:
        tensors["anchors"] = method.anchors_
    weights = save({name: value.detach().contiguous() for name, value in tensors.items()})
    config = {
        "format_version": FORMAT,
        "method": method.name,
        "preset": method.preset,
        "settings": method.config.model_dump(),
        "modalities": {m: {"dim": d} for m, d in method.dims_.items()},
        "training": method.summary_,
        "data": dict(data or {}),
        "versions": {"hscmae": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "sha256": hashlib.sha256(weights).hexdigest(),
    }
    (folder / CONFIG).unlink(missing_ok=True)
    write_atomic(folder / CARD, model_card(config).encode())
    write_atomic(folder / WEIGHTS, weights)
    write_atomic(folder / CONFIG, (json.dumps(config, indent=2) + "\n").encode())


def read_config(folder: Path) -> dict[str, Any]:
    """``config.json`` of an artefact.

    Raises:
        InputError: there is none, it is not JSON, or of a format that this version does not know.
    """
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
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged ({error})") from None
    if version != FORMAT:
        raise InputError(f"{path}: format version {version}, this program reads {FORMAT}")
    if not isinstance(settings, dict) or not isinstance(modalities, dict):
        raise InputError(f"{path}: damaged (settings and modalities must be objects)")
    return dict(config)


def load_artifact(folder: str | Path) -> Method:
    """The fitted method in ``folder``.

    Raises:
        InputError: not an artefact, or a damaged one.
    """
    from hscmae.methods import get_method

    folder = Path(folder)
    config = read_config(folder)
    path = folder / WEIGHTS
    if not path.is_file():
        raise InputError(f"{path}: missing")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != config["sha256"]:
        raise InputError(f"{path}: checksum wrong: damaged, or not the weights that {CONFIG} describes")
    method = get_method(str(config.get("method"))).from_settings(config["settings"])
    try:
        tensors: dict[str, Tensor] = load(content)
        method.dims_ = {m: int(entry["dim"]) for m, entry in config["modalities"].items()}
        method.scalers_ = {
            m: Standardizer(tensors[f"scaler/mean/{m}"].numpy(), tensors[f"scaler/scale/{m}"].numpy())
            for m in method.dims_
        }
        method.summary_ = dict(config.get("training", {}))
        method.anchors_ = tensors.get("anchors")
        method._restore(tensors)
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{folder}: weights do not fit {CONFIG} ({str(error).splitlines()[0]})") from None
    return method


def from_pretrained(name: str | Path) -> Method:
    """A fitted method from a folder, or from a repository on the Hugging Face hub (extra ``hub``)."""
    if Path(name).is_dir():
        return load_artifact(Path(name))
    hub = require("huggingface_hub", "hub")
    return load_artifact(Path(hub.snapshot_download(str(name), allow_patterns=[WEIGHTS, CONFIG, CARD])))


def push_to_hub(folder: str | Path, name: str, *, private: bool = False) -> str:
    """Upload an artefact to a repository on the Hugging Face hub (extra ``hub``); returns its address."""
    read_config(Path(folder))
    hub = require("huggingface_hub", "hub")
    hub.create_repo(name, private=private, exist_ok=True)
    address: str = str(hub.upload_folder(repo_id=name, folder_path=folder, allow_patterns=[WEIGHTS, CONFIG, CARD]))
    return address


def model_card(config: Mapping[str, Any]) -> str:
    """The artefact's ``README.md``."""
    training, data = config["training"], config["data"]
    modalities = ", ".join(f"{m} ({entry['dim']}-d)" for m, entry in config["modalities"].items())
    first, second = config["modalities"]
    facts = {
        "method": f"{config['method']} (preset {config['preset']})",
        "modalities": modalities,
        "embedding": f"{config['settings']['dim']} dimensions, unit norm, compared by cosine",
        "training rows": training.get("rows"),
        "complete pairs": training.get("complete_pairs"),
        "chosen step": training.get("chosen_step"),
        "trained on": data.get("source"),
        "held out": data.get("holdout"),
        "versions": ", ".join(f"{name} {version}" for name, version in config["versions"].items()),
    }
    rows = "\n".join(f"| {name} | {value} |" for name, value in facts.items() if value is not None)
    return f"""---
library_name: hscmae
tags: [cross-modal-retrieval, {first}, {second}]
---

# A common space of {first} and {second}

Trained without labels by [HSC-MAE](https://arxiv.org/abs/2604.04229)'s open implementation `hscmae`.

| | |
|---|---|
{rows}

```python
import hscmae

model = hscmae.load("path/to/this/folder")
z = model.embed("{first}", features)  # (n, {config["modalities"][first]["dim"]}) -> (n, {config["settings"]["dim"]})
```

Features must come from the extractors that the training features came from; their scaling is part of the model.
Neighbours in this space share what the training pairs shared, wrong or biased pairs included.
"""
