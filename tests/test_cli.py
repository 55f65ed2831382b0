"""The command line as a person types it: what it prints, what it leaves behind, and its exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import hscmae
from conftest import make_pairs
from hscmae.cli import app, main
from hscmae.data.pairs import Pairs
from hscmae.data.store import write_store

QUICK = [
    *("--set", "dim=6", "--set", "network.width=16", "--set", "training.steps=6"),
    *("--set", "training.batch_size=64", "--set", "training.evaluations=3"),
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The published one-file layout."""
    pairs, path = make_pairs(), tmp_path / "AVE.h5"
    with h5py.File(path, "w") as out:
        for split in ("train", "test"):
            part = pairs.of_split(split)
            for m, x in part.features.items():
                out[f"{m}_{split}"] = x
            out[f"lab_{split}"] = part.labels.indices
            out[f"ids_{split}"] = part.ids
    return path


@pytest.fixture
def run(file: Path, tmp_path: Path) -> Path:
    assert main(["train", str(file), "--output", str(tmp_path / "run"), *QUICK]) == 0
    return tmp_path / "run"


def out_json(capsys: pytest.CaptureFixture[str]) -> Any:
    captured = capsys.readouterr()
    assert len(captured.out.strip().splitlines()) == 1
    return json.loads(captured.out)


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    last = captured.err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    return last


def test_train_evaluate_embed(file: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert {p.name for p in run.iterdir()} >= {"model.safetensors", "config.json", "README.md", "metrics.jsonl"}
    capsys.readouterr()
    assert main(["evaluate", str(run), str(file), "--json", "--bootstrap", "50"]) == 0
    metrics = out_json(capsys)
    for direction in ("a2v", "v2a", "avg"):
        keys = ("mAP", "mAP_ci", "R@1", "R@5", "R@10", "MedR", "nDCG@10", "mAP_cutoffs", "ties")
        assert {f"{direction}/{key}" for key in keys} <= metrics.keys()
    assert metrics["split"] == "test"
    assert metrics["n_queries"] == 32
    low, high = metrics["avg/mAP_ci"]
    assert low <= metrics["avg/mAP"] <= high

    assert main(["embed", str(run), str(file), "--output", str(tmp_path / "emb"), "--split", "test"]) == 0
    stored = hscmae.read(tmp_path / "emb")
    test = hscmae.read(file).of_split("test")
    np.testing.assert_array_equal(stored.ids, test.ids)
    model = hscmae.load(run)
    for m in ("audio", "visual"):
        np.testing.assert_allclose(stored.features[m], model.embed(m, test.features[m]), atol=1e-5)


def test_the_table_of_evaluate_is_for_people(file: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["evaluate", str(run), str(file)]) == 0
    printed = capsys.readouterr().out
    assert "mAP by chance" in printed
    assert "a2v" in printed


def test_a_file_with_one_modality_is_embedded(run: Path, tmp_path: Path) -> None:
    pairs = make_pairs(30)
    write_store(Pairs({"visual": pairs.features["visual"]}, pairs.ids), tmp_path / "silent-movies")
    assert main(["embed", str(run), str(tmp_path / "silent-movies"), "--output", str(tmp_path / "emb")]) == 0
    stored = hscmae.read(tmp_path / "emb")
    assert stored.modalities == ("visual",)
    assert len(stored) == 30


def test_a_file_without_labels_gives_figures_without_map(run: Path, tmp_path: Path, capsys: Any) -> None:
    write_store(replace(make_pairs(), labels=None), tmp_path / "unlabelled")
    capsys.readouterr()
    assert main(["evaluate", str(run), str(tmp_path / "unlabelled"), "--json"]) == 0
    metrics = out_json(capsys)
    assert "avg/R@10" in metrics
    assert not [key for key in metrics if "mAP" in key]


def test_holdout_and_excluded_ids(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = replace(make_pairs(), split=None)
    write_store(pairs, tmp_path / "pool")
    (tmp_path / "ids.txt").write_text("clip00000\nclip00001\n")
    arguments = ["train", str(tmp_path / "pool"), "--output", str(tmp_path / "run"), "--holdout", "id-hash:0.25"]
    assert main([*arguments, "--exclude-ids", str(tmp_path / "ids.txt"), *QUICK, "--json"]) == 0
    trained = out_json(capsys)
    assert main(["evaluate", str(tmp_path / "run"), str(tmp_path / "pool"), "--json"]) == 0
    held_out = out_json(capsys)
    assert held_out["split"] == "test"
    assert held_out["n_queries"] + trained["rows"] in range(len(pairs) - 2, len(pairs) + 1)


def test_overwriting_resuming_and_exit_codes(file: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (run / "model.safetensors").read_bytes()
    train = ["train", str(file), "--output", str(run), *QUICK]
    assert main(train) == 2
    assert "--resume" in error_line(capsys)
    assert main([*train, "--resume"]) == 0
    assert (run / "model.safetensors").read_bytes() == before
    capsys.readouterr()
    assert main([*train, "--resume", "--set", "loss.tau=0.7"]) == 2
    assert "loss.tau" in error_line(capsys)
    assert main([*train, "--overwrite", "--seed", "5"]) == 0
    assert (run / "model.safetensors").read_bytes() != before


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--set", "loss.tua=0.1"], "did you mean 'loss.tau'"),
        (["--set", "loss.tau=-1"], "loss.tau"),
        (["--set", "loss.tau"], "KEY=VALUE"),
        (["--preset", "nosuch"], "preset"),
        (["--method", "nosuch"], "unknown method 'nosuch'"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--exclude-ids", "nowhere.txt"], "nowhere.txt"),
    ],
)
def test_wrong_usage_is_one_clear_line(
    file: Path, tmp_path: Path, capsys: Any, arguments: list[str], expected: str
) -> None:
    assert main(["train", str(file), "--output", str(tmp_path / "out"), *arguments]) == 2
    assert expected in error_line(capsys)
    assert not (tmp_path / "out").exists()


def test_input_that_is_not_there(tmp_path: Path, run: Path, file: Path, capsys: Any) -> None:
    capsys.readouterr()
    for arguments in (
        ["train", str(tmp_path / "no.h5"), "--output", str(tmp_path / "out")],
        ["evaluate", str(tmp_path / "norun"), str(file)],
        ["evaluate", str(run), str(tmp_path / "no.h5")],
        ["embed", str(run), str(tmp_path / "no.h5"), "--output", str(tmp_path / "out")],
    ):
        assert main(arguments) == 2
        assert str(tmp_path / "no") in error_line(capsys)
        assert not (tmp_path / "out").exists()


def test_a_nan_is_named_by_file_dataset_and_row(file: Path, tmp_path: Path, capsys: Any) -> None:
    with h5py.File(file, "r+") as out:
        out["visual_train"][7, 3] = np.nan
    assert main(["train", str(file), "--output", str(tmp_path / "out"), *QUICK]) == 2
    line = error_line(capsys)
    assert "AVE.h5" in line
    assert "visual" in line
    assert "row 7" in line
    assert main(["train", str(file), "--output", str(tmp_path / "out"), "--drop-bad-rows", *QUICK]) == 0


def test_a_damaged_artefact_is_refused(run: Path, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights, config = run / "model.safetensors", run / "config.json"
    good, settings = weights.read_bytes(), config.read_text()
    capsys.readouterr()
    for damaged_weights, damaged_config in (
        (good[:-5], settings),
        (b"", settings),
        (good, settings[:40]),
        (good, settings.replace('"format_version": 1', '"format_version": 9')),
        (good, settings.replace('"dim": 6', '"dim": 7')),
        (good, "[]"),
    ):
        weights.write_bytes(damaged_weights)
        config.write_text(damaged_config)
        assert main(["evaluate", str(run), str(file)]) == 2
        assert str(run) in error_line(capsys)
    config.unlink()
    assert main(["evaluate", str(run), str(file)]) == 2
    assert "--resume" in error_line(capsys)


def test_interrupted_is_130(file: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hscmae.runs.train_run", interrupt)
    assert main(["train", str(file), "--output", str(tmp_path / "out")]) == 130


def test_debug_shows_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(tmp_path), str(tmp_path), "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_settings_from_a_yaml_file(file: Path, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("dim: 5\nloss:\n  tau: 0.3\ntraining: {steps: 3, evaluations: 1}\n")
    arguments = ["--config", str(tmp_path / "c.yaml"), "--set", "loss.tau=2e-1"]
    assert main(["train", str(file), "--output", str(tmp_path / "run"), *arguments]) == 0
    params = hscmae.load(tmp_path / "run").get_params()
    assert (params["dim"], params["loss_tau"], params["training_steps"]) == (5, 0.2, 3)


def test_tensorboard_is_written_when_asked(file: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    assert main(["train", str(file), "--output", str(tmp_path / "run"), *QUICK, "--tensorboard"]) == 0
    assert list((tmp_path / "run" / "tensorboard").iterdir())


def test_every_verb_has_help_with_an_example_and_no_torch_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    for command in app.registered_commands:
        name = command.name or command.callback.__name__
        assert main([name.replace("_", "-"), "--help"]) == 0
        assert f"Example: hscmae {name}" in " ".join(capsys.readouterr().out.split())
    code = "import sys, hscmae.cli; hscmae.cli.main(['--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


@pytest.mark.parametrize("given", [["--set", "seed=7"], ["--config", "c.yaml"], ["--set", "seed=7", "--seed", "7"]])
def test_a_seed_among_the_settings_counts(file: Path, tmp_path: Path, monkeypatch: Any, given: list[str]) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text("seed: 7\n")
    assert main(["train", str(file), "--output", "run", *QUICK, *given]) == 0
    assert hscmae.load(tmp_path / "run").get_params()["seed"] == 7


def test_two_seeds_are_refused(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--output", str(tmp_path / "out")]
    assert main(["train", str(file), *out, "--set", "seed=7", "--seed", "5"]) == 2
    assert "--seed 5, but the settings say seed=7" in error_line(capsys)
    for verb in ("tune", "ablate"):
        assert main([verb, str(file), *out, "--set", "seed=7"]) == 2
        assert "seeds of the fits" in error_line(capsys)
    assert not (tmp_path / "out").exists()


def test_a_holdout_for_a_file_with_a_split_is_refused(file: Path, run: Path, tmp_path: Path, capsys: Any) -> None:
    out = ["--output", str(tmp_path / "out")]
    for arguments in (
        ["inspect", str(file)],
        ["convert", str(file), *out],
        ["convert", str(file), "--output", str(tmp_path / "out.h5")],
        ["train", str(file), *out, *QUICK],
        ["evaluate", str(run), str(file)],
        ["embed", str(run), str(file), *out],
        ["audit", str(run), str(file)],
        ["benchmark", str(file), *out],
        ["tune", str(file), *out],
        ["ablate", str(file), *out],
        ["report", str(run), str(file), "--output", str(tmp_path / "out.html")],
    ):
        for spec in ("tail:0.2", "foo:3"):
            capsys.readouterr()
            assert main([*arguments, "--holdout", spec]) == 2, arguments
            assert "has a split of its own" in error_line(capsys), arguments
    assert {path.name for path in tmp_path.iterdir()} == {"AVE.h5", "run"}


def test_a_recorded_holdout_leaves_a_files_own_split(file: Path, tmp_path: Path, capsys: Any) -> None:
    write_store(replace(make_pairs(), split=None), tmp_path / "pool")
    run = str(tmp_path / "run")
    assert main(["train", str(tmp_path / "pool"), "--output", run, "--holdout", "tail:0.5", *QUICK]) == 0
    for data, rows in ((str(file), 32), (str(tmp_path / "pool"), 80)):
        capsys.readouterr()
        assert main(["evaluate", run, data, "--json", "--bootstrap", "0"]) == 0
        assert out_json(capsys)["n_queries"] == rows
        assert main(["embed", run, data, "--output", f"{data}-emb", "--split", "test", "--json"]) == 0
        assert out_json(capsys)["rows"] == rows


def test_ids_to_leave_out_that_are_not_there(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids, out = tmp_path / "ids.txt", ["--output", str(tmp_path / "out")]
    ids.write_text("a\nb\nc\nd\ne\n")
    for verb in ("train", "benchmark", "tune", "ablate"):
        assert main([verb, str(file), *out, "--exclude-ids", str(ids)]) == 2
        assert f"{ids}: 0 of 5 ids found in {file}" in error_line(capsys)
    assert not (tmp_path / "out").exists()
    ids.write_text("a\nclip00001\nclip00002\nclip00001\n")
    assert main(["train", str(file), *out, "--exclude-ids", str(ids), *QUICK, "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["rows"] == 126
    assert captured.err == f"note: 2 of 3 ids of {ids} found in {file}\n"


def test_ids_of_the_background_count_as_found(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    others = make_pairs(50, seed=1)
    write_store(replace(others, ids=np.array([b"other%d" % i for i in range(50)])), tmp_path / "others")
    (tmp_path / "ids.txt").write_text("other7\n")
    more = ["--background", str(tmp_path / "others"), "--exclude-ids", str(tmp_path / "ids.txt"), "--json"]
    assert main(["train", str(file), "--output", str(tmp_path / "run"), *QUICK, *more]) == 0
    assert out_json(capsys)["background_pairs"] == 49


def test_two_of_three_modalities_are_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = make_pairs()
    text = np.full((len(pairs), 3), np.float32(2.0))
    write_store(replace(pairs, features={**pairs.features, "text": text}, present={}), tmp_path / "three")
    data, out = str(tmp_path / "three"), str(tmp_path / "run")
    assert main(["train", data, "--output", out, *QUICK]) == 2
    assert "found audio, visual, text; choose two: --modalities audio,visual" in error_line(capsys)
    assert main(["train", data, "--output", out, *QUICK, "--modalities", "audio,depth"]) == 2
    assert "has no depth; it has audio, visual, text" in error_line(capsys)
    assert main(["train", data, "--output", out, *QUICK, "--modalities", "visual, audio"]) == 0
    assert hscmae.load(out).dims_ == {"visual": 20, "audio": 12}
    for arguments in (["evaluate", out, data], ["audit", out, data], ["embed", out, data, "--output", f"{out}-emb"]):
        capsys.readouterr()
        assert main([*arguments, "--json"]) == 0
    assert out_json(capsys)["modalities"] == ["audio", "visual"]
    more = ["--methods", "random", "--seeds", "1", "--threads", "1", "--modalities", "audio,visual"]
    assert main(["benchmark", data, "--output", str(tmp_path / "bench"), *more]) == 0


def test_embeddings_as_one_file(file: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["embed", str(run), str(file), "--output", str(tmp_path / "emb")]) == 0
    expected = hscmae.read(tmp_path / "emb")
    for name in ("emb.npz", "emb.h5", "EMB.H5"):
        assert main(["embed", str(run), str(file), "--output", str(tmp_path / name)]) == 0
        assert (tmp_path / name).is_file()
        found = hscmae.read(tmp_path / name)
        assert found.ids.tolist() == expected.ids.tolist()
        for m, x in expected.features.items():
            np.testing.assert_array_equal(found.features[m], x)
    before = (tmp_path / "emb.h5").read_bytes()
    capsys.readouterr()
    assert main(["embed", str(run), str(file), "--output", str(tmp_path / "emb.h5")]) == 2
    assert "exists already" in error_line(capsys)
    assert (tmp_path / "emb.h5").read_bytes() == before
    assert main(["embed", str(run), str(file), "--output", str(tmp_path / "emb.h5"), "--overwrite"]) == 0
    names = {path.name for path in tmp_path.iterdir()}
    for ending in (".npy", ".csv"):
        for arguments in (["embed", str(run), str(file)], ["convert", str(file)]):
            capsys.readouterr()
            assert main([*arguments, "--output", str(tmp_path / f"x{ending}")]) == 2
            assert f"{ending} is not written" in error_line(capsys)
    assert {path.name for path in tmp_path.iterdir()} == names


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"hscmae {hscmae.__version__}\n"


def test_torchrun_trains_with_debug_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("hscmae.training.distributed.run_as_one", lambda command: command()[0])
    assert main(["--debug", "train", "--help"]) == 0
    assert main(["train", "--help", "--debug"]) == 0
    assert main(["--debug", "inspect", "--help"]) == 2


FULL_DISK = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
from hscmae.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_full_disk_is_named(file: Path, run: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk."""
    more = ["--methods", "random", "--seeds", "1", "--threads", "1"]
    before = {path.name for path in tmp_path.iterdir()}
    for arguments, out in (
        (["convert", file], "store"),
        (["convert", file], "x.npz"),
        (["convert", file], "x.h5"),
        (["embed", run, file], "emb"),
        (["embed", run, file], "emb.npz"),
        (["train", file, *QUICK], "new"),
        (["benchmark", file, *more], "bench"),
        (["report", run, file], "page.html"),
    ):
        command = [sys.executable, "-c", FULL_DISK, *map(str, arguments), "--output", str(tmp_path / out)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 1, (arguments, done.stderr)
        last = done.stderr.strip().splitlines()[-1]
        assert last.startswith(f"error: {tmp_path / out}") and "Traceback" not in done.stderr, (arguments, last)
        assert {path.name for path in tmp_path.iterdir()} - before <= {"new"}, arguments


@pytest.mark.real
def test_the_main_job_on_real_features(real_data: Path, tmp_path: Path, capsys: Any) -> None:
    file = str(real_data / "yt8m_ave15.h5")
    assert main(["train", file, "--output", str(tmp_path / "run"), "--seed", "0"]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "run"), file, "--json", "--bootstrap", "0"]) == 0
    assert out_json(capsys)["avg/mAP"] >= 0.50
