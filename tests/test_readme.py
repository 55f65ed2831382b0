"""The README's map is complete and its files are there; what its blocks say is run by ``test_pages.py``."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def test_the_map_names_every_folder() -> None:
    listed = set()
    for row in re.findall(r"^\| (`.*?) \|", README, re.MULTILINE):
        first, *others = (Path(name) for name in re.findall(r"`([^`]+)/`", row))
        listed |= {first, *(first.parent / other for other in others)}
    packages = {module.parent.relative_to(ROOT) for module in (ROOT / "src").rglob("*.py")}
    assert listed >= packages and all((ROOT / folder).is_dir() for folder in listed)


def test_the_map_of_the_benchmarks_names_every_module() -> None:
    text = (ROOT / "benchmarks" / "README.md").read_text()
    modules = {path.stem for folder in ("timings", "studies") for path in (ROOT / "benchmarks" / folder).glob("*.py")}
    assert {
        name for row in re.findall(r"^\| (`.*?) \|", text, re.MULTILINE) for name in row.strip("`").split("`, `")
    } == modules


def test_every_link_leads_somewhere() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)", README):
        assert (ROOT / target).exists(), target


@pytest.mark.parametrize("folder", ["src", "benchmarks"])
def test_every_module_says_what_it_is_for(folder: str) -> None:
    for module in (ROOT / folder).rglob("*.py"):
        text = module.read_text()
        assert not text or ast.get_docstring(ast.parse(text)), module
