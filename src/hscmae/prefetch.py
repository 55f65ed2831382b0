"""Background threads: working ahead, so that reading overlaps with computing, and working on several items at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")


def prefetch(items: Iterator[T], depth: int = 2) -> Generator[T, None, None]:
    """The same items in the same order, up to ``depth`` of them made beforehand in one other thread.

    An exception is raised where its item was due. A consumer that stops early closes the iterator (leaving it to be
    collected does): what was begun is finished then, and dropped.
    """
    end = object()
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as thread:
        waiting: deque[Future[T | object]] = deque(thread.submit(next, items, end) for _ in range(depth))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(thread.submit(next, items, end))
            yield item  # type: ignore[misc]


def in_parallel(
    work: Callable[[S], T], items: Iterator[S], threads: int, prepare: Callable[[], object]
) -> Generator[T, None, None]:
    """``work`` of each item, in the order of the items, done in so many threads that each begin with ``prepare``.

    At most ``threads`` + 1 items are taken before the first result is. An exception is raised where its result was due.
    A consumer that stops early closes the iterator: what was begun is finished then, and dropped.
    """
    with ThreadPoolExecutor(threads, thread_name_prefix="parallel", initializer=prepare) as pool:
        waiting: deque[Future[T]] = deque()
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
