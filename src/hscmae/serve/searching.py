"""Searches of many clients: those that wait are answered together, by one matrix product on one thread.

Waiting is bounded: where too many wait, the next is told to come again. Answers are those of ``Archive.answer``.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from hscmae.data.pairs import IntArray
from hscmae.search.archive import Answer, Query
from hscmae.serve.observe import Metrics
from hscmae.serve.problems import Problem, busy
from hscmae.serve.settings import Settings
from hscmae.serve.snapshot import Snapshot

TOGETHER = 32  # searches of one product
CONNECTING = 200  # neighbours of the query and of the result that are looked at for shared ones


@dataclass
class _Asked:
    """A search that waits. ``alone`` does it where it cannot share a product."""

    snapshot: Snapshot
    query: Query
    k: int
    to: str
    alone: Callable[[], Any] | None
    promised: asyncio.Future[Any]


class Searcher:
    """Answers searches; used from one event loop."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.most, self.metrics = settings.most_waiting, metrics
        self._waiting: deque[_Asked] = deque()
        self._thread = ThreadPoolExecutor(1, "search")
        self._runner: asyncio.Task[None] | None = None

    async def answer(
        self,
        snapshot: Snapshot,
        query: Query,
        k: int,
        *,
        to: str | None = None,
        where: Sequence[str] = (),
        group: bool = False,
    ) -> Answer:
        """As ``Archive.answer_query``.

        Raises:
            Problem: an unknown filter, or too many wait.
        """
        archive, index = snapshot.archive, snapshot.index
        to = to or archive.other(query.source)
        among = rows_of(snapshot, where)

        def alone() -> Answer:
            return archive.answer_query(query, k, to=to, where=where, among=among, group=group, index=index)

        special = bool(where) or group or len(query.z) > 1
        answer: Answer = await self._promise(_asked(snapshot, query, k, to, alone if special else None))
        return answer

    async def connecting(
        self, snapshot: Snapshot, query: Query, row: int, to: str, count: int
    ) -> list[tuple[int, float, float]]:
        """``shared_neighbours``, in turn with the searches."""

        def alone() -> list[tuple[int, float, float]]:
            return shared_neighbours(snapshot, query, row, to, count)

        found: list[tuple[int, float, float]] = await self._promise(_asked(snapshot, query, count, to, alone))
        return found

    async def _promise(self, asked: _Asked) -> Any:
        if len(self._waiting) >= self.most:
            raise busy()
        self._waiting.append(asked)
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run())
        return await asked.promised

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch = self._next()
            if not batch:
                continue
            try:
                done = await loop.run_in_executor(self._thread, _do, batch)
            except BaseException as error:
                for asked in batch:
                    if not asked.promised.done():
                        asked.promised.set_exception(error)
                if isinstance(error, asyncio.CancelledError):
                    raise
                continue
            self.metrics.batch.observe(len(batch))
            for asked, answer in zip(batch, done, strict=True):
                if not asked.promised.done():
                    asked.promised.set_result(answer)

    def _next(self) -> list[_Asked]:
        """The longest waiting search, and those that can be answered with it."""
        first = self._waiting.popleft()
        if first.promised.done():  # its client left
            return []
        batch = [first]
        while first.alone is None and self._waiting and len(batch) < TOGETHER:
            other = self._waiting[0]
            if other.alone is not None or (other.snapshot, other.to) != (first.snapshot, first.to):
                break
            if not self._waiting.popleft().promised.done():
                batch.append(other)
        return batch

    def close(self) -> None:
        """End the thread, once it has done what it is at."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _asked(snapshot: Snapshot, query: Query, k: int, to: str, alone: Callable[[], Any] | None) -> _Asked:
    return _Asked(snapshot, query, k, to, alone, asyncio.get_running_loop().create_future())


def _do(batch: Sequence[_Asked]) -> list[Any]:
    first = batch[0]
    if first.alone is not None:
        return [first.alone()]
    k = max(asked.k for asked in batch)
    answers = first.snapshot.archive.answers([asked.query for asked in batch], k, first.to, index=first.snapshot.index)
    return [
        Answer(answer.query, answer.source, answer.target, answer.results[: asked.k])
        for asked, answer in zip(batch, answers, strict=True)
    ]


def rows_of(snapshot: Snapshot, where: Sequence[str]) -> IntArray | None:
    """Rows of which every filter is true; looked up, never searched for.

    Raises:
        Problem: not a filter, or of a value that no clip has.
    """
    rows: IntArray | None = None
    for condition in where:
        column, _, value = condition.partition("=")
        found = snapshot.facets.get(column, {}).get(value)
        if found is None:
            known = ", ".join(snapshot.facets) or "nothing here"
            raise Problem(400, f"No clip has that. Filters are COLUMN=VALUE, where COLUMN is one of: {known}.")
        rows = found if rows is None else np.intersect1d(rows, found, assume_unique=True)
    return rows


def shared_neighbours(
    snapshot: Snapshot, query: Query, row: int, to: str, count: int
) -> list[tuple[int, float, float]]:
    """Why a result was found: clips that are like the query in its modality and like the result in its own.

    Returns:
        Rows with both cosines, those first whose lesser cosine is highest.
    """
    archive = snapshot.archive
    among = snapshot.complete
    near_query = archive.space(query.source)(query.z, CONNECTING, rows=among)
    result = np.asarray(archive.embeddings(to)[row : row + 1], np.float32)
    near_result = archive.space(to)(result, CONNECTING, rows=among)
    one = _best(near_query.rows.ravel().tolist(), near_query.scores.ravel().tolist())
    two = _best(near_result.rows[0].tolist(), near_result.scores[0].tolist())
    shared = (one.keys() & two.keys()) - {row, *query.own}
    ordered = sorted(shared, key=lambda r: (-min(one[r], two[r]), r))
    return [(r, one[r], two[r]) for r in ordered[:count]]


def _best(rows: Sequence[int], scores: Sequence[float]) -> dict[int, float]:
    best: dict[int, float] = {}
    for row, score in zip(rows, scores, strict=True):
        best[row] = max(score, best.get(row, -1.0))
    return best
