"""Exported graphs embed as the model does: every method, any number of rows, rows at the edges of float32."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hscmae
from conftest import make_pairs
from hscmae.cli import main
from hscmae.config import flatten
from hscmae.data.pairs import Pairs
from hscmae.errors import InputError, RunError
from hscmae.methods import METHODS, Method, get_method

onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
pytest.importorskip("onnxscript", reason="needs the extra onnx")
pytest.importorskip("onnxruntime", reason="needs the extra onnx")

from hscmae.export import OnnxModel, export_onnx  # noqa: E402
from hscmae.export import folder as folder_module  # noqa: E402
from hscmae.export.cost import costs  # noqa: E402
from hscmae.export.graph import to_graph  # noqa: E402
from hscmae.export.precision import with_precision  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
QUICK = {"dim": 6, "network_width": 16, "training_steps": 6, "training_batch_size": 64, "training_evaluations": 3}
EDGES = (0.0, 1e-30, 1e-3, 1e6, 1e15, 1e18, 1e25, -3e38)


def quick(name: str, **settings: object) -> Method:
    method = get_method(name)
    known = flatten(method.Config())
    return method(**{k: v for k, v in QUICK.items() if k in known} | settings)


def own(model: Method, modality: str, x: Any) -> Any:
    """The model's embeddings, not a number where it gives a row no direction."""
    return model._embed_rows(modality, x, np.ones(len(x), bool), None, check=False)


@pytest.fixture(scope="module")
def fitted() -> Method:
    return quick("hscmae").fit(make_pairs())


def directed(model: Method, modality: str, n: int, random: np.random.Generator) -> Any:
    """Made-up rows whose embedding is not so short that float32's rounding turns it, which depends on the processor."""
    x = 3 * random.normal(size=(2 * n + 8, model.dims_[modality])).astype(np.float32)
    with torch.no_grad():
        size = torch.linalg.vector_norm(model._embed(modality, model._vectors(modality, x, None)).float(), dim=1)
    found = x[(size > 0.2 * size.median()).numpy()][:n]
    assert len(found) == n
    return found


@pytest.mark.parametrize("name", METHODS)
def test_every_method_embeds_the_same(name: str) -> None:
    model = quick(name, anchors_share=0.3).fit(make_pairs())
    random = np.random.default_rng(0)
    for m, d in model.dims_.items():
        exported = OnnxModel(model, {m: to_graph(model, m).SerializeToString()})
        for n in (0, 1, 7, 500, 2100):  # the last one in several blocks
            x = directed(model, m, n, random)
            away = np.abs(exported.embed(m, x) - own(model, m, x)).max(1)
            # Among many made-up rows one or the other has hardly a direction, and float32 rounds it either way.
            assert (away > 1e-5).sum() <= (2 if n > 500 else 0) and away.max(initial=0) < 1e-4
        edges = np.array(EDGES, np.float32)[:, None] * np.ones(d, np.float32)
        edges = np.concatenate([edges, random.normal(size=(5, d)) * 1e10, [model.scalers_[m].mean]]).astype(np.float32)
        np.testing.assert_allclose(exported.embed(m, edges), own(model, m, edges), atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "max", "attention"])
def test_sequences(pooling: str) -> None:
    pairs = make_pairs(120)
    steps = {m: np.stack([x, x * 0.5, x + 1], axis=1) for m, x in pairs.features.items()}
    lengths = {m: 1 + np.arange(120) % 3 for m in steps}
    model = quick("hscmae", pooling=pooling).fit(replace(pairs, features=steps, lengths=lengths))
    exported = OnnxModel(model, {m: to_graph(model, m).SerializeToString() for m in steps})
    for m, x in steps.items():
        x[np.arange(3) >= lengths[m][:, None]] = 1e30  # behind the end: must not matter
        expected = model.embed(m, x, lengths=lengths[m])
        np.testing.assert_allclose(exported.embed(m, x, lengths=lengths[m]), expected, atol=1e-5)
        vectors = pairs.features[m]
        np.testing.assert_allclose(exported.embed(m, vectors), model.embed(m, vectors), atol=1e-5)


def test_kernel_without_its_share_of_the_linear_one_and_without_kernel() -> None:
    for settings in ({"view_linear": 0.0}, {"view_kind": "linear"}, {"head_final": False}, {"anchors_share": 0.0}):
        model = quick("hscmae", **settings).fit(make_pairs())
        exported = OnnxModel(model, {"audio": to_graph(model, "audio").SerializeToString()})
        x = np.random.default_rng(0).normal(size=(7, 12)).astype(np.float32)
        np.testing.assert_allclose(exported.embed("audio", x), model.embed("audio", x), atol=1e-5)


def test_the_folder_says_what_the_other_side_needs(fitted: Method, tmp_path: Path) -> None:
    fitted.save(tmp_path / "model")
    told = export_onnx(fitted, tmp_path / "out", run=tmp_path / "model")
    assert json.loads((tmp_path / "out" / "export.json").read_text()) == told
    assert told["dim"] == 6 and told["input"] == "vectors" and told["largest_difference"] < 1e-5
    for m, entry in told["modalities"].items():
        content = (tmp_path / "out" / entry["file"]).read_bytes()
        assert entry["dim"] == fitted.dims_[m] and entry["sha256"] == hashlib.sha256(content).hexdigest()
        assert str(ROOT).encode() not in content and b"site-packages" not in content and b'File "' not in content
        onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert told["model_sha256"] == config["sha256"]


def test_the_recipe_goes_along(fitted: Method, tmp_path: Path) -> None:
    fitted.recipe_ = {"audio": {"extractor": "light", "dim": 12}, "window": 1.0}
    try:
        assert export_onnx(fitted, tmp_path / "out")["recipe"] == fitted.recipe_
    finally:
        fitted.recipe_ = None


def test_any_modality_name_is_a_file(tmp_path: Path) -> None:
    pairs = make_pairs()
    names = ("../etc/passwd", "sound\n\x00")
    told = export_onnx(
        quick("pca").fit(dict(zip(names, pairs.features.values(), strict=True))), tmp_path / "out"
    )  # fmt: skip
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "..%2Fetc%2Fpasswd.onnx", "export.json", "sound%0A%00.onnx",
    ]  # fmt: skip
    assert [*told["modalities"]] == [*names]


@pytest.mark.parametrize(("precision", "ratio", "apart"), [("float16", 0.65, 5e-3), ("int8", 0.5, 0.1)])
def test_fewer_bits(fitted: Method, precision: str, ratio: float, apart: float) -> None:
    graph = to_graph(fitted, "audio")
    small = with_precision(graph, precision)
    assert len(small.SerializeToString()) < ratio * len(graph.SerializeToString())
    x = np.random.default_rng(0).normal(size=(300, 12)).astype(np.float32)
    exported = OnnxModel(fitted, {"audio": small.SerializeToString()})
    z = exported.embed("audio", x)
    np.testing.assert_allclose(z, fitted.embed("audio", x), atol=apart)
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(exported.embed("audio", x[5:6]), z[5:6], atol=1e-6)  # no row depends on others


def test_the_cost_is_measured(fitted: Method) -> None:
    pairs = make_pairs()
    graphs = {m: to_graph(fitted, m) for m in fitted.dims_}
    whole, half, eighth = costs(fitted, graphs, pairs)
    score = hscmae.evaluate(fitted, pairs, bootstrap=0)["avg/mAP"]
    assert whole.map == pytest.approx(score, abs=1e-6) and whole.lost == pytest.approx(0, abs=1e-6)
    assert whole.agreement == 1 and whole.agreement >= half.agreement >= eighth.agreement > 0.5
    assert eighth.lost == pytest.approx(score - eighth.map)
    without = costs(fitted, graphs, replace(pairs, labels=None))
    assert [cost.map for cost in without] == [None] * 3 and without[0].agreement == 1


def test_a_graph_that_computes_something_else_is_not_written(
    fitted: Method, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_module, "differences", lambda *_: np.full(100, 2e-5))
    with pytest.raises(RunError, match=r"differ from the model by 2\.0e-05"):
        export_onnx(fitted, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_there_stays(fitted: Method, tmp_path: Path) -> None:
    export_onnx(fitted, tmp_path / "out")
    with pytest.raises(InputError, match="overwrite"):
        export_onnx(fitted, tmp_path / "out")
    export_onnx(fitted, tmp_path / "out", precision="int8", overwrite=True)
    assert json.loads((tmp_path / "out" / "export.json").read_text())["precision"] == "int8"
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match=r"mine\.txt"):
        export_onnx(fitted, tmp_path / "out", overwrite=True)


def test_faults_are_told(fitted: Method, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not fitted"):
        export_onnx(hscmae.PCA(), tmp_path / "out")
    with pytest.raises(InputError, match="float32, float16, int8"):
        export_onnx(fitted, tmp_path / "out", precision="int4")
    assert not (tmp_path / "out").exists()


def test_the_command(tmp_path: Path, pairs: Pairs, capsys: pytest.CaptureFixture[str]) -> None:
    from hscmae.data.store import write_store

    write_store(pairs, tmp_path / "data")
    quick("ridge-cca", ridge=3.0).fit(pairs).save(tmp_path / "run")
    command = ["export", str(tmp_path / "run"), str(tmp_path / "data"), "--output", str(tmp_path / "out")]
    assert main([*command, "--precision", "float16"]) == 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("float32", "float16", "int8", "mAP", "audio.onnx and visual.onnx"))
    assert main([*command, "--overwrite", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [cost["precision"] for cost in told["costs"]] == ["float32", "float16", "int8"]
    assert main(command) == 2
    assert main(["export", str(tmp_path / "nothing"), "--output", str(tmp_path / "other")]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 2 and not captured.out


def test_the_example_needs_neither_torch_nor_this_package(fitted: Method, tmp_path: Path) -> None:
    export_onnx(fitted, tmp_path / "out")
    pairs = make_pairs()
    for m, x in pairs.features.items():
        np.save(tmp_path / f"{m}.npy", x)
    script = ROOT / "examples" / "onnx_search.py"
    code = (
        "import runpy, sys; sys.modules['torch'] = sys.modules['hscmae'] = None; "
        f"sys.argv = {[str(script), 'out', 'audio.npy', 'visual.npy']}; runpy.run_path({str(script)!r}, "
        "run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    z = fitted.embed_pairs(pairs)
    best = np.argsort(-(z["audio"] @ z["visual"].T), axis=1)[:, :3]
    assert len(rows) == len(pairs)
    assert np.mean([int(row[1].partition(":")[0]) == best[i, 0] for i, row in enumerate(rows)]) > 0.99
