"""Running jobs into a folder: one process a fit, results after every fit, and going on after a kill.

``DIR/fits`` holds one file a finished job, with what plots need; ``results.json`` the same without that, as a list of
objects; ``options.json`` what a resume must agree with.
"""

from __future__ import annotations

import json
import multiprocessing
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np

from hscmae.benchmark.jobs import RESPLIT, Job
from hscmae.benchmark.worker import work
from hscmae.cpus import usable_cpus
from hscmae.data.pairs import Pairs
from hscmae.data.store import write_store
from hscmae.errors import InputError, RunError
from hscmae.files import FolderKind, output_folder, write_atomic

Record = dict[str, Any]
# Called with the stage, jobs done, jobs in all, and what is said beside the bar.
Progress = Callable[[str, int, int, str], None]

OPTIONS = "options.json"
RESULTS = "results.json"
FITS = "fits"
TRIALS = "trials.jsonl"
DATA = ".data"
TABLES = ("benchmark.md", "table.csv", "curves.json", "ablation.md", "ablation.csv", "best.yaml", "tune.md")
PLOTS = ("bars", "precision-recall", "per-class", "curve-*", "ablation", "sensitivity", "tune")
BENCHMARK = FolderKind(
    "such results",
    [OPTIONS],
    "hscmae-benchmark",
    [OPTIONS, RESULTS, TRIALS, f"{FITS}/*.json", f"{DATA}/*", *TABLES]
    + [f"{name}.{kind}" for name in PLOTS for kind in ("svg", "png")],
)
FIRST_RESPLIT = 100
# A fit's process is a fork of a server that has imported the libraries and run nothing: it starts at once, and its peak
# memory is its own.
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["hscmae.benchmark.worker", "sklearn.cluster", "sklearn.metrics"])
DETAILS = ("ap", "by_labels", "classes", "precision_recall", "partial")


class Running(TypedDict, total=False):
    """How jobs are run, whatever they are.

    Attributes:
        resume: go on with what is in the folder.
        overwrite: replace what is in the folder.
        jobs: fits at a time; the times measured then hold for fits side by side.
        threads: CPU threads a fit; by default what this process may use, divided by ``jobs``.
        progress: called after each job.
    """

    resume: bool
    overwrite: bool
    jobs: int
    threads: int | None
    progress: Progress | None


def split_names(pairs: Pairs, resplits: int, own: str) -> list[str]:
    """Names of the splits: ``resplit-100``, ``resplit-101``, ..., or that of the split that the data has.

    Raises:
        InputError: no resplits are asked for, and the data has no split.
    """
    if resplits:
        return [f"{RESPLIT}{FIRST_RESPLIT + i}" for i in range(resplits)]
    if pairs.split is None:
        raise InputError(f"{pairs.source}: the file has no split; use --splits or --holdout")
    for part in ("train", "test"):
        pairs.rows_of(part)
    return [own]


class Runner:
    """Runs jobs on one data set; made by ``open_runner``.

    Args:
        folder: where results go.
        store: the data, as worker processes open it.
        jobs: fits at a time.
        threads: CPU threads a fit.
        progress: called after each job.
    """

    def __init__(self, folder: Path, store: Path, *, jobs: int, threads: int, progress: Progress | None) -> None:
        self.folder, self.store, self.jobs, self.threads = folder, store, jobs, threads
        self.progress = progress
        self._seconds: dict[str, list[float]] = {}
        self._running: set[ForkServerProcess] = set()
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def run(self, jobs: Sequence[Job], stage: str = "fits") -> list[Record]:
        """Results of all jobs in their order; those whose file is there are not run again, failed ones are.

        Each is a job's name, ``status`` ("ok", or "failed" with ``error``) and what ``worker.run`` gives.
        """
        records = {job.key: self._finished(job) for job in jobs}
        left = [job for job in jobs if records[job.key] is None]
        for record in records.values():
            if record is not None:
                self._seconds.setdefault(record["method"], []).append(record.get("fit_seconds") or 0.0)
        self._show(stage, jobs, left, None)

        def one(job: Job) -> Record:
            record = self.run_one(job)
            if record["status"] == "ok":
                self._write(self._file(job), record)
            return record

        for job, record in self.each(one, left):
            records[job.key] = record
            left = [other for other in left if other is not job]
            self._seconds.setdefault(job.contender.name, []).append(record["wall_seconds"])
            done = [r for r in records.values() if r is not None]
            self._write(self.folder / RESULTS, [summary(r) for r in done if not r["damage"]])
            self._show(stage, jobs, left, record)
        done = [r for r in records.values() if r is not None]
        if not (self.folder / RESULTS).exists():
            self._write(self.folder / RESULTS, [summary(r) for r in done if not r["damage"]])
        return done

    def each(self, work: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        """Do ``work`` on the items, ``jobs`` at a time; pairs of item and result as they come. An error ends all."""
        with ThreadPoolExecutor(self.jobs) as pool:
            waiting = {pool.submit(work, item): item for item in items}
            try:
                for future in as_completed(waiting):
                    yield waiting[future], future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                self._stopped.set()
                with self._lock:
                    for process in self._running:
                        process.kill()
                raise

    def run_one(self, job: Job) -> Record:
        """Run one job in a process of its own; nothing of it stays on the disk.

        Raises:
            RunError: the whole run was stopped.
        """
        began = time.monotonic()
        result = self.store.parent / f"{job.key}.json"
        process = _PROCESSES.Process(target=work, args=(job.as_json(), str(self.store), str(result), self.threads))
        with self._lock:
            if self._stopped.is_set():
                raise RunError("stopped")
            process.start()
            self._running.add(process)
        try:
            process.join()
        finally:
            process.kill()
            with self._lock:
                self._running.discard(process)
        if self._stopped.is_set():
            raise RunError("stopped")
        record: Record = {
            "method": job.contender.name,
            "part": job.contender.part,
            "seed": job.seed,
            "split": job.split,
            "damage": job.damage,
            "share": job.share,
            "wall_seconds": round(time.monotonic() - began, 3),
        }
        # The file says it, not the exit code: of two threads that wait for processes, one may read the other's.
        if result.exists():
            found = json.loads(result.read_bytes())
            result.unlink()
            return {**record, **found}
        how = f"killed by signal {-(process.exitcode or 0)}" if (process.exitcode or 0) < 0 else "left without a word"
        return {**record, "status": "failed", "error": f"the fit's process was {how}"}

    def _file(self, job: Job) -> Path:
        return self.folder / FITS / f"{job.key}.json"

    def _finished(self, job: Job) -> Record | None:
        file = self._file(job)
        return json.loads(file.read_bytes()) if file.exists() else None

    def _write(self, file: Path, content: Any) -> None:
        write_atomic(file, (json.dumps(content, allow_nan=False, indent=1) + "\n").encode())

    def _show(self, stage: str, jobs: Sequence[Job], left: Sequence[Job], record: Record | None) -> None:
        if self.progress is None:
            return
        known = {name: float(np.mean(seconds)) for name, seconds in self._seconds.items()}
        usual = float(np.mean(list(known.values()))) if known else 0.0
        seconds = sum(known.get(job.contender.name, usual) for job in left) / self.jobs
        note = f"about {_duration(seconds)} left" if left and known else ""
        if record is not None:
            note += f"  {record['method']} {record['split']} seed {record['seed']}"
            note += " failed" if record["status"] == "failed" else ""
        self.progress(stage, len(jobs) - len(left), len(jobs), note.strip())


@contextmanager
def open_runner(folder: Path, pairs: Pairs, options: Mapping[str, Any], **running: Unpack[Running]) -> Iterator[Runner]:
    """A runner for these pairs and options; what it writes is ``folder``'s when the block ends.

    Args:
        folder: made where absent; the runner's own folder stands beside it where something is replaced.
        pairs: the data; worker processes map it from a store in the folder, gone at the end.
        options: what a resume must agree with, JSON values.
        **running: see ``Running``.

    Raises:
        InputError: the folder exists and neither ``resume`` nor ``overwrite`` is set, holds something else, or was
            made with other options or another number of threads.
    """
    jobs, threads = running.get("jobs", 1), running.get("threads")
    if threads is None:
        threads = max(1, usable_cpus() // jobs)
    resume, overwrite = running.get("resume", False), running.get("overwrite", False)
    with (
        output_folder(folder, BENCHMARK, resume=resume, overwrite=overwrite, resumable=_has_results) as place,
        _mapped(pairs, place / DATA) as store,
    ):
        files = json.loads((store / "manifest.json").read_bytes())["files"]
        data = {name: entry["sha256"] for name, entry in sorted(files.items())}
        now = json.loads(json.dumps({"format": BENCHMARK.format, "data": data, "threads": threads, **options}))
        saved = place / OPTIONS
        if _has_results(place):
            _require_same(json.loads(saved.read_bytes()), now, folder)
        write_atomic(saved, (json.dumps(now, indent=1) + "\n").encode())
        (place / FITS).mkdir(exist_ok=True)
        yield Runner(place, store, jobs=jobs, threads=threads, progress=running.get("progress"))


@contextmanager
def _mapped(pairs: Pairs, data: Path) -> Iterator[Path]:
    """A store of the pairs for as long as fits run."""
    shutil.rmtree(data, ignore_errors=True)  # of a run that was killed
    data.mkdir()
    try:
        write_store(pairs, data / "pairs")
        yield data / "pairs"
    finally:
        shutil.rmtree(data, ignore_errors=True)


def _has_results(folder: Path) -> bool:
    return (folder / OPTIONS).is_file() and (any((folder / FITS).glob("*.json")) or (folder / TRIALS).is_file())


def summary(record: Record) -> Record:
    """A result as ``results.json`` has it: without the long lists."""
    return {k: v for k, v in record.items() if k not in DETAILS}


def _require_same(before: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    if before.get("data") != now["data"]:
        raise InputError(f"{folder}: was made with other data; give the same file, or another output")
    if other := [name for name in now if before.get(name) != now[name]]:
        was = ", ".join(f"{name}={json.dumps(before.get(name))}, not {json.dumps(now[name])}" for name in other)
        raise InputError(f"{folder}: was made with {was}; leave the options as they were, or use another output")


def _duration(seconds: float) -> str:
    """Time in words.

    >>> _duration(42), _duration(200), _duration(9000)
    ('42 s', '3 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
