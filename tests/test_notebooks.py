"""The notebooks run from their first cell to their last, in a folder of their own, and show what they say."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import hscmae
from conftest import make_pairs
from hscmae.evaluation.protocol import evaluate
from hscmae.notebook import table

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
NOTEBOOKS = sorted(path.name for path in EXAMPLES.glob("*.ipynb"))


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_it_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    notebook = nbformat.read(EXAMPLES / name, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "outputs are not kept"
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    html = "".join(output.get("data", {}).get("text/html", "") for output in outputs)
    said = "".join(output.get("text", "") for output in outputs)
    assert "\x1b[2K" not in said
    if name == "paper_table.ipynb":
        assert r"hscmae & 0." in said
    else:
        assert html.count("data:image/jpeg") > 8 and html.count("<audio") > 8
        assert "warm_start_ridge" in html


def test_text_in_tables_is_escaped() -> None:
    assert "<b>" not in table("<b>", [("<b>", "<b>")], ("<b>",))


def test_models_show_what_they_are_before_and_after_fitting() -> None:
    model = hscmae.RidgeCCA(dim=4)
    assert "not fitted" in model._repr_html_() and "<td>4</td>" in model._repr_html_()
    model.fit(make_pairs(60))
    assert "RidgeCCA, fitted" in model._repr_html_()
    assert '<th style="text-align:left">ridge</th>' in model._repr_html_()


@pytest.mark.parametrize("labelled", [True, False])
def test_metrics_show_a_row_a_direction(labelled: bool) -> None:
    pairs = make_pairs(60)
    pairs = pairs if labelled else pairs.without_labels()
    found = evaluate(hscmae.RidgeCCA(dim=4).fit(pairs), pairs, bootstrap=20, split="all")
    html = found._repr_html_()
    for direction in ("a2v", "v2a", "avg"):
        assert f'<th style="text-align:left">{direction}</th>' in html
    assert ("mAP" in html) == labelled
    assert f"{found['avg/R@10']:.3f} [{found['avg/R@10_ci'][0]:.3f}" in html
    assert "silent" not in html.split("</table>")[0]
    assert isinstance(found, dict)
