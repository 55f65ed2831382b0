"""What a user's own type checker says of the constructors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import stubs

ROOT = Path(__file__).resolve().parents[1]


def test_the_constructors_types_are_the_settings() -> None:
    assert stubs.STUB.read_text(encoding="utf-8") == stubs.stub(), "make stubs writes it anew"


def test_a_type_checker_knows_names_and_types(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    calls = {
        'HSCMAE(dim=64, loss_tau=0.1, view_kind="linear", preset="paper")': "",
        "RidgeCCA(dim=8, ridge=3).set_params(dim=4).fit({})": "",
        "HSCMAE(dims=64)": 'Unexpected keyword argument "dims" for "HSCMAE"',
        'HSCMAE(dim="64")': 'Argument "dim" to "HSCMAE" has incompatible type "str"',
        'HSCMAE(view_kind="kernels")': 'Argument "view_kind" to "HSCMAE" has incompatible type',
        "RidgeCCA(loss_tau=0.1)": 'Unexpected keyword argument "loss_tau" for "RidgeCCA"',
    }
    file = tmp_path / "own.py"
    file.write_text("from hscmae import HSCMAE, RidgeCCA\n" + "".join(f"{call}\n" for call in calls))
    skipped = (
        "[mypy]\nstrict = true\nfollow_imports = silent\n[mypy-torch.*,numpy.*,pydantic.*]\nfollow_imports = skip\n"
    )
    (tmp_path / "mypy.ini").write_text(skipped)  # what the constructors have no need of takes half a minute
    arguments = ["--config-file", str(tmp_path / "mypy.ini"), "--cache-dir", os.devnull, str(file)]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *arguments],
        cwd=ROOT, env={"PATH": "", "MYPYPATH": str(ROOT / "src")}, capture_output=True, text=True,
    )  # fmt: skip
    said = [line for line in done.stdout.splitlines() if " error: " in line]
    expected = [(number, text) for number, text in enumerate(calls.values(), 2) if text]
    assert len(said) == len(expected), done.stdout + done.stderr
    for line, (number, text) in zip(said, expected, strict=True):
        assert line.startswith(f"{file}:{number}:") and text in line
