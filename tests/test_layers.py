"""Who may import whom: imports go down the layers only, and never in a circle; those inside functions count too."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

SRC = Path(__file__).resolve().parents[1] / "src"

# Low to high. What stands on one line does not know each other.
LAYERS = (
    "errors version",
    "config cpus extras files notebook prefetch streams",
    "data",
    "extract linear",
    "nn",
    "losses",
    "training",
    "evaluation",
    "artifact",
    "methods",
    "audit embedding export hub runs",
    "ray_engine",
    "benchmark report",
    "search",
    "demo serve",
    "cli",
    "__init__ __main__",
)
RANK = {unit: rank for rank, layer in enumerate(LAYERS) for unit in layer.split()}

# Arrows that are still to go.
KNOWN: set[tuple[str, str]] = set()


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(SRC).with_suffix("").parts)


FILES = {name_of(path): path for path in (SRC / "hscmae").rglob("*.py")}


def unit_of(file: str) -> str:
    """The package or module right below ``hscmae`` that a file belongs to."""
    return file.split(".")[1]


def imports(source: str) -> set[str]:
    """The files of this package that a module's text imports anywhere."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {file if (file := file_of(name)) else file_of(str(node.module)) for name in names}  # type: ignore[misc]
        elif isinstance(node, ast.Import):
            found |= {file_of(alias.name) for alias in node.names}  # type: ignore[misc]
    return found - {None}


def file_of(module: str) -> str | None:
    return next((name for name in (module, f"{module}.__init__") if name in FILES), None)


ARROWS = {file: imports(path.read_text(encoding="utf-8")) - {file} for file, path in FILES.items()}


def upward(arrows: dict[str, set[str]]) -> set[tuple[str, str]]:
    """Arrows between units that do not lead to a lower layer."""
    return {
        (file, target)
        for file, targets in arrows.items()
        for target in targets
        if unit_of(file) != unit_of(target) and RANK[unit_of(file)] <= RANK[unit_of(target)]
    }


def circle(arrows: dict[str, set[str]]) -> list[str] | None:
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        return error.args[1]
    return None


def test_every_file_has_a_layer() -> None:
    assert {unit_of(file) for file in FILES} <= RANK.keys()


def test_imports_go_down() -> None:
    assert upward(ARROWS) - KNOWN == set()


def test_no_circle() -> None:
    assert circle({file: {t for t in targets if (file, t) not in KNOWN} for file, targets in ARROWS.items()}) is None


def test_known_arrows_are_struck_off_when_they_are_gone() -> None:
    assert {(file, target) for file, targets in ARROWS.items() for target in targets} >= KNOWN


def test_both_are_seen() -> None:
    assert imports("def f():\n    from hscmae.data import store, pairs\n    import hscmae.cli.app") == {
        "hscmae.data.store", "hscmae.data.pairs", "hscmae.cli.app",
    }  # fmt: skip
    assert upward({"hscmae.data.pairs": {"hscmae.methods.base"}, "hscmae.methods.base": {"hscmae.data.pairs"}}) == {
        ("hscmae.data.pairs", "hscmae.methods.base")
    }
    assert upward({"hscmae.report.html": {"hscmae.benchmark.plots"}})
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})
