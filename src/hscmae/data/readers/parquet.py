"""Parquet files (extra ``parquet``): see ``columns`` for what is read of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hscmae.data.readers import columns
from hscmae.data.table import Report, Table
from hscmae.extras import require
from hscmae.files import first_bytes

MAGIC = b"PAR1"
BATCH_ROWS = 4096


def matches(path: Path) -> bool:
    """Whether the file begins as Parquet does."""
    return first_bytes(path, len(MAGIC)) == MAGIC


def open_table(path: Path, report: Report) -> Table:
    """Open the file.

    Raises:
        InputError: damaged, or the extra ``parquet`` is not installed; else as ``report`` decides.
    """

    def column(name: str) -> Iterator[Any]:
        with columns.named(path), _open(path) as file:
            for batch in file.iter_batches(BATCH_ROWS, columns=[name]):
                yield batch.column(0)

    with columns.named(path):
        with _open(path) as file:
            schema = file.schema_arrow
        return columns.table(path, "parquet", schema, column, report)


def _open(path: Path) -> Any:
    return require("pyarrow.parquet", "parquet").ParquetFile(path, page_checksum_verification=True)
