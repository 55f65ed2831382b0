"""The server under load: searches by id in an open loop, and what slow clients and large uploads do to others.

    python -m benchmarks.timings.serve [--clips 100000] [--requests 100000] [--only exact faiss health slow memory map]

The generator runs on the same cores as the server. Requests are due at random moments of a fixed mean rate (a Poisson
process), whether earlier ones are answered or not; a latency counts from the moment that the request was due. Writes
docs/serving.md's table and benchmarks/results/serve.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.pages import RESULTS, fill, table
from benchmarks.timings.figures import figure
from benchmarks.timings.search import clips
from hscmae.data.pairs import Labels, Pairs
from hscmae.data.store import write_store

PAGE = Path(__file__).parents[2] / "docs" / "serving.md"
DIM, CONNECTIONS = 64, 64
HEAD = "Host: localhost\r\nAccept: application/json\r\n"
Target = Callable[[int], str]


class Connection(asyncio.Protocol):
    """One connection kept open; answers are read as far as their length and status."""

    def __init__(self) -> None:
        self.content = bytearray()
        self.promised: asyncio.Future[int] | None = None
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.content += data
        end = self.content.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self.content[:end]).lower()
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
        if len(self.content) >= end + 4 + length and self.promised is not None:
            self.content.clear()
            self.promised.set_result(int(head[9:12]))
            self.promised = None

    def connection_lost(self, exc: Exception | None) -> None:
        if self.promised is not None and not self.promised.done():
            self.promised.set_result(0)

    def ask(self, path: str) -> asyncio.Future[int]:
        self.promised = asyncio.get_running_loop().create_future()
        self.transport.write(f"GET {path} HTTP/1.1\r\n{HEAD}\r\n".encode())
        return self.promised


async def connections(port: int, count: int) -> list[Connection]:
    loop = asyncio.get_running_loop()
    return [(await loop.create_connection(Connection, "127.0.0.1", port))[1] for _ in range(count)]


async def load(port: int, target: Target, rate: float, seconds: float) -> dict[str, float]:
    """Ask at a mean rate; latencies in ms from when each request was due, and how many failed."""
    rng = np.random.default_rng(0)
    due = np.cumsum(rng.exponential(1 / rate, int(rate * seconds)))
    free: deque[Connection] = deque(await connections(port, CONNECTIONS))
    waiting: deque[int] = deque()
    latencies: list[float] = []
    failed, done = 0, asyncio.Event()
    began = time.perf_counter()

    async def one(number: int, connection: Connection) -> None:
        nonlocal failed
        while True:
            status = await connection.ask(target(number))
            latencies.append((time.perf_counter() - began - due[number]) * 1e3)
            failed += status != 200
            if len(latencies) == len(due):
                done.set()
            if not waiting:
                free.append(connection)
                return
            number = waiting.popleft()

    tasks = set()
    for number, moment in enumerate(due):
        if (early := moment - (time.perf_counter() - began)) > 0:
            await asyncio.sleep(early)
        if free:
            task = asyncio.create_task(one(number, free.popleft()))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        else:
            waiting.append(number)
    await asyncio.wait_for(done.wait(), 120)
    spent = time.perf_counter() - began
    p50, p99 = np.percentile(latencies, [50, 99])
    return {"rate": len(due) / spent, "p50": float(p50), "p99": float(p99), "failed": failed}


@contextmanager
def server(store: Path, folder: Path, *options: str) -> Iterator[tuple[int, int]]:
    """A server; gives its port and process id."""
    state = tempfile.mkdtemp(dir=folder)
    command = [sys.executable, "-m", "hscmae", "serve", str(store), "--port", "0", "--state", state, *options]
    with (folder / "log").open("w") as log:
        child = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
    try:
        assert child.stdout is not None
        line = child.stdout.readline()
        port = int(line.split(" at http://")[1].split("/")[0].rpartition(":")[2])
        settle(port)
        yield port, child.pid
    finally:
        child.terminate()
        child.wait()


def settle(port: int, seconds: float = 600) -> None:
    """Wait until the map is computed, which takes a core."""
    import httpx

    end = time.monotonic() + seconds
    while httpx.get(f"http://127.0.0.1:{port}/api/map", timeout=30).json()["state"] == "computing":
        if time.monotonic() > end:
            raise RuntimeError("the map takes too long")
        time.sleep(1)


def by_id(n: int) -> Target:
    order = np.random.default_rng(1).permutation(n).tolist()
    return lambda number: f"/api/search?id=clip{order[number % n]:07d}&k=10"


def memory(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


async def health(port: int, size: int) -> float:
    """The slowest of /healthz in ms while a body of the largest size comes in."""
    [asked] = await connections(port, 1)
    head = (
        f"POST /api/search HTTP/1.1\r\n{HEAD}Content-Type: multipart/form-data; boundary=x\r\n"
        f'Content-Length: {size}\r\n\r\n--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    )
    _reader, writer = await asyncio.open_connection("127.0.0.1", port)
    slowest, ended = 0.0, False

    async def send() -> None:
        nonlocal ended
        writer.write(head.encode())
        block, left = b"RIFF" + bytes(2**20 - 4), size - 200
        while left > 0:
            writer.write(block[:left])
            await writer.drain()
            left -= len(block)
        ended = True

    sending = asyncio.create_task(send())
    while not ended:
        began = time.perf_counter()
        await asked.ask("/healthz")
        slowest = max(slowest, (time.perf_counter() - began) * 1e3)
        await asyncio.sleep(0.005)
    await sending
    writer.close()
    return slowest


async def beside_slow_clients(port: int, target: Target) -> dict[str, float]:
    """Searches while 1,000 connections send a byte a second."""
    slow = await connections(port, 1000)
    for k, connection in enumerate(slow):
        kind = (
            b"GET /healthz HTTP/1.1\r\nX: "
            if k % 2
            else f"POST /api/search HTTP/1.1\r\n{HEAD}Content-Length: 99999\r\n\r\n".encode()
        )
        connection.transport.write(kind)

    async def drip() -> None:
        while True:
            for connection in slow:
                connection.transport.write(b"x")
            await asyncio.sleep(1)

    dripping = asyncio.create_task(drip())
    try:
        return await load(port, target, 50, 8)
    finally:
        dripping.cancel()


def measured(name: str, found: dict[str, float], rate: float, limit: float) -> dict[str, Any]:
    reason = f"{found['failed']:.0f} requests failed" if found["failed"] else ""
    reference = f"p50 {found['p50']:.1f} ms, asked {rate:g}/s, answered {found['rate']:.0f}/s"
    return figure(name, found["p99"], "ms, p99", f"<= {limit:g} ms", reference=reference, reason=reason)


def rows(n: int = 100_000, requests: int = 100_000, only: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Everything, or some of exact, faiss, health, slow, memory, map."""
    found = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        x = clips(2 * n, DIM)
        ids = np.array([f"clip{i:07d}" for i in range(n)], np.bytes_)
        labels = Labels.single(np.arange(n) % 20)
        write_store(Pairs({"audio": x[:n], "visual": x[n:]}, ids, labels=labels, source="made-up"), folder / "store")
        wanted = only or ("exact", "faiss", "health", "slow", "memory", "map")
        target = by_id(n)
        with server(folder / "store", folder) as (port, pid):
            if "exact" in wanted:
                asyncio.run(load(port, target, 100, 3))
                found.append(
                    measured(f"exact search by id, {n:,} clips", asyncio.run(load(port, target, 300, 20)), 300, 50)
                )
            if "health" in wanted:
                slowest = asyncio.run(health(port, 64_000_000))
                found.append(figure("/healthz during the largest upload", slowest, "ms, slowest", "<= 100 ms"))
            if "slow" in wanted:
                answer = asyncio.run(beside_slow_clients(port, target))
                found.append(measured("search beside 1,000 clients of a byte a second", answer, 50, 1000))
            if "memory" in wanted:
                asyncio.run(load(port, target, 300, 10))
                before = memory(pid)
                asyncio.run(load(port, target, 400, requests / 400))
                found.append(figure(f"memory gained in {requests:,} requests", memory(pid) - before, "MB", "<= 20 MB"))
        if "faiss" in wanted:
            index = str(folder / "index")
            command = ["index", str(folder / "store"), "--backend", "faiss", "--output", index]
            subprocess.run([sys.executable, "-m", "hscmae", *command], check=True, stdout=subprocess.DEVNULL)
            with server(folder / "store", folder, "--index", index) as (port, _):
                asyncio.run(load(port, target, 200, 3))
                answer = asyncio.run(load(port, target, 1000, 15))
                found.append(measured(f"faiss search by id, {n:,} clips", answer, 1000, 50))
        if "map" in wanted:
            from benchmarks.timings import map_frames  # which needs a browser

            with server(folder / "store", folder) as (port, _):
                found += map_frames.rows(port, n)
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clips", type=int, default=100_000)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--no-page", action="store_true")
    given = parser.parse_args()
    found = rows(given.clips, given.requests, tuple(given.only))
    print(json.dumps(found, indent=1))
    if not given.no_page:
        (RESULTS / "serve.json").write_text(json.dumps(found, indent=1) + "\n")
        lines = [[r["name"], f"{r['value']:.1f} {r['unit']}", r["target"], r["reference"]] for r in found]
        fill(PAGE, "benchmarks/timings/serve.py", {"serving": table(["what", "measured", "target", "more"], lines)})


if __name__ == "__main__":
    main()
