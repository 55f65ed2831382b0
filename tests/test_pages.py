"""The pages keep their word: each block of Python and each command of README and docs is run on small made-up data.

Blocks of a page run in their order, in one folder that holds what pages speak of (``AVE.h5``, ``recordings/``, ...); a
page's Python shares its variables. A comment before a block says what is done instead: ``<!-- not run: why -->`` (its
commands are parsed all the same) or ``<!-- long: why -->`` (run by ``make test-long``).
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from typer.main import get_command

from conftest import make_pairs
from hscmae.cli import app, main
from hscmae.config import PRESETS
from hscmae.data.pairs import Pairs
from hscmae.data.store import write_store
from hscmae.methods import METHODS
from media_files import RATE, write_clip, write_video, write_wav

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(
    r"(?:^<!-- (?P<how>not run|long): [^\n]+ -->\n)?^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
RUN = ("python", "console")
NOT_RUN = ("caddyfile", "nginx", "text", "toml")
INLINE = re.compile(r"`(hscmae (?!VERB)[a-z]+ [^`]*)`")

QUICK = {"dim": 8, "network": {"width": 16}, "training": {"steps": 4, "evaluations": 2}, "warm_start": {"ridge": 3.0}}
# What is put at the end of a command so that it takes seconds; the last of two values counts.
LESS = {
    "ablate": "--parts anchors --seeds 1 --splits 0 --set training.steps=4 --set network.width=16",
    "benchmark": "--methods pca,ridge-cca --seeds 1 --splits 2 --trials 0",
    "build": "--jobs 1",
    "evaluate": "--bootstrap 50",
    "extract": "--jobs 1",
    "tune": "--trials 2 --set training.steps=4 --set network.width=16",
}


@dataclass(frozen=True)
class Block:
    kind: str
    text: str
    how: str | None

    @property
    def commands(self) -> list[list[str]]:
        lines = self.text.replace("\\\n", " ").splitlines()
        return [words for line in lines if (words := shlex.split(line, comments=True))]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks_of(page: Path) -> list[Block]:
    found = BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [Block(one["kind"], one["text"], one["how"]) for one in found if one["kind"] in RUN]


@pytest.fixture(scope="session")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What pages speak of: files of features, media, and an archive made of them."""
    folder = tmp_path_factory.mktemp("made-up")
    others = make_pairs(100, seed=1)
    others = Pairs(others.features, np.char.add(b"other-", others.ids))
    few = make_pairs(60)
    for name, pairs in {"AVE": make_pairs(400), "FEW": few, "MANY": others}.items():
        write_store(pairs, folder / name)
        assert main(["convert", str(folder / name), "--output", str(folder / f"{name}.h5")]) == 0
    media = folder / "recordings"
    (media / "talks").mkdir(parents=True)
    for k in range(16):
        write_clip(media, f"clip{k:02d}", k)
    rng = np.random.default_rng(0)
    sound = (rng.uniform(-0.5, 0.5, 140 * RATE) * np.repeat(rng.uniform(0, 1, 140), RATE)).astype(np.float32)
    write_video(media / "talks" / "monday.mp4", 140, sound, fps=2, size=(32, 32))
    shutil.copytree(media / "talks", folder / "talks")
    write_wav(folder / "dog.wav", rng.uniform(-0.5, 0.5, RATE))
    return folder


@pytest.fixture
def here(made_up: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of its own with all that, in which HSC-MAE trains for a moment only."""
    shutil.copytree(made_up, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(PRESETS, "default", QUICK)
    methods = dict(METHODS)
    yield tmp_path
    METHODS.clear()  # a page adds one of its own
    METHODS.update(methods)


def run(block: Block, variables: dict[str, object]) -> None:
    if block.kind == "python":
        exec(compile(block.text, "block", "exec"), variables)
        return
    for command in block.commands:
        assert command[0] == "hscmae", f"{shlex.join(command)}: say why it is not run in a comment before the block"
        assert main([*command[1:], *shlex.split(LESS.get(command[1], ""))]) == 0, shlex.join(command)


def run_page(page: Path, left_out: set[str]) -> None:
    pairs = make_pairs(120)
    variables: dict[str, object] = {"A": pairs.features["audio"], "V": pairs.features["visual"]}
    for block in blocks_of(page):
        if block.how not in left_out:
            run(block, variables)


def pages_with(*how: str | None) -> list[Path]:
    return [page for page in PAGES if any(block.how in how for block in blocks_of(page))]


def understand(words: list[str], *, in_words: bool = False) -> None:
    try:
        get_command(app).commands[words[0]].make_context(words[0], words[1:])
    except Exception as error:
        # A sentence need not name the output, nor a value.
        if not (in_words and type(error).__name__ in ("MissingParameter", "BadOptionUsage")):
            raise


@pytest.mark.parametrize("page", pages_with(None), ids=name_of)
def test_its_blocks_run(page: Path, here: Path) -> None:
    run_page(page, {"not run", "long"})


@pytest.mark.long
@pytest.mark.parametrize("page", pages_with("long"), ids=name_of)
def test_its_long_blocks_run(page: Path, here: Path) -> None:
    run_page(page, {"not run"})


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_is_one(page: Path) -> None:
    """Each is understood, run or not: no verb or option that there is not, and in a block none left out."""
    for block in blocks_of(page):
        for command in block.commands if block.kind == "console" else ():
            if "hscmae" in command:
                understand(command[command.index("hscmae") + 1 :])
    for line in INLINE.findall(re.sub(r"\s+", " ", page.read_text(encoding="utf-8"))):
        if "..." not in line:
            understand(shlex.split(line)[1:], in_words=True)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_code_hides_under_another_name(page: Path) -> None:
    assert set(re.findall(r"^```(.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)) <= {*RUN, *NOT_RUN}
