"""Arrays as ``Pairs`` holds them, from what other libraries and people write; what cannot be meant is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hscmae.errors import InputError, describe_rows, first_line

SPLITS = ("train", "val", "test")


def as_array(x: Any, what: str) -> npt.NDArray[Any]:
    """Anything like an array, tensors of any device among them, as NumPy's; memory-mapped arrays stay what they are.

    Raises:
        InputError: rows of differing lengths, or a tensor that is sparse or has no values.
    """
    if isinstance(x, np.ndarray):
        return x
    try:
        if hasattr(x, "detach"):  # a tensor: that it is one can be told without torch
            x = x.detach().cpu()
            x = x.float() if str(x.dtype) == "torch.bfloat16" else x
        return np.asarray(x)
    except (ValueError, TypeError, RuntimeError) as error:
        raise InputError(f"{what}: not an array ({first_line(error)})") from None


def as_features(x: Any, what: str) -> npt.NDArray[Any]:
    """Features as floating point; whole numbers in the least type from float32 on that holds them all.

    >>> as_features([[1, 2], [3, 4]], "audio").dtype, as_features(np.ones((2, 2), np.float16), "audio").dtype
    (dtype('float64'), dtype('float16'))

    Raises:
        InputError: not numbers.
    """
    array = as_array(x, what)
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind == "f" and size <= 8:
        return array
    try:
        if kind in "biu":
            return array.astype(np.result_type(array.dtype, np.float32))
        if kind in "fO":
            return array.astype(np.float64)
        if array.dtype.name == "bfloat16":
            return array.astype(np.float32)
    except (TypeError, ValueError):
        pass
    raise InputError(f"{what}: expected floating point features, got {array.dtype}")


def as_flags(x: Any, what: str) -> npt.NDArray[np.bool_]:
    """Yes or no a row, from booleans or zeros and ones.

    Raises:
        InputError: anything else.
    """
    array = as_array(x, what)
    flags: npt.NDArray[np.bool_] = array.astype(bool, copy=False)
    if array.ndim != 1 or (array.dtype.kind != "b" and not np.array_equal(flags, array)):
        raise InputError(f"{what}: expected true or false a row, got {array.dtype} of shape {array.shape}")
    return flags


def as_lengths(x: Any, what: str, steps: int | None) -> npt.NDArray[np.int64]:
    """Whole numbers from 0 to ``steps``, where known.

    Raises:
        InputError: anything else.
    """
    array = as_array(x, what)
    if array.ndim != 1 or array.dtype.kind not in "biu":
        raise InputError(f"{what}: expected a whole number a row, got {array.dtype} of shape {array.shape}")
    if steps is not None and (bad := np.flatnonzero((array < 0) | (array > steps))).size:
        raise InputError(f"{what}: expected 0 to {steps}, got {array[bad[0]]} in {describe_rows(bad.tolist())}")
    return array.astype(np.int64, copy=False)


def as_text(x: Any, what: str) -> npt.NDArray[np.bytes_]:
    """Bytes of fixed width from bytes, strings (as UTF-8), or whole numbers.

    >>> as_text(["é", "b"], "ids").tolist()
    [b'\\xc3\\xa9', b'b']

    Raises:
        InputError: anything else, or another shape than (n,).
    """
    array = as_array(x, what)
    if array.ndim == 1 and array.dtype.kind == "S":
        return array
    if array.ndim == 1 and array.dtype.kind in "UO" and all(isinstance(v, str | bytes) for v in array.tolist()):
        values = [v if isinstance(v, bytes) else v.encode("utf-8", "surrogateescape") for v in array.tolist()]
        return np.array(values, dtype=np.bytes_)
    if array.ndim == 1 and array.dtype.kind in "iu":
        return array.astype(np.bytes_)
    raise InputError(f"{what}: expected a string a row, got {array.dtype} of shape {array.shape}")


def as_split(x: Any, what: str) -> npt.NDArray[np.bytes_]:
    """A column of ``SPLITS``.

    Raises:
        InputError: anything else in it.
    """
    column = as_text(x, what)
    known = np.zeros(len(column), dtype=bool)
    for split in SPLITS:
        known |= column == split.encode()
    if not known.all():
        bad = np.flatnonzero(~known)
        value = column[bad[0]].decode("utf-8", "replace")
        raise InputError(f"{what}: expected train, val or test, got {value!r} in {describe_rows(bad.tolist())}")
    return column
