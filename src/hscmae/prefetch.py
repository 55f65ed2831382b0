"""Working ahead in a background thread, so that reading from a disk overlaps with computing."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def ahead(items: Iterator[T], depth: int = 2) -> Generator[T, None, None]:
    """The same items in the same order, up to ``depth`` of them made beforehand in one other thread.

    An exception is raised where its item was due. A consumer that stops early closes the iterator (leaving it to be
    collected does): what was begun is finished then, and dropped.
    """
    end = object()
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as thread:
        waiting: deque[Future[T | object]] = deque(thread.submit(next, items, end) for _ in range(depth))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(thread.submit(next, items, end))
            yield item  # type: ignore[misc]
