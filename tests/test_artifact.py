"""Models on the hub: what is asked of the hub's library, with a stand-in for it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import hscmae
from hscmae.data.pairs import Pairs
from hscmae.errors import InputError
from hscmae.methods import RidgeCCA

FILES = ["model.safetensors", "config.json", "README.md"]


@pytest.fixture
def model(pairs: Pairs, tmp_path: Path) -> Path:
    RidgeCCA(dim=4).fit(pairs).save(tmp_path / "model")
    return tmp_path / "model"


def test_a_model_comes_from_a_folder_or_from_the_hub(model: Path, pairs: Pairs, monkeypatch: Any) -> None:
    asked = []

    def snapshot_download(name: str, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        return str(model)

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=snapshot_download))
    x = pairs.features["audio"]
    expected = hscmae.load(model).embed("audio", x)
    np.testing.assert_array_equal(hscmae.from_pretrained(str(model)).embed("audio", x), expected)
    assert asked == []
    np.testing.assert_array_equal(hscmae.from_pretrained("somebody/model").embed("audio", x), expected)
    assert asked == [("somebody/model", FILES)]


def test_pushing_uploads_the_artefact_alone(model: Path, tmp_path: Path, monkeypatch: Any) -> None:
    calls = []
    hub = SimpleNamespace(
        create_repo=lambda name, **options: calls.append((name, options)),
        upload_folder=lambda **options: calls.append(options) or "address",
    )
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    assert hscmae.push_to_hub(model, "somebody/model", private=True) == "address"
    assert calls == [
        ("somebody/model", {"private": True, "exist_ok": True}),
        {"repo_id": "somebody/model", "folder_path": model, "allow_patterns": FILES},
    ]
    with pytest.raises(InputError, match="not a trained model"):
        hscmae.push_to_hub(tmp_path, "somebody/model")
    assert len(calls) == 2
