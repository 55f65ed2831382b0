"""The memory of teacher embeddings against a plain queue."""

from __future__ import annotations

from collections import deque

import pytest
import torch

from hscmae.nn.memory import Memory


def batch(n, first, seed=0):
    source = torch.Generator().manual_seed(seed + first)
    return (
        torch.randn(2, n, 3, generator=source),
        torch.rand(2, n, generator=source) < 0.7,
        torch.arange(first, first + n),
    )


def contents(memory):
    """Row -> what is kept of it."""
    return {
        int(row): (memory.z[:, place].tolist(), memory.present[:, place].tolist())
        for place, row in enumerate(memory.rows)
        if row >= 0
    }


def test_starts_empty():
    memory = Memory(2, 4, 3)
    assert memory.rows.tolist() == [-1] * 4
    assert not memory.present.any()
    assert not memory.z.any()


@pytest.mark.parametrize("sizes", [[3, 3, 3, 3], [8, 1, 8], [5, 12, 2], [7, 16, 24, 1]])
def test_keeps_the_newest_entries_in_the_place_of_the_oldest(sizes):
    memory, queue, first = Memory(2, 8, 3), deque(maxlen=8), 0
    for n in sizes:
        z, present, rows = batch(n, first)
        memory.push(z, present, rows)
        queue.extend((int(rows[i]), (z[:, i].tolist(), present[:, i].tolist())) for i in range(n))
        first += n
        assert contents(memory) == dict(queue)


def test_write_puts_each_row_in_its_place():
    memory = Memory(2, 6, 3)
    z, present, rows = batch(3, 0)
    memory.write(torch.tensor([4, 0, 5]), z, present, rows)
    assert memory.rows.tolist() == [1, -1, -1, -1, 0, 2]
    assert torch.equal(memory.z[:, [4, 0, 5]], z)
    assert torch.equal(memory.present[:, [4, 0, 5]], present)
    assert not memory.z[:, 1:4].any()


def test_carries_no_gradient():
    memory = Memory(2, 4, 3)
    z, present, rows = batch(3, 0)
    memory.push(z.requires_grad_() * 2, present, rows)
    assert not memory.z.requires_grad


def test_a_saved_memory_goes_on_where_it_was():
    first, second = Memory(2, 5, 3), Memory(2, 5, 3)
    first.push(*batch(3, 0))
    second.load_state_dict(first.state_dict())
    for memory in (first, second):
        memory.push(*batch(4, 3))
    assert contents(first) == contents(second)
    assert sorted(contents(first)) == [2, 3, 4, 5, 6]


@pytest.mark.parametrize("size", [0, 5, 40])
def test_places_without_the_rows_of_a_batch(size):
    memory = Memory(2, size, 3)
    memory.rows.copy_(torch.randint(-1, 20, (size,), generator=torch.Generator().manual_seed(size)))
    rows = torch.tensor([19, 3, 7, 0, 11])
    assert torch.equal(memory.without(rows), ~torch.isin(memory.rows, rows))
