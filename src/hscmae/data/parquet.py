"""Pairs as a Parquet file (extra ``parquet``): a list column a modality, which pandas, DuckDB and Spark read.

Columns: ``ids`` (text), each modality (a list of d floats, null where the clip lacks it), ``labels`` (a list of class
names), ``split``. Class names in their order stand in the file's metadata.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hscmae.data.pairs import Pairs
from hscmae.errors import InputError
from hscmae.extras import require

CLASS_NAMES = b"hscmae.class_names"
GROUP_ROWS = 8192


def write_parquet(pairs: Pairs, path: Path, origin: Mapping[str, str] | None = None) -> None:
    """Write all rows, group by group; ``origin`` (source, licence, citation) becomes metadata.

    Raises:
        InputError: sequences, which have no place there, or the extra ``parquet`` is not installed.
    """
    arrow, parquet = require("pyarrow", "parquet"), require("pyarrow.parquet", "parquet")
    sequences = [m for m, x in pairs.features.items() if x.ndim == 3]
    if sequences:
        raise InputError(f"a .parquet file holds vectors, not sequences of {', '.join(sequences)}: take .h5 or .npz")
    notes: dict[bytes, bytes] = {key.encode(): text.encode() for key, text in (origin or {}).items()}
    if pairs.labels is not None:
        notes[CLASS_NAMES] = json.dumps(pairs.labels.names).encode()
    writer = None
    try:
        for start in range(0, max(len(pairs), 1), GROUP_ROWS):
            table = _table(pairs.take(np.arange(start, min(start + GROUP_ROWS, len(pairs)))), arrow)
            if writer is None:
                schema = table.schema.with_metadata(notes)
                writer = parquet.ParquetWriter(path, schema, compression="zstd", write_page_checksum=True)
            writer.write_table(table.replace_schema_metadata(notes))
    finally:
        if writer is not None:
            writer.close()


def _table(rows: Pairs, arrow: Any) -> Any:
    columns: dict[str, Any] = {}
    if rows.has_ids:
        columns["ids"] = arrow.array([_text(name) for name in rows.ids.tolist()], arrow.string())
    for m, x in rows.features.items():
        lacking = arrow.array(~rows.present[m])
        columns[m] = arrow.FixedSizeListArray.from_arrays(arrow.array(x.ravel()), x.shape[1], mask=lacking)
    if rows.labels is not None:
        names = [rows.labels.names[i] for i in rows.labels.indices.tolist()]
        indptr = arrow.array(rows.labels.indptr.astype(np.int32))
        columns["labels"] = arrow.ListArray.from_arrays(indptr, arrow.array(names, arrow.string()))
    if rows.split is not None:
        columns["split"] = arrow.array([name.decode() for name in rows.split.tolist()], arrow.string())
    return arrow.table(columns)


def _text(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise InputError(f"id {name!r} is not UTF-8, as text in Parquet must be") from None
