"""What was confirmed is on the disk, whatever happens to the process."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hscmae.data.splits import read_ids
from hscmae.errors import InputError
from hscmae.serve.decisions import CHOICES, NAME, Decisions, as_list, can_be_listed


def test_the_last_decision_counts_after_a_restart(tmp_path: Path) -> None:
    made = Decisions(tmp_path)
    for name, choice in (("a", "drop"), ("b", "keep"), ("a", "unsure"), ("c", "drop"), ("b", None)):
        made.decide(name, choice)
    made.close()
    again = Decisions(tmp_path)
    assert again.all() == {"a": "unsure", "c": "drop"}
    again.close()


@given(cut=st.integers(0, 400), junk=st.binary(max_size=30))
@settings(max_examples=60, deadline=None)
def test_a_file_that_was_cut_or_damaged_keeps_its_whole_lines(
    tmp_path_factory: pytest.TempPathFactory, cut: int, junk: bytes
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    made = Decisions(folder)
    for k in range(5):
        made.decide(f"clip {k}", CHOICES[k % 3])
    made.close()
    content = (folder / NAME).read_bytes()
    (folder / NAME).write_bytes(content[:cut] + junk)
    again = Decisions(folder)
    for k in range(content[:cut].count(b"\n")):
        assert again.of(f"clip {k}") == CHOICES[k % 3]
    again.decide("after", "keep")
    again.close()
    last = Decisions(folder)
    assert last.of("after") == "keep"
    last.close()


def test_a_decision_that_cannot_be_kept_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Decisions(tmp_path)
    made.decide("a", "keep")
    monkeypatch.setattr(os, "pwrite", lambda *_: 3)  # a full disk takes a part
    with pytest.raises(OSError, match="No space"):
        made.decide("b", "drop")
    monkeypatch.undo()
    assert made.all() == {"a": "keep"}
    made.decide("c", "drop")
    assert [json.loads(line)["id"] for line in (tmp_path / NAME).read_text().splitlines()] == ["a", "c"]
    made.close()


@pytest.mark.parametrize("content", [b"my own notes", b'{"a": 1}\nand more', b"\xff\r"])
def test_nothing_that_stands_in_the_file_is_lost(tmp_path: Path, content: bytes) -> None:
    (tmp_path / NAME).write_bytes(content)
    made = Decisions(tmp_path)
    made.decide("a", "drop")
    made.close()
    assert (tmp_path / NAME).read_bytes().startswith(content)
    assert Decisions(tmp_path).all() == {"a": "drop"}


def test_two_servers_do_not_share_a_folder(tmp_path: Path) -> None:
    made = Decisions(tmp_path)
    with pytest.raises(InputError, match="another server keeps decisions there"):
        Decisions(tmp_path)
    made.close()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="--state"):
        Decisions(tmp_path / "file")


@given(st.lists(st.binary(min_size=1, max_size=20).filter(lambda b: not b.endswith(b"\0")), unique=True, max_size=8))
@settings(max_examples=200, deadline=None)
def test_a_list_is_read_as_it_was_written(tmp_path_factory: pytest.TempPathFactory, names: list[bytes]) -> None:
    names = [name for name in names if can_be_listed(name) and b"\0" not in name]
    path = tmp_path_factory.mktemp("list") / "exclude-ids.txt"
    path.write_bytes(as_list(names))
    if names:
        assert read_ids(path).tolist() == names
    else:
        with pytest.raises(InputError, match="no ids"):
            read_ids(path)
