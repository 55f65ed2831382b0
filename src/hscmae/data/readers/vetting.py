"""Untrusted HDF5 is looked through in a child process with limits before this process opens it.

The HDF5 library follows links to other files and believes what a file declares, and a damaged file can crash it. The
child walks all objects without leaving the file, refuses links, external and virtual storage, unknown filters (which
would load plug-ins) and absurd sizes, then reads what it found. Only a file that it came through is opened here.

Run as a script, this module is the child: it imports nothing of the package.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

MEMORY_BYTES = 4 * 2**30
SECONDS = 30.0
SLOW_DISK = 20e6  # bytes a second
READ_WHOLE_BYTES = 256 * 2**20  # larger datasets are read at their start and end only
HARMLESS_BYTES = 64 * 2**20
MAX_COMPRESSION = 1100  # deflate reaches 1032
MAX_CHUNK_BYTES = 2**30
MAX_OBJECTS = 20_000
NAMES = ("class_names", "label_names")
ORIGIN = ("source", "license", "licence", "citation")  # attributes that go wherever the data goes
FILTERS = {1, 2, 3, 4, 5, 6, 32000}  # deflate, shuffle, fletcher32, szip, nbit, scale-offset, lzf: built in

Finding = tuple[str, str, str]  # code, dataset, message

_lock = threading.Lock()
_child: subprocess.Popen[bytes] | None = None
_child_owner = 0


def vet(path: Path) -> list[Finding]:
    """What makes an HDF5 file unfit to be opened, as (code, dataset, message); empty where it is fit.

    A file that crashes the child is unfit too, or one that keeps it busy for longer than ``SECONDS`` and what reading
    its bytes from a slow disk takes.
    """
    seconds = SECONDS + path.stat().st_size / SLOW_DISK
    with _lock:
        child = _running_child()
        assert child.stdin is not None and child.stdout is not None
        try:
            child.stdin.write(json.dumps(str(path.resolve())).encode() + b"\n")
            child.stdin.flush()
            answer = b""
            if select.select([child.stdout], [], [], seconds)[0]:
                answer = child.stdout.readline()
            if answer.endswith(b"\n"):
                return [(code, dataset, message) for code, dataset, message in json.loads(answer)]
        except BrokenPipeError:
            pass
        crashed = child.poll() is not None or bool(select.select([child.stdout], [], [], 0)[0])
        stop_child()
    reason = "the HDF5 library crashes on it" if crashed else f"reading it takes longer than {seconds:.0f} s"
    return [("damaged", "", f"damaged: {reason}")]


def _running_child() -> subprocess.Popen[bytes]:
    """The child, started where there is none; a forked process starts its own."""
    global _child, _child_owner
    if _child is None or _child_owner != os.getpid() or _child.poll() is not None:
        environment = os.environ | {"HDF5_PLUGIN_PRELOAD": "::", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        _child = subprocess.Popen(
            [sys.executable, "-P", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the parent, which closes the pipe
        )
        _child_owner = os.getpid()
    return _child


@atexit.register
def stop_child() -> None:
    """End the child, if this process started one."""
    global _child
    if _child is not None and _child_owner == os.getpid():
        _child.kill()
        _child.wait()
        for pipe in (_child.stdin, _child.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
    _child = None


# ------------------------------------------------------------------------------------------------------- the child


def _serve() -> None:
    with contextlib.suppress(ImportError):
        import resource

        for what, most in (
            (resource.RLIMIT_AS, MEMORY_BYTES),
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_FSIZE, 0),
        ):
            with contextlib.suppress(ValueError, OSError):  # macOS refuses to bound the address space
                resource.setrlimit(what, (most, most))
    for line in sys.stdin:
        try:
            findings = _look_through(json.loads(line))
        except MemoryError:
            findings = [("oversized", "", f"reading it takes more than {MEMORY_BYTES >> 30} GiB")]
        except Exception as error:  # whatever h5py raises, the file is the reason
            findings = [("damaged", "", f"damaged or cut short ({' '.join(str(error).split())[:160]})")]
        print(json.dumps(findings), flush=True)


def _look_through(path: str) -> list[Finding]:
    import h5py

    findings: list[Finding] = []
    with h5py.File(path, "r", locking=False) as file:
        budget = max(HARMLESS_BYTES, MAX_COMPRESSION * Path(path).stat().st_size)
        seen: set[Any] = set()
        groups = [file["/"]]
        datasets = []
        while groups:
            group = groups.pop()
            for name in group:
                link = group.get(name, getlink=True)
                where = f"{group.name.rstrip('/')}/{name}".lstrip("/")
                if isinstance(link, h5py.SoftLink):
                    continue  # leads to an object of this file, met under its own name
                if not isinstance(link, h5py.HardLink):
                    findings.append(
                        ("external-link", where, "links to another file; nothing outside the file is opened")
                    )
                    continue
                thing = group[name]
                key = h5py.h5o.get_info(thing.id).addr
                if key in seen:
                    continue
                seen.add(key)
                if len(seen) > MAX_OBJECTS:
                    return [("oversized", "", f"holds more than {MAX_OBJECTS} objects")]
                if isinstance(thing, h5py.Group):
                    groups.append(thing)
                elif isinstance(thing, h5py.Dataset):
                    datasets.append((where, thing))
        for where, dataset in datasets:
            found = _unfit(where, dataset, budget)
            findings += found
            budget -= 0 if found or dataset.shape is None else dataset.nbytes
        if not findings:
            for _, dataset in datasets:
                _read(dataset)
            for key in NAMES + ORIGIN:
                file.attrs.get(key)
    return findings


def _unfit(where: str, dataset: Any, budget: int) -> list[Finding]:
    """Why one dataset must not be read."""
    if dataset.shape is None:
        return []
    creation = dataset.id.get_create_plist()
    if creation.get_external_count():
        return [("external-link", where, "keeps its data in another file; nothing outside the file is opened")]
    if dataset.is_virtual:
        return [("external-link", where, "is a virtual dataset; nothing outside the file is opened")]
    unknown = [creation.get_filter(i)[0] for i in range(creation.get_nfilters())]
    unknown = [number for number in unknown if number not in FILTERS]
    if unknown:
        return [("wrong-type", where, f"is compressed by filter {unknown[0]}, which is not built in")]
    if dataset.nbytes > budget:
        return [("oversized", where, f"declares {dataset.dtype} {dataset.shape}, far more than the file holds")]
    if dataset.chunks and dataset.dtype.itemsize * _product(dataset.chunks) > MAX_CHUNK_BYTES:
        return [
            ("oversized", where, f"declares chunks of shape {dataset.chunks}, over {MAX_CHUNK_BYTES >> 30} GiB each")
        ]
    return []


def _read(dataset: Any) -> None:
    """Read a dataset, in blocks of rows: whole, or its two ends."""
    if dataset.shape is None or 0 in dataset.shape:
        return
    if not dataset.shape:
        dataset[()]
        return
    step = max(1, (16 * 2**20) // max(1, dataset.nbytes // dataset.shape[0]))
    starts = list(range(0, dataset.shape[0], step))
    for start in starts if dataset.nbytes <= READ_WHOLE_BYTES else (starts[0], starts[-1]):
        dataset[start : start + step]


def _product(sizes: Any) -> int:
    product = 1
    for size in sizes:
        product *= int(size)
    return product


if __name__ == "__main__":
    _serve()
