"""Models on the Hugging Face hub (extra ``hub``): down by name, up from a folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hscmae.artifact import CARD, PUBLISHED, read_config
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


def push_to_hub(
    folder: str | Path,
    name: str,
    *,
    private: bool = False,
    metrics: Mapping[str, Any] | None = None,
    data: str = "own data",
) -> str:
    """Upload an artefact to a repository on the hub; returns its address.

    Args:
        folder: what ``save`` or ``hscmae train`` wrote.
        name: ``OWNER/NAME`` of the repository; it is made where there is none.
        private: whether a repository that is made is private.
        metrics: what ``evaluate`` gave; the card then holds it as the hub's ``model-index``.
        data: what was evaluated on.

    Raises:
        InputError: ``folder`` holds no finished model, or the hub refuses it.
    """
    read_config(Path(folder))
    hub = require("huggingface_hub", "hub")
    with _refusals(hub, name):
        files = {file: (Path(folder) / file).read_bytes() for file in PUBLISHED}
        files[CARD] = _card(hub, files[CARD].decode(), name, metrics or {}, data).encode()
        hub.create_repo(name, private=private, exist_ok=True)
        # One commit: a card never stands there without its weights.
        added = [hub.CommitOperationAdd(path_in_repo=file, path_or_fileobj=content) for file, content in files.items()]
        return str(hub.create_commit(name, added, commit_message="Upload a model of hscmae"))


def _card(hub: Any, text: str, name: str, metrics: Mapping[str, Any], data: str) -> str:
    """The artefact's card with the means of retrieval metrics in it."""
    shown = {key: value for key, value in metrics.items() if key.startswith("avg/") and isinstance(value, float)}
    if not shown:
        return text
    card = hub.ModelCard(text, ignore_metadata_errors=True)
    card.data.model_name = name.rpartition("/")[2]
    card.data.eval_results = [
        hub.EvalResult(
            task_type="cross-modal-retrieval",
            dataset_type=data.lower().replace(" ", "-"),
            dataset_name=data,
            dataset_split=metrics.get("split"),
            metric_type=key.removeprefix("avg/"),
            metric_value=value,
        )
        for key, value in shown.items()
    ]
    return str(card)


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
