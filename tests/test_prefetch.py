"""Working ahead changes neither items nor order, and tells of errors where they belong."""

from collections.abc import Iterator

import pytest

from hscmae.prefetch import ahead


@pytest.mark.parametrize("count", [0, 1, 2, 3, 50])
@pytest.mark.parametrize("depth", [1, 2, 7])
def test_same_items_in_order(count: int, depth: int) -> None:
    assert list(ahead(iter(range(count)), depth)) == list(range(count))


def test_none_is_an_item() -> None:
    assert list(ahead(iter([None, 1, None]))) == [None, 1, None]


def test_works_ahead_but_not_further_than_told() -> None:
    made = []

    def items() -> Iterator[int]:
        for i in range(100):
            made.append(i)
            yield i

    working = ahead(items(), depth=3)
    assert next(working) == 0
    working.close()
    assert 3 <= len(made) <= 4


def test_an_error_comes_where_its_item_was_due() -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise KeyError("third")

    working = ahead(items())
    assert [next(working), next(working)] == [1, 2]
    with pytest.raises(KeyError, match="third"):
        next(working)
