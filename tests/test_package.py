"""What is published: wheel and sdist hold what they should and nothing else; the wheel works where nothing else is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from hscmae.version import __version__

pytest.importorskip("build", reason="needs the Python package build")
ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Those that the package says it runs on.
PYTHONS = [
    kind.split()[-1] for kind in PROJECT["classifiers"] if kind.startswith("Programming Language :: Python :: 3.")
]


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheel and sdist, made from a copy of what git knows, so that nothing lying about gets in."""
    folder = tmp_path_factory.mktemp("package")
    source, out = folder / "source", folder / "dist"
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, source / name)
    build = [sys.executable, "-m", "build", "--outdir", str(out), str(source)]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def wheel_of(dist: Path) -> Path:
    (wheel,) = dist.glob("*.whl")
    return wheel


def test_the_wheel_holds_the_package_whole_and_nothing_else(dist: Path) -> None:
    with zipfile.ZipFile(wheel_of(dist)) as wheel:
        held = {name for name in wheel.namelist() if not name.split("/")[0].endswith(".dist-info")}
    package = ROOT / "src" / "hscmae"
    there = {str(file.relative_to(ROOT / "src")) for file in package.rglob("*") if file.is_file()}
    assert held == {name for name in there if "__pycache__" not in name}
    assert {"hscmae/py.typed", "hscmae/__init__.pyi"} <= held


def test_the_sdist_builds_and_tests_itself(dist: Path) -> None:
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        held = {"/".join(name.split("/")[1:]) for name in archive.getnames()}
    assert {"pyproject.toml", "constraints.txt", "LICENSE", "CITATION.cff", "tests/conftest.py", "mkdocs.yml"} <= held


def test_every_extra_is_told_and_the_citation_is_of_this_version() -> None:
    told = (ROOT / "docs" / "installing.md").read_text()
    assert not [extra for extra in PROJECT["optional-dependencies"] if f"`{extra}`" not in told]
    assert set(USES) == set(PROJECT["optional-dependencies"]) - {"all", "docs", "dev"}
    assert f"version: {__version__}\n" in (ROOT / "CITATION.cff").read_text()


@pytest.mark.parametrize("check", [["twine", "check", "--strict"], ["check_wheel_contents"]], ids=lambda c: c[0])
def test_the_registry_would_take_them(check: list[str], dist: Path) -> None:
    pytest.importorskip(check[0])
    files = [wheel_of(dist)] if check[0] == "check_wheel_contents" else sorted(dist.iterdir())
    done = subprocess.run([sys.executable, "-m", *check, *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


# What each extra is for, as typed, or what of it can be done without a server, a network or weights.
USES = {
    "faiss": "-m hscmae index EMB --output index --backend faiss",
    "hub": "-c import hscmae,huggingface_hub;hscmae.push_to_hub",
    "lancedb": "-m hscmae index EMB --output index --backend lancedb",
    "media": "-m hscmae demo --clips 60",
    "metrics": "-m hscmae benchmark PAIRS --methods ridge-cca,supervised --seeds 1 --output out",
    "onnx": "-m hscmae export RUN --output out",
    "parquet": "-m hscmae convert PAIRS --output out.parquet",
    "pgvector": "-c import hscmae.search.pgvector,psycopg",
    "plots": "-m hscmae benchmark PAIRS --methods ridge-cca,pca --seeds 1 --output out",
    "ray": "-m hscmae embed RUN PAIRS --output out --engine ray",
    "serve": "-c import hscmae.serve.app",
    "tensorboard": "-m hscmae train PAIRS --output out --tensorboard --set training.steps=2",
    "transformers": "-c import hscmae.extract.transformers,transformers",
    "tune": "-m hscmae tune PAIRS --method smoothed-cca --trials 1 --output out",
    "umap": "-c import hscmae.report,umap",
}

PAIRS = """
import hscmae
from hscmae.data.store import write_store
write_store(hscmae.synthetic_pairs(400).pairs, "pairs")
"""


@pytest.fixture(scope="module")
def base(dist: Path) -> Path:
    """An environment with the wheel and nothing else."""
    subprocess.run([sys.executable, "-m", "venv", str(dist.parent / "base")], check=True)
    python = dist.parent / "base" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", wheel_of(dist)], check=True)
    return python


@pytest.mark.long
@pytest.mark.parametrize("extra", USES)
def test_every_extra_brings_what_it_is_for(extra: str, dist: Path, base: Path, tmp_path: Path) -> None:
    """Each alone, in an environment of its own on top of the base."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(python: Path, *arguments: object) -> str:
        command = [str(python), *map(str, arguments)]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run(base, "-c", PAIRS)
    run(base, "-m", "hscmae", "train", "pairs", "--method", "ridge-cca", "--output", "run")
    run(base, "-m", "hscmae", "embed", "run", "pairs", "--output", "emb")
    run(base, "-m", "venv", "own")
    own = tmp_path / "own" / "bin" / "python"
    (shared,) = (base.parents[1] / "lib").glob("*/site-packages")
    (packages,) = (tmp_path / "own" / "lib").glob("*/site-packages")
    (packages / "base.pth").write_text(f"{shared}\n")
    run(own, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", f"{wheel_of(dist)}[{extra}]")
    named = {"RUN": "run", "PAIRS": "pairs", "EMB": "emb"}
    how, _, what = USES[extra].partition(" ")
    run(own, how, *([what] if how == "-c" else [named.get(word, word) for word in what.split()]))


@pytest.mark.long
@pytest.mark.parametrize("version", PYTHONS)
def test_the_wheel_works_where_nothing_else_is(version: str, dist: Path, tmp_path: Path) -> None:
    interpreter = shutil.which(f"python{version}")
    if interpreter is None or subprocess.run([interpreter, "-c", ""], capture_output=True).returncode:
        pytest.skip(f"needs Python {version}")
    subprocess.run([interpreter, "-m", "venv", str(tmp_path / "venv")], check=True)
    python, constraints = tmp_path / "venv" / "bin" / "python", ROOT / "constraints.txt"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [str(python), *map(str, arguments)]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    def install(what: str) -> None:
        done = run("-m", "pip", "install", "-q", "-c", constraints, what)
        assert done.returncode == 0, done.stderr

    install(str(wheel_of(dist)))
    fit = "import hscmae; pairs = hscmae.synthetic_pairs(100).pairs; print(hscmae.RidgeCCA(dim=4).fit(pairs).dims_)"
    assert run("-c", fit).stdout == "{'audio': 128, 'visual': 1024}\n"
    assert run("-m", "hscmae", "--help").returncode == 0
    lacking = run("-m", "hscmae", "demo", "--clips", "60")
    assert lacking.returncode == 2 and "(extra media)" in lacking.stderr

    install(f"{wheel_of(dist)}[media]")
    done = run("-m", "hscmae", "demo", "--clips", "60")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "demo" / "report.html").is_file()
