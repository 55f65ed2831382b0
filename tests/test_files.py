"""What may be replaced, and that what is replaced stays until the new one is whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hscmae import files
from hscmae.errors import InputError
from hscmae.files import FolderKind, output_folder, partial_folder, publish, recover, require_apart, write_atomic

KIND = FolderKind("a basket", ["basket.json"], "test-basket", ["basket.json", "eggs/*.egg"], listings=["listed"])


def fill(folder: Path, text: str = "old", listed: tuple[str, ...] = ("a[1].npy",)) -> None:
    (folder / "eggs").mkdir(parents=True)
    (folder / "basket.json").write_text(json.dumps({"format": "test-basket", "listed": list(listed)}))
    (folder / "eggs" / "one.egg").write_text(text)
    for name in listed:
        (folder / name).write_text(text)


def contents(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


def replace(folder: Path, fail: type[BaseException] | None = None, resume: bool = False) -> None:
    with output_folder(
        folder, KIND, resume=resume, overwrite=True, resumable=lambda place: (place / "half.egg").exists()
    ) as place:
        fill(place, "new")
        if fail is not None:
            raise fail
    assert not partial_folder(folder).exists()


def test_a_folder_of_ours_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    fill(tmp_path / "out")
    replace(tmp_path / "out")
    assert set(contents(tmp_path / "out").values()) >= {"new"} and "old" not in contents(tmp_path / "out").values()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("error", [InputError, OSError, KeyboardInterrupt])
def test_a_replacement_that_fails_leaves_the_old_one(tmp_path: Path, error: type[BaseException]) -> None:
    fill(tmp_path / "out")
    before = contents(tmp_path / "out")
    with pytest.raises(error):
        replace(tmp_path / "out", error)
    assert contents(tmp_path / "out") == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("error", [InputError, KeyboardInterrupt])
def test_a_new_folder_that_fails_is_gone_and_blocks_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error):
        replace(tmp_path / "out", error)
    assert list(tmp_path.iterdir()) == []
    replace(tmp_path / "out")


@pytest.mark.parametrize("foreign", ["notes.txt", "eggs/thesis.tex", ".hidden", "deep/in/it.egg"])
def test_a_folder_with_anything_else_in_it_is_left_alone(tmp_path: Path, foreign: str) -> None:
    fill(tmp_path / "out")
    (tmp_path / "out" / foreign).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "out" / foreign).write_text("mine")
    before = contents(tmp_path / "out")
    with pytest.raises(InputError, match=foreign.replace(".", r"\.")):
        replace(tmp_path / "out")
    assert contents(tmp_path / "out") == before and not partial_folder(tmp_path / "out").exists()


@given(marker=st.sampled_from(["{}", "[]", "not JSON", '{"format": "another"}', "[" * 100_000]))
def test_a_marker_of_another_kind_is_no_marker(tmp_path_factory: pytest.TempPathFactory, marker: str) -> None:
    folder = tmp_path_factory.mktemp("foreign")
    (folder / "basket.json").write_text(marker)
    with pytest.raises(InputError, match="is not a basket"):
        replace(folder)
    assert contents(folder) == {"basket.json": marker}


def test_links_are_files_to_keep_not_folders_to_enter(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "one.egg").write_text("mine")
    fill(tmp_path / "out")
    (tmp_path / "out" / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="link"):
        replace(tmp_path / "out")
    assert (tmp_path / "elsewhere" / "one.egg").read_text() == "mine"


def test_what_was_killed_is_gone_on_with_beside_the_old_one(tmp_path: Path) -> None:
    fill(tmp_path / "out")
    half = partial_folder(tmp_path / "out")
    half.mkdir()
    (half / "half.egg").write_text("half")
    with output_folder(
        tmp_path / "out", KIND, resume=True, overwrite=False, resumable=lambda place: (place / "half.egg").exists()
    ) as place:
        assert place == half and "old" in contents(tmp_path / "out").values()
        (place / "whole.egg").write_text("new")
    assert contents(tmp_path / "out") == {"half.egg": "half", "whole.egg": "new"}


def test_killed_between_the_two_renames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "out")
    fill(partial_folder(tmp_path / "out"), "new")
    plain = Path.rename

    def killed(self: Path, target: Path) -> Path:
        if self == partial_folder(tmp_path / "out"):
            raise SystemExit
        return plain(self, target)

    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(SystemExit):
        publish(partial_folder(tmp_path / "out"), tmp_path / "out", KIND)
    monkeypatch.undo()
    assert not (tmp_path / "out").exists()
    recover(tmp_path / "out")
    assert "old" in contents(tmp_path / "out").values()
    replace(tmp_path / "out")


def test_nothing_replaces_its_own_input(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    for output, source in (("a", "a"), ("a", "a/b"), ("a/b", "a"), ("link", "a"), ("a/../a", "a")):
        with pytest.raises(InputError, match="its own input"):
            require_apart(tmp_path / output, tmp_path / source)
    require_apart(tmp_path / "a2", tmp_path / "a")


def test_a_full_disk_is_told_by_the_name_that_the_reader_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device.*result\.json"):
        write_atomic(tmp_path / "result.json", b"{}")
    assert list(tmp_path.iterdir()) == []
