"""What the commands print: no text from a file is markup or steers the terminal, tables fit, programs get the same."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from conftest import make_pairs
from hscmae.benchmark.damage import with_wrong_pairs
from hscmae.cli import main, progress, tables
from hscmae.data.pairs import Labels, Pairs
from hscmae.data.store import write_store

QUICK = [
    *("--set", "dim=6", "--set", "network.width=16", "--set", "training.steps=6"),
    *("--set", "training.batch_size=64", "--set", "training.evaluations=3"),
]
EVIL = "\x1b]0;title\x07[red]x[/b]"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose ids, classes and folder's name try it all."""
    pairs = make_pairs(160)
    names = ["Video 129 [u5YGuiVKx5t]", "[/b]", "[red]red", "\x1b[31mesc", "[link=file:///x]y[/link]"]
    ids = [name.encode() for name in names] + pairs.ids.tolist()[len(names) :]
    assert pairs.labels is not None
    labels = Labels(pairs.labels.indices, pairs.labels.indptr, ("[/b]", "\x1b[31m", "[red]c", "d"))
    path = tmp_path_factory.mktemp("data") / f"store {EVIL.replace('/', '')}"
    write_store(replace(pairs, ids=np.array(ids, np.bytes_), labels=labels), path)
    return path


@pytest.fixture(scope="module")
def run(store: Path) -> Path:
    assert main(["train", str(store), "--output", str(store.parent / "run [b]"), *QUICK]) == 0
    return store.parent / "run [b]"


def control_characters(text: str) -> set[str]:
    return {c for c in text if not c.isprintable()} - {"\n"}


def test_ids_are_printed_as_they_are(store: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["audit", str(run), str(store), "--split", "all", "--top", "200"]) == 0
    out = capsys.readouterr().out
    for name in ("Video 129 [u5YGuiVKx5t]", "[/b]", "[red]red", r"\x1b[31mesc", "[link=file:///x]y[/link]"):
        assert name in out
    assert not control_characters(out)


def test_no_command_lets_a_file_steer_the_terminal(
    store: Path, run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / f"out {EVIL.replace('/', '')}"
    quick = ["--methods", "random,pca", "--seeds", "1", "--threads", "1"]
    for arguments, code in (
        (["inspect", store], 0),
        (["inspect", store, "--against", store], 0),
        (["convert", store, "--output", f"{out}1"], 0),
        (["train", store, "--output", f"{out}2", *QUICK, "--background", store], 2),  # every clip is its own
        (["train", store, "--output", f"{out}2", *QUICK], 0),
        (["evaluate", run, store, "--bootstrap", "0"], 0),
        (["embed", run, store, "--output", f"{out}3"], 0),
        (["benchmark", store, "--output", f"{out}4", *quick], 0),
        (["report", run, store, "--output", f"{out}.html"], 0),
        (["inspect", f"{out}0"], 2),
        (["inspect", f"{out}0", EVIL], 2),
        (["evaluate", run, store, f"--split={EVIL}"], 2),
        (["train", store, "--output", f"{out}5", f"--method={EVIL}"], 2),
    ):
        capfd.readouterr()
        assert main([str(a) for a in arguments]) == code, arguments
        printed = "".join(capfd.readouterr())
        assert not control_characters(printed), (arguments, printed)
        assert "[red]x" in printed or store.name not in printed, (arguments, printed)


def test_warnings_are_printed_as_text(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pairs = make_pairs(40)
    x = pairs.features["audio"].copy()
    x[3] = np.nan
    path = tmp_path / "x\x1b[31m.npz"
    np.savez(path, audio=x, visual=pairs.features["visual"])
    command = [sys.executable, "-m", "hscmae", "convert", str(path), "--output", str(tmp_path / "s"), "--drop-bad-rows"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0
    assert r"x\x1b[31m.npz: left out row 3" in done.stderr
    assert not control_characters(done.stdout + done.stderr)


def test_a_file_name_that_is_not_utf8_is_shown(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff.npz")
    np.savez(tmp_path / name, **make_pairs(40).features)
    for arguments in (["inspect", name], ["convert", name, "--output", os.fsdecode(b"s\xff")]):
        done = subprocess.run(
            [sys.executable, "-m", "hscmae", *arguments], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert r"\udcff" in done.stdout
    done = subprocess.run(
        [sys.executable, "-m", "hscmae", "inspect", name, "--json"], cwd=tmp_path, capture_output=True
    )
    assert json.loads(done.stdout)["path"] == name


def test_json_has_what_the_table_of_audit_has(store: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["audit", str(run), str(store), "--split", "all", "--top", "3"]) == 0
    table = capsys.readouterr().out
    assert main(["audit", str(run), str(store), "--split", "all", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert f"{found['scored']} pairs" in table
    for pair in found["pairs"][:3]:
        row = next(line for line in table.splitlines() if re.search(rf"\b{pair['rank']} ", line))
        assert f"{pair['score']:.2f}" in row and f"{pair['random_better']:.0%}" in row


def test_json_has_what_train_says(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    others = make_pairs(60, seed=1)
    write_store(replace(others, ids=np.array([b"other%d" % i for i in range(60)])), tmp_path / "others")
    arguments = [
        "train",
        str(store),
        "--output",
        str(tmp_path / "run"),
        *QUICK,
        "--background",
        str(tmp_path / "others"),
    ]
    capsys.readouterr()
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["output"] == str(tmp_path / "run") and found["method"] == "hscmae" and found["rows"] == 128
    assert found["chosen_step"] > 0 and found["background_pairs"] == 60


def test_train_tells_how_many_pairs_look_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = replace(make_pairs(300), split=np.repeat(b"train", 300))
    for name, share in (("right", 0.0), ("wrong", 0.5)):
        write_store(with_wrong_pairs(pairs, share, 0), tmp_path / name)
        method = ["--method", "smoothed-cca", "--set", "weigh_pairs=true", "--set", "dim=6"]
        assert main(["train", str(tmp_path / name), "--output", str(tmp_path / f"run-{name}"), *method]) == 0
        said = " ".join(capsys.readouterr().out.split())
        assert bool(re.search(r"\d+% to \d+% of the pairs look wrong and count less; hscmae audit ", said)) == bool(
            share
        )
        card = (tmp_path / f"run-{name}" / "README.md").read_text()
        assert "| pairs taken for wrong | " in card


@pytest.mark.parametrize("verb", ["train", "tune"])
def test_the_next_command_can_be_pasted(verb: str, store: Path, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    path = tmp_path / "a b's"
    write_store(make_pairs(400), path)
    run = str(tmp_path / "my run")
    more = [*QUICK] if verb == "train" else ["--method", "infonce", "--trials", "1", "--threads", "1", *QUICK]
    capsys.readouterr()
    assert main([verb, str(path), "--output", run, *more]) == 0
    words = shlex.split(capsys.readouterr().out.split("Next: ")[1])
    assert str(path) in words
    assert run in words or f"{run}/best.yaml" in words


def in_terminal(arguments: list[str], columns: int) -> str:
    """What a command leaves on a terminal of so many columns, without the escape codes of colours."""
    primary, secondary = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm"}
    with subprocess.Popen(
        [sys.executable, "-m", "hscmae", *arguments],
        stdin=secondary,
        stdout=secondary,
        stderr=secondary,
        env=environment,
    ) as process:
        os.close(secondary)
        said = b""
        while True:
            try:
                piece = os.read(primary, 65536)
            except OSError:
                break
            if not piece:
                break
            said += piece
    os.close(primary)
    assert process.returncode == 0, said
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said.decode()).replace("\r", "\n")


def test_training_at_80_columns_shows_bar_steps_and_time_left(store: Path, tmp_path: Path) -> None:
    said = in_terminal(["train", str(store), "--output", str(tmp_path / "run"), *QUICK], 80)
    lines = [line for line in said.splitlines() if "━" in line]
    assert lines
    for line in lines:
        assert len(line) <= 80
        assert re.match(r"(select|refit)[\w ]* +[━╸╺]+ +\d+/\d+ +[-\d]+:[-\d]+(:[-\d]+)?", line), line
    assert any("total" in line for line in lines)


def test_no_bar_moves_in_a_pipe_that_asks_for_colours(store: Path, tmp_path: Path) -> None:
    """As in a notebook, whose kernel sets these."""
    command = [sys.executable, "-m", "hscmae", "train", str(store), "--output", str(tmp_path / "run"), *QUICK]
    told = {"FORCE_COLOR": "1", "CLICOLOR_FORCE": "1", "TERM": "xterm-color"}
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | told)
    assert done.returncode == 0
    assert "\x1b[" not in done.stderr
    assert done.stderr.count("\n") < 20


def test_the_metrics_fit_80_columns(store: Path, run: Path) -> None:
    said = in_terminal(["evaluate", str(run), str(store), "--bootstrap", "20"], 80)
    (line,) = [line for line in said.splitlines() if line.strip().startswith("mAP ") and "chance" not in line]
    assert len(re.findall(r"\d\.\d{3} \[\d\.\d{3}, \d\.\d{3}\]", line)) == 3


DOCUMENT = """### Head

| method | mAP | empty | a column of many words |
|---|---|---|---|
| [red]one[/b] | 0.1 |  | +0.4863 to +0.5871 of many words that do not fit |
| two | 0.2 |  | x |

Words below.
"""


def test_a_document_is_a_table_in_a_terminal_and_itself_in_a_pipe(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tables.print_document(DOCUMENT)
    assert capsys.readouterr().out == DOCUMENT
    monkeypatch.setattr("hscmae.cli.tables.console", lambda: Console(width=60, markup=False, force_terminal=False))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    tables.print_document(DOCUMENT)
    out = capsys.readouterr().out
    assert all(len(line) <= 60 for line in out.splitlines())
    assert "|" not in out and "empty" not in out
    assert "[red]one[/b]" in out and "### Head" in out and "Words below." in out


@contextmanager
def shown(columns: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Console]:
    console = Console(width=columns, force_terminal=True, record=True, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    monkeypatch.setattr(progress, "Console", lambda **_: console)
    yield console


def test_names_of_files_are_text_beside_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    with shown(80, monkeypatch) as console, progress.stage_progress(enabled=True) as show:
        show("[/b]\x1b[31m.h5", 1, 2)
    assert r"[/b]\x1b[31m.h5" in console.export_text()
    with shown(80, monkeypatch) as console, progress.jobs_progress(enabled=True) as show:
        show("[/b]", 1, 2, "note [/x]\x1b")  # type: ignore[misc]
    text = console.export_text()
    assert "[/b]" in text and r"note [/x]\x1b" in text


def test_pairs_of_one_modality_are_no_surprise_to_embed(run: Path, tmp_path: Path, capsys: Any) -> None:
    write_store(Pairs({"audio": make_pairs(30).features["audio"]}), tmp_path / "alone")
    capsys.readouterr()
    assert main(["embed", str(run), str(tmp_path / "alone"), "--output", str(tmp_path / "e"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["modalities"] == ["audio"]
