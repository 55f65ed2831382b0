"""Working ahead changes neither items nor order, and tells of errors where they belong."""

import threading
import time
from collections.abc import Iterator

import pytest

from hscmae.prefetch import in_parallel, prefetch


@pytest.mark.parametrize("count", [0, 1, 2, 3, 50])
@pytest.mark.parametrize("depth", [1, 2, 7])
def test_same_items_in_order(count: int, depth: int) -> None:
    assert list(prefetch(iter(range(count)), depth)) == list(range(count))


def test_none_is_an_item() -> None:
    assert list(prefetch(iter([None, 1, None]))) == [None, 1, None]


def test_works_ahead_but_not_further_than_told() -> None:
    made = []

    def items() -> Iterator[int]:
        for i in range(100):
            made.append(i)
            yield i

    working = prefetch(items(), depth=3)
    assert next(working) == 0
    working.close()
    assert 3 <= len(made) <= 4


def test_an_error_comes_where_its_item_was_due() -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise KeyError("third")

    working = prefetch(items())
    assert [next(working), next(working)] == [1, 2]
    with pytest.raises(KeyError, match="third"):
        next(working)


@pytest.mark.parametrize("count", [0, 1, 4, 50])
@pytest.mark.parametrize("threads", [1, 3])
def test_results_in_the_order_of_the_items(count: int, threads: int) -> None:
    prepared = []

    def work(i: int) -> int:
        time.sleep(0.003 * (i % 3 == 0))  # others overtake
        return i * i

    done = in_parallel(work, iter(range(count)), threads, lambda: prepared.append(threading.get_ident()))
    assert list(done) == [i * i for i in range(count)]
    assert len(set(prepared)) == len(prepared) <= threads


def test_items_are_worked_on_at_the_same_time() -> None:
    both = threading.Barrier(2, timeout=10)
    assert sorted(in_parallel(lambda _: both.wait(), iter(range(2)), 2, int)) == [0, 1]


def test_takes_no_more_items_than_it_has_threads_for() -> None:
    items = iter(range(100))
    working = in_parallel(lambda i: i, items, 3, int)
    assert next(working) == 0
    working.close()
    assert next(items) == 4


def test_an_error_of_the_work_comes_in_its_place() -> None:
    working = in_parallel(lambda i: 6 // i, iter([1, 2, 0, 3]), 2, int)
    assert [next(working), next(working)] == [6, 3]
    with pytest.raises(ZeroDivisionError):
        next(working)
