"""Models on the Hugging Face hub (extra ``hub``): down by name, up from a folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hscmae.artifact import PUBLISHED, read_config
from hscmae.errors import InputError, first_line
from hscmae.extras import require
from hscmae.methods import load
from hscmae.methods.base import Method


def from_pretrained(name: str | Path) -> Method:
    """A fitted method from a folder, or from a repository on the hub.

    Raises:
        InputError: not an artefact, or a damaged one; no such repository, or none that can be reached.
    """
    if Path(name).is_dir():
        return load(name)
    hub = require("huggingface_hub", "hub")
    with _refusals(hub, str(name)):
        folder = hub.snapshot_download(str(name), allow_patterns=PUBLISHED)
    return load(folder)


def push_to_hub(folder: str | Path, name: str, *, private: bool = False) -> str:
    """Upload an artefact to a repository on the hub; returns its address.

    Raises:
        InputError: ``folder`` holds no finished model, or the hub refuses it.
    """
    read_config(Path(folder))
    hub = require("huggingface_hub", "hub")
    with _refusals(hub, name):
        hub.create_repo(name, private=private, exist_ok=True)
        return str(hub.upload_folder(repo_id=name, folder_path=folder, allow_patterns=PUBLISHED))


@contextmanager
def _refusals(hub: Any, name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # What is raised without a network is the HTTP library's own, and which library that is changed twice.
        expected = (OSError, ValueError, *hub.utils.HfHubHTTPError.__bases__)
        if not isinstance(error, expected):
            raise
        raise InputError(f"{name}: {first_line(error)}") from None
