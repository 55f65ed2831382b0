"""How large an install is and how fast it starts: the wheel and each extra, in an empty environment each.

Writes docs/installing.md's figures and benchmarks/results/install.json. Sizes are of the environment's packages on the
disk, without pip; seconds are the least of several starts with warm files.

    python -m benchmarks.timings.install [--extras media serve] [--repeats 7]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import Any

from benchmarks.pages import RESULTS, ROOT, fill, table
from hscmae.files import write_atomic

SCRIPT = "benchmarks/timings/install.py"
EXTRAS = ("", "media", "serve", "media,serve")
HELP_SECONDS = 0.3
STARTS = {
    "`hscmae --help`": ["-m", "hscmae", "--help"],
    "`import hscmae`": ["-c", "import hscmae"],
    "`hscmae.HSCMAE`, which imports torch": ["-c", "import hscmae; hscmae.HSCMAE"],
    "Python alone": ["-c", "pass"],
}


def build_wheel(folder: Path) -> Path:
    """The wheel of this repository, built in ``folder``."""
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(ROOT)], check=True, capture_output=True
    )
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(wheel: Path, extras: str, folder: Path) -> Path:
    """An environment with nothing but the wheel and what it needs; its Python."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    what = f"{wheel}[{extras}]" if extras else str(wheel)
    constraints = str(ROOT / "constraints.txt")
    subprocess.run([python, "-m", "pip", "install", "-q", "-c", constraints, what], check=True, capture_output=True)
    return python


def megabytes(folder: Path, left_out: tuple[str, ...] = ("pip", "setuptools")) -> dict[str, float]:
    """MB on the disk by what stands in ``site-packages``."""
    (packages,) = folder.glob("lib/python*/site-packages")
    sizes = {}
    for entry in packages.iterdir():
        if entry.name.split("-")[0] not in left_out:
            files = entry.rglob("*") if entry.is_dir() else [entry]
            sizes[entry.name] = sum(file.stat().st_size for file in files if file.is_file()) / 1e6
    return sizes


def seconds(python: Path, arguments: list[str], repeats: int) -> float:
    """The least time of so many starts."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        subprocess.run([python, *arguments], check=True, capture_output=True, env=environment, cwd=python.parent)
        taken.append(time.perf_counter() - began)
    return min(taken)


def measure(extras: list[str], repeats: int) -> dict[str, Any]:
    """Sizes of each set of extras, and start-up times of the base install."""
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "installs": {},
    }
    with tempfile.TemporaryDirectory() as place:
        wheel = build_wheel(Path(place))
        found["wheel_kb"] = wheel.stat().st_size / 1e3
        for number, extra in enumerate(extras):
            folder = Path(place) / str(number)
            python = install(wheel, extra, folder)
            sizes = megabytes(folder)
            largest = sorted(sizes, key=lambda name: -sizes[name])[:3]
            found["installs"][extra or "base"] = {
                "mb": sum(sizes.values()),
                "largest": {name: sizes[name] for name in largest},
            }
            if not extra:
                found["starts"] = {name: seconds(python, start, repeats) for name, start in STARTS.items()}
    return found


def write_page(found: dict[str, Any]) -> None:
    """The figures in docs/installing.md."""
    sizes = [
        (
            f"`{name}`" if name != "base" else "base",
            f"{one['mb']:,.0f}",
            ", ".join(f"{package} {size:,.0f}" for package, size in one["largest"].items()),
        )
        for name, one in found["installs"].items()
    ]
    starts = [(name, f"{value:.2f}") for name, value in found["starts"].items()]
    told = found["starts"]["`hscmae --help`"]
    fill(
        ROOT / "docs" / "installing.md",
        SCRIPT,
        {
            "install": f"`python -m benchmarks.timings.install` on {found['machine']}, Python {found['python']}. "
            f"The wheel has {found['wheel_kb']:,.0f} kB.\n\n"
            f"{table(('extras', 'MB on the disk', 'the largest'), sizes)}\n\n"
            f"{table(('start', 'seconds'), starts)}\n\n"
            f"`--help` is to take {HELP_SECONDS} s at most: it {'does' if told <= HELP_SECONDS else 'does **not**'}."
        },
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--extras", nargs="*", default=list(EXTRAS))
    parser.add_argument("--repeats", type=int, default=7)
    given = parser.parse_args()
    found = measure(["", *(extra for extra in given.extras if extra)], given.repeats)
    write_atomic(RESULTS / "install.json", (json.dumps(found, indent=1) + "\n").encode())
    write_page(found)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
