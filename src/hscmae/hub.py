"""Models on the Hugging Face hub (extra ``hub``): down by name, up from a folder."""

from __future__ import annotations

from pathlib import Path

from hscmae.artifact import PUBLISHED, read_config
from hscmae.extras import require
from hscmae.methods import load
from hscmae.methods.base import Method


def from_pretrained(name: str | Path) -> Method:
    """A fitted method from a folder, or from a repository on the hub.

    Raises:
        InputError: not an artefact, or a damaged one.
    """
    if Path(name).is_dir():
        return load(name)
    hub = require("huggingface_hub", "hub")
    return load(hub.snapshot_download(str(name), allow_patterns=PUBLISHED))


def push_to_hub(folder: str | Path, name: str, *, private: bool = False) -> str:
    """Upload an artefact to a repository on the hub; returns its address.

    Raises:
        InputError: ``folder`` holds no finished model.
    """
    read_config(Path(folder))
    hub = require("huggingface_hub", "hub")
    hub.create_repo(name, private=private, exist_ok=True)
    address: str = str(hub.upload_folder(repo_id=name, folder_path=folder, allow_patterns=PUBLISHED))
    return address
