"""``inspect`` and ``convert``, and what every reading verb says of bad files, as a person in a shell meets them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from conftest import make_pairs
from hscmae.cli import main
from hscmae.data.readers import read
from hscmae.data.store import open_store, write_store

QUICK = [
    *("--set", "dim=4", "--set", "network.width=16", "--set", "training.steps=4"),
    *("--set", "training.evaluations=2"),
]


def arrays() -> dict[str, Any]:
    """The published layout."""
    pairs = make_pairs()
    found: dict[str, Any] = {}
    for split in ("train", "test"):
        part = pairs.of_split(split)
        assert part.labels is not None
        found |= {f"{m}_{split}": x.copy() for m, x in part.features.items()}
        found |= {f"lab_{split}": part.labels.indices, f"ids_{split}": part.ids.copy()}
    return found


def save(path: Path, data: dict[str, Any]) -> Path:
    with h5py.File(path, "w") as file:
        for name, array in data.items():
            file[name] = array
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return save(tmp_path / "AVE.h5", arrays())


def with_rows(name: str, rows: list[int], value: Any) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        data = arrays()
        data[name][rows] = value
        save(path, data)

    return change


def with_array(**changed: Any) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        data = arrays() | changed
        save(path, {name: array for name, array in data.items() if array is not None})

    return change


def cut_short(path: Path) -> None:
    path.write_bytes(save(path, arrays()).read_bytes()[:-2000])


def external_link(path: Path) -> None:
    save(path, arrays())
    with h5py.File(path, "a") as file:
        file["depth_train"] = h5py.ExternalLink("/etc/passwd", "/x")


def external_data(path: Path) -> None:
    save(path, arrays())
    with h5py.File(path, "a") as file:
        file.create_dataset("audio_val", (4, 12), "f4", external=[("/etc/passwd", 0, 192)])


def absurd_size(path: Path) -> None:
    save(path, arrays())
    with h5py.File(path, "a") as file:
        file.create_dataset("audio_val", (10**9, 10**4), "f4", chunks=(1, 100))


def a_store_with_another_byte(path: Path) -> None:
    write_store(make_pairs(), path)
    with (path / "audio.npy").open("r+b") as out:
        out.seek(400)
        out.write(b"\x01")


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "no such file or folder"),
    "empty": (lambda path: path.touch(), "the file is empty"),
    "cut short": (cut_short, "damaged or cut short"),
    "text": (lambda path: path.write_text("hello\n" * 99), "not HDF5, whatever its name says"),
    "an empty folder": (lambda path: path.mkdir(), "not a feature file of a known format"),
    "nan": (with_rows("audio_train", [3, 9], np.nan), "audio: NaN or infinite values in rows 3, 9"),
    "infinity": (with_rows("visual_train", [5], np.inf), "visual: NaN or infinite values in row 5"),
    "ids twice": (with_rows("ids_train", [7], b"clip00001"), "ids: ids seen before (first 'clip00001') in row 7"),
    "labels": (
        with_rows("lab_train", [4], -2),
        "whole numbers from 0 on (-1: none) in row 4",
    ),
    "rows": (with_array(visual_train=np.ones((50, 20), "f4")), "row counts differ: audio_train 128, ids_train 128"),
    "dims": (with_array(visual_test=np.ones((32, 19), "f4")), "visual: dimensions differ between splits"),
    "dataset": (with_array(visual_test=None), "visual_test: missing, but visual_train is there"),
    "rank": (with_array(audio_train=np.ones(128, "f4")), "audio_train: expected shape (rows, dims)"),
    "type": (with_array(audio_train=np.ones((128, 12), int)), "audio_train: expected floating point features, got int"),
    "no rows": (lambda path: save(path, {k: v[:0] for k, v in arrays().items()}), "no rows"),
    "external link": (external_link, "depth_train: links to another file; nothing outside the file is opened"),
    "external data": (external_data, "audio_val: keeps its data in another file"),
    "absurd size": (absurd_size, "audio_val: declares float32 (1000000000, 10000), far more than the file holds"),
    "checksum": (a_store_with_another_byte, "audio.npy: SHA-256 differs from the manifest's"),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    sound = save(folder / "AVE.h5", arrays())
    assert main(["train", str(sound), "--output", str(folder / "run"), *QUICK]) == 0
    return folder / "run"


@pytest.mark.parametrize("fault", BAD)
def test_each_fault_is_one_line_exit_code_2_and_nothing_left_behind(
    fault: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make, words = BAD[fault]
    make(Path("bad.h5"))
    before = sorted(path.name for path in tmp_path.iterdir())
    capsys.readouterr()
    for arguments in (
        ["convert", "bad.h5", "--output", "out"],
        ["convert", "bad.h5", "--output", "out.npz"],
        ["train", "bad.h5", "--output", "out", *QUICK],
        ["evaluate", str(run), "bad.h5"],
        ["embed", str(run), "bad.h5", "--output", "out"],
    ):
        assert main(arguments) == 2, arguments
        captured = capsys.readouterr()
        errors = [line for line in captured.err.splitlines() if line.startswith("error: ")]
        assert captured.out == ""
        assert len(errors) == 1 and errors[0].startswith("error: bad.h5: "), (arguments, captured.err)
        assert words in errors[0], (arguments, errors)
        assert "Traceback" not in captured.err
        assert sorted(path.name for path in tmp_path.iterdir()) == before, arguments
    assert main(["inspect", "bad.h5"]) == 2
    captured = capsys.readouterr()
    assert words.removeprefix("bad.h5: ") in captured.out + captured.err
    if fault == "missing":
        return
    assert main(["inspect", "bad.h5", "--json"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is False
    assert any(problem["fault"] for problem in found["problems"])
    assert {"code", "dataset", "rows", "message"} <= found["problems"][0].keys()


def test_files_of_other_dimensions_or_modalities_are_named(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = save(tmp_path / "x.h5", {"audio": np.ones((20, 9), "f4"), "visual": np.ones((20, 20), "f4")})
    alone = save(tmp_path / "y.h5", {"audio": np.random.default_rng(0).normal(size=(20, 12)).astype("f4")})
    for arguments, words in (
        (["evaluate", str(run), str(other)], "x.h5: audio has 9 dimensions, the model 12"),
        (["embed", str(run), str(other), "--output", str(tmp_path / "z")], "x.h5: audio has 9 dimensions"),
        (["evaluate", str(run), str(alone)], "y.h5: has no visual; it has audio"),
        (["train", str(alone), "--output", str(tmp_path / "r")], "y.h5: training needs two modalities, found audio"),
        (["evaluate", str(run), str(other), "--split", "tset"], "split must be one of train, val, test or all"),
    ):
        capsys.readouterr()
        code = main(arguments)
        assert code == 2
        if "tset" not in arguments:
            assert words in capsys.readouterr().err
    assert not (tmp_path / "z").exists() and not (tmp_path / "r").exists()
    assert main(["embed", str(run), str(alone), "--output", str(tmp_path / "e")]) == 0
    assert main(["inspect", str(alone)]) == 0
    assert "one modality: enough to embed, not to train on" in capsys.readouterr().out


def test_fewer_rows_than_a_batch_and_constant_columns_train(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = {name: array[:20] for name, array in arrays().items()}
    data["audio_train"][:, 3] = data["audio_test"][:, 3] = 5
    path = save(tmp_path / "few.h5", data)
    assert main(["train", str(path), "--output", str(tmp_path / "r"), *QUICK]) == 0
    capsys.readouterr()
    assert main(["inspect", str(path)]) == 0
    assert "audio: 1 of 12 columns are constant: 3 [constant-columns]" in capsys.readouterr().out
    too_few = save(tmp_path / "five.h5", {name: array[:5] for name, array in data.items()})
    assert main(["train", str(too_few), "--output", str(tmp_path / "s")]) == 2
    assert "five.h5: 5 complete training pairs are too few" in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


def test_inspect_prints_what_a_person_wants(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = arrays()
    data["audio_train"][:8] = data["audio_train"][0]
    data["audio_train"][20, 1] = np.nan
    data["visual_test"][2] = data["visual_train"][5]
    assert main(["inspect", str(save(tmp_path / "x.h5", data))]) == 2
    out = capsys.readouterr().out
    lines = [" ".join(line.replace("│", " ").split()) for line in out.splitlines()]
    assert lines[0].endswith("x.h5: HDF5, split layout, 160 rows (train 128, test 32)")
    for expected in ("dimensions 12 20", "silent rows 8 0", "of these, across splits 0 2", "constant columns 0 0"):
        assert expected in lines
    assert "4 classes, one a clip" in lines
    assert sum("█" in line for line in lines) == 4
    faults, remarks = out.split("Faults: these stop training")[1].split("To know: these do not stop training")
    assert faults.strip() == "audio: NaN or infinite values in row 20 [not-finite]"
    assert "rows 0, 1, 2, 3, 4 and 3 more [silent-rows]" in remarks
    assert "visual: vectors that a row of another split has too in rows 5, 130 [duplicates-across-splits]" in remarks


def test_inspect_of_a_sound_file(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(file)]) == 0
    assert "Nothing wrong found." in capsys.readouterr().out
    assert main(["inspect", str(file), "--json"]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert found["ok"] is True and found["rows"] == 160 and found["problems"] == []
    assert found["modalities"]["visual"]["dim"] == 20 and found["splits"] == {"train": 128, "test": 32}


def test_silent_rows_leave_a_file_ok(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = arrays()
    data["audio_train"][:8] = data["audio_train"][0]
    assert main(["inspect", str(save(tmp_path / "x.h5", data)), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is True
    assert [(p["code"], p["fault"]) for p in found["problems"]] == [("silent-rows", False)]


def test_inspect_judges_what_is_left_without_bad_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = arrays()
    data["audio_train"][4] = np.nan
    path = save(tmp_path / "x.h5", data)
    assert main(["inspect", str(path)]) == 2
    assert "Faults: these stop training" in capsys.readouterr().out
    assert main(["inspect", str(path), "--drop-bad-rows"]) == 0
    assert "Faults" not in capsys.readouterr().out
    data["lab_train"][0] = -3
    assert main(["inspect", str(save(path, data)), "--drop-bad-rows"]) == 2


def test_inspect_against_another_file(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = arrays()
    for split in ("train", "test"):
        data[f"visual_{split}"] *= 3
    other = save(tmp_path / "theirs.h5", data)
    assert main(["inspect", str(file), "--against", str(other)]) == 0
    out = capsys.readouterr().out
    assert "160 rows matched by id" in out
    assert "audio: identical" in out
    assert "visual: the same times one factor: theirs = 3 x ours" in out
    assert main(["inspect", str(file), "--against", str(tmp_path / "no.h5")]) == 2
    assert "no.h5: no such file" in capsys.readouterr().err


def test_inspect_with_a_holdout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(tmp_path / "x.h5", {m: arrays()[f"{m}_train"] for m in ("audio", "visual")})
    assert main(["inspect", str(path), "--holdout", "tail:0.25", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["splits"] == {"train": 96, "test": 32}
    assert main(["inspect", str(path), "--holdout", "tail:2"]) == 2
    assert "holdout must be" in capsys.readouterr().err


def test_names_from_a_file_cannot_steer_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(tmp_path / "x.h5", arrays() | {"audio\x1b[31m_train": np.full((128, 2), np.nan, "f4")})
    with h5py.File(path, "a") as file:
        file.attrs["class_names"] = ["\x1b]0;title\x07", "[bold]b", "c", "d"]
    assert main(["inspect", str(path)]) == 2
    assert main(["train", str(path), "--output", str(tmp_path / "r")]) == 2
    captured = capsys.readouterr()
    assert "\x1b" not in captured.out + captured.err and "\x07" not in captured.out
    assert "[bold]b" in captured.out


def test_convert_to_a_store_and_back(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = tmp_path / "store"
    assert main(["convert", str(file), "--output", str(store), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"output": str(store), "rows": 160}
    assert main(["convert", str(file), "--output", str(store)]) == 2
    assert "exists already (--overwrite replaces it)" in capsys.readouterr().err
    for name in ("back.h5", "back.npz"):
        assert main(["convert", str(store), "--output", str(tmp_path / name)]) == 0
        again, first = read(tmp_path / name), read(file)
        for m in first.features:
            np.testing.assert_array_equal(again.features[m], first.features[m])
        np.testing.assert_array_equal(again.ids, first.ids)
    assert main(["convert", str(file), str(store), "--output", str(tmp_path / "two.h5")]) == 2
    assert "from one input" in capsys.readouterr().err


def test_convert_options(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["convert", str(file), "--output", str(out), "--split", "test", "--dtype", "float16"]) == 0
    assert len(open_store(out)) == 32 and open_store(out).features["audio"].dtype == np.float16
    assert main(["convert", str(file), "--output", str(out), "--overwrite", "--split", "val"]) == 2
    assert len(open_store(out)) == 32
    assert main(["convert", str(file), "--output", str(out), "--overwrite", "--dtype", "float64"]) == 2
    plain = save(tmp_path / "plain.h5", {m: arrays()[f"{m}_train"] for m in ("audio", "visual")})
    assert main(["convert", str(plain), "--output", str(out), "--overwrite", "--holdout", "tail:0.25"]) == 0
    assert open_store(out).split.tolist() == [b"train"] * 96 + [b"test"] * 32  # type: ignore[union-attr]


def test_ctrl_c_says_how_to_go_on(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from hscmae.data.store import StoreWriter

    monkeypatch.setattr("hscmae.data.convert.CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr("hscmae.data.table.BLOCK_BYTES", 4096)
    original, blocks = StoreWriter.append, []

    def append(self: StoreWriter, pairs: Any) -> None:
        blocks.append(len(pairs))
        if len(blocks) == 3:
            raise KeyboardInterrupt
        original(self, pairs)

    monkeypatch.setattr(StoreWriter, "append", append)
    out = tmp_path / "out"
    assert main(["convert", str(file), "--output", str(out)]) == 130
    assert "--resume goes on from there" in capsys.readouterr().err
    assert not out.exists()
    assert main(["convert", str(file), "--output", str(out), "--resume"]) == 0
    np.testing.assert_array_equal(open_store(out).features["visual"], read(file).features["visual"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["AVE.h5", "out"]


def test_what_was_left_out_or_guessed_is_warned_of(tmp_path: Path) -> None:
    data = arrays()
    audio = data["audio_train"]
    audio[[3, 9]] = np.nan
    codes = (np.arange(128) % 4 == 0).astype(int)
    path = save(tmp_path / "x.h5", {"audio_feat": audio, "visual_feat": data["visual_train"], "Train_test": codes})
    command = [sys.executable, "-m", "hscmae", "convert", str(path), "--output", str(tmp_path / "s"), "--json"]
    done = subprocess.run([*command, "--drop-bad-rows"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"] == 126
    assert done.stderr.splitlines() == [
        f"warning: {path}: Train_test: code 0, with more rows, is read as train",
        f"warning: {path}: left out rows 3, 9",
    ]


def test_train_on_another_split(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    for split, rows in (("all", 160), ("test", 32)):
        arguments = ["train", str(file), "--output", str(tmp_path / split), "--split", split, "--json", *QUICK]
        assert main(arguments) == 0
        assert json.loads(capsys.readouterr().out)["rows"] == rows


def test_where_data_comes_from_goes_along(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = save(tmp_path / "other.h5", {name: array for name, array in arrays().items() if name.endswith("_train")})
    with h5py.File(file, "a") as first, h5py.File(other, "a") as second:
        first.attrs.update({"source": "YouTube-8M, CC BY 4.0", "license": "CC BY 4.0", "rows": 3})
        second.attrs.update({"source": "VEGAS", "license": "CC BY 4.0"})
        second["ids_train"][:] = [b"other%03d" % i for i in range(128)]
    store, back = tmp_path / "store", tmp_path / "back.h5"
    assert main(["convert", str(file), "--output", str(store)]) == 0
    assert main(["convert", str(store), "--output", str(back)]) == 0
    assert main(["convert", str(file), "--output", str(tmp_path / "direct.h5")]) == 0
    assert main(["convert", str(file), str(other), "--output", str(tmp_path / "both")]) == 0
    assert main(["convert", str(tmp_path / "both"), "--output", str(tmp_path / "both.h5")]) == 0
    for path, source in ((back, ""), (tmp_path / "direct.h5", ""), (tmp_path / "both.h5", "; VEGAS")):
        with h5py.File(path) as found:
            assert found.attrs["source"] == "YouTube-8M, CC BY 4.0" + source
            assert found.attrs["license"] == "CC BY 4.0"
            assert "rows" not in found.attrs


@pytest.mark.real
def test_real_files(real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("yt8m_ave15.h5", "yt8m_sample.tfrecord"):
        assert main(["inspect", str(real_data / name), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["ok"] is True
        output = tmp_path / name.removesuffix(".tfrecord")  # a store, where the format is none that is written
        assert main(["convert", str(real_data / name), "--output", str(output)]) == 0
        assert main(["inspect", str(real_data / name), "--against", str(output)]) == 0
        assert capsys.readouterr().out.count("identical") == 2
