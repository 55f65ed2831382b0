"""How two feature files of the same clips differ, and why: the answer to "my features do not match the published ones".

Rows are matched by id (by number where a file has none). Then the usual reasons are tried in turn: rounding, one
factor, scale and offset by column, unit-norm rows, rows shifted or shuffled, columns shifted or shuffled, a linear map
between them. The first that explains the difference is the verdict.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hscmae.data.table import RowArray, Table
from hscmae.errors import InputError

SAMPLE = 4096  # matched rows that are compared
SHIFTS = 50  # rows and columns by which a shift is looked for
HIGH = 0.99  # correlation from which two columns or rows are the same thing

Rows = npt.NDArray[np.float64]


def compare(table: Table, other: Table) -> dict[str, Any]:
    """Compare two opened files modality by modality.

    Returns:
        ``matched_rows``, ``only_here``, ``only_there``, and ``modalities``: name -> ``verdict`` in words, ``reason``
        as one word, and the measures behind it (see ``_compare``).

    Raises:
        InputError: no modality or no row in common.
    """
    common = [m for m in table.features if m in other.features]
    if not common:
        raise InputError(f"{other.source}: no modality in common with {table.source}")
    here, there, by = _match(table, other)
    if not len(here):
        raise InputError(f"{other.source}: no id in common with {table.source}")
    chosen = np.unique(np.linspace(0, len(here) - 1, min(len(here), SAMPLE)).astype(int))
    result: dict[str, Any] = {
        "matched_by": by,
        "matched_rows": len(here),
        "only_here": len(table) - len(here),
        "only_there": len(other) - len(there),
        "modalities": {},
    }
    for m in common:
        a, b = _gather(table, m, here[chosen]), _gather(other, m, there[chosen])
        both = _present(table, m)[here[chosen]] & _present(other, m)[there[chosen]]
        both &= np.isfinite(a).all(axis=1) & np.isfinite(b).all(axis=1)
        result["modalities"][m] = _compare(a[both], b[both])
    return result


def _match(table: Table, other: Table) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], str]:
    """Row numbers of the same clips, ascending in the first file."""
    if table.ids is None or other.ids is None or not (table.has_ids and other.has_ids):
        rows = np.arange(min(len(table), len(other)))
        return rows, rows, "row"
    _, here, there = np.intersect1d(table.ids, other.ids, return_indices=True)
    order = np.argsort(here)
    return here[order], there[order], "id"


def _present(table: Table, m: str) -> npt.NDArray[np.bool_]:
    return table.present.get(m, np.ones(table.features[m].shape[0], dtype=bool))


def _gather(table: Table, m: str, rows: npt.NDArray[np.intp]) -> Rows:
    """Chosen rows in the order asked for, sequences as their mean over steps, read block by block."""
    x: RowArray = table.features[m]
    lengths = table.lengths.get(m)
    gathered = np.empty((len(rows), x.shape[-1]))
    step = table.block_rows()
    for start in range(0, x.shape[0], step):
        wanted = np.flatnonzero((rows >= start) & (rows < start + step))
        if not len(wanted):
            continue
        block = table.features_of(m, start, start + step)[rows[wanted] - start].astype(np.float64)
        if block.ndim == 3:
            steps = np.full(len(block), block.shape[1]) if lengths is None else np.maximum(lengths[rows[wanted]], 1)
            valid = (np.arange(block.shape[1]) < steps[:, None])[:, :, None]
            block = np.where(valid, block, 0).sum(axis=1) / steps[:, None]
        gathered[wanted] = block
    return gathered


def _compare(a: Rows, b: Rows) -> dict[str, Any]:
    """Measures and verdict for matched rows of one modality.

    ``column_correlation`` is the median over columns; ``scale`` and ``offset`` (medians) fit ``theirs = scale * ours +
    offset``; ``row_offset`` and ``column_offset`` are the shifts at which the two agree best.
    """
    found: dict[str, Any] = {"rows": len(a), "dims": [a.shape[1], b.shape[1]]}
    if len(a) < 3:
        return found | {"reason": "too-few", "verdict": "fewer than three rows in common: nothing can be said"}
    same_dims = a.shape[1] == b.shape[1]
    if same_dims:
        correlation, scale, offset = _by_column(a, b)
        varying = np.isfinite(correlation)
        middle = float(np.median(correlation[varying])) if varying.any() else 0.0
        found |= {
            "max_difference": float(np.abs(a - b).max()),
            "column_correlation": middle,
            "columns_differing": np.flatnonzero(~(correlation > HIGH) & varying).tolist(),
            "scale": float(np.median(scale[varying])) if varying.any() else 1.0,
            "offset": float(np.median(offset[varying])) if varying.any() else 0.0,
            "row_offset": _best_row_offset(a, b),
            "column_offset": _best_column_offset(a, b),
            "columns": [
                {"column": i, "correlation": r, "scale": s, "offset": o}
                for i, (r, s, o) in enumerate(
                    zip(*(np.round(np.nan_to_num(v), 6).tolist() for v in (correlation, scale, offset)), strict=True)
                )
            ],
        }
        reason, verdict = _same_columns(a, b, found, scale[varying], offset[varying])
        if reason:
            return found | {"reason": reason, "verdict": verdict}
    reason, verdict = _elsewhere(a, b, found)
    return found | {"reason": reason, "verdict": verdict}


def _same_columns(a: Rows, b: Rows, found: dict[str, Any], scale: Rows, offset: Rows) -> tuple[str, str]:
    """Reasons that leave rows and columns in their places; an empty reason where none fits."""
    spread = float(b.std()) or 1.0
    difference = found["max_difference"]
    if difference == 0:
        return "identical", "identical"
    if difference <= 2e-3 * max(spread, float(np.abs(b).max())) and np.abs(a - b).mean() <= 1e-3 * spread:
        return (
            "rounding",
            f"the same up to rounding (largest difference {difference:.3g}), such as float16 against float32",
        )
    factor = float(np.vdot(a, b) / (np.vdot(a, a) or 1))
    if np.abs(b - factor * a).mean() <= 1e-3 * spread:
        return "factor", f"the same times one factor: theirs = {factor:.6g} x ours"
    if found["column_correlation"] > HIGH:
        off = float(np.median(offset))
        if np.abs(scale - 1).max(initial=0) < 1e-3 and np.ptp(offset) <= 1e-3 * spread:
            return "offset", f"the same plus one number: theirs = ours + {off:.6g}"
        standard = [
            who
            for who, x in (("theirs", b), ("ours", a))
            if np.abs(np.median(x.std(axis=0)) - 1) < 0.05 and np.abs(np.median(x.mean(axis=0))) < 0.05
        ]
        hint = f" ({standard[0]} look standardised by column)" if len(standard) == 1 else ""
        some = found["columns_differing"]
        rest = f"; {len(some)} columns do not agree" if some else ""
        return "scale-offset", (
            f"each column is scaled and shifted{hint}: theirs = {found['scale']:.4g} x ours + {found['offset']:.4g}"
            f" in the middle{rest}"
        )
    if np.abs(_unit(a) - _unit(b)).mean() < 1e-3 * float(_unit(b).std() or 1):
        who = "theirs" if np.abs(np.linalg.norm(b, axis=1) - 1).max() < 1e-2 else "ours"
        return "unit-norm", f"the same directions with other norms: {who} look scaled to unit length"
    if found["row_offset"]["offset"] and found["row_offset"]["correlation"] > HIGH:
        shift = found["row_offset"]["offset"]
        return (
            "row-shift",
            f"rows are shifted: our row i is their row i {shift:+d}; ids and features do not belong together",
        )
    if found["column_offset"]["offset"] and found["column_offset"]["correlation"] > HIGH:
        shift = found["column_offset"]["offset"]
        return "column-shift", f"columns are shifted: our column i is their column i {shift:+d}"
    return "", ""


def _elsewhere(a: Rows, b: Rows, found: dict[str, Any]) -> tuple[str, str]:
    """Reasons that move rows or columns, or mix columns."""
    if a.shape[1] == b.shape[1]:
        similar = _standard_rows(a) @ _standard_rows(b).T
        best = similar.argmax(axis=1)
        hit = similar[np.arange(len(a)), best] > HIGH
        found["rows_found_elsewhere"] = float((hit & (best != np.arange(len(a)))).mean())
        if hit.mean() > 0.5 and found["rows_found_elsewhere"] > 0.1:
            share = found["rows_found_elsewhere"]
            return (
                "row-order",
                f"the same rows in another order ({share:.0%} are found under another id): ids do not fit the features",
            )
    correlation = np.abs(_standard_columns(a).T @ _standard_columns(b)) / len(a)
    best = correlation.argmax(axis=1)
    hit = correlation[np.arange(a.shape[1]), best] > HIGH
    found["best_columns"] = [int(j) if sure else None for j, sure in zip(best, hit, strict=True)]
    dims = "" if a.shape[1] == b.shape[1] else f" (dimensions differ: ours {a.shape[1]}, theirs {b.shape[1]})"
    if hit.mean() > 0.5:
        if a.shape[1] != b.shape[1] and np.array_equal(best[hit], np.flatnonzero(hit)):
            return (
                "columns-cut",
                f"theirs are ours with columns {'added' if b.shape[1] > a.shape[1] else 'cut off'} at the end{dims}",
            )
        return "column-order", f"the same columns in another order{dims}"
    explained = _linear_fit(a, b)
    found["linear_r2"] = explained
    if explained is not None and explained > 0.9:
        return (
            "linear-map",
            f"a linear map of ours (R2 {explained:.2f}): another rotation, such as a PCA or whitening of its own{dims}",
        )
    share = "" if explained is None else f"; a linear map explains {max(explained, 0.0):.0%} of theirs"
    return (
        "unrelated",
        f"no common origin found{dims}{share}: another extractor, other clips, or rows that do not belong to their ids",
    )


def _by_column(a: Rows, b: Rows) -> tuple[Rows, Rows, Rows]:
    """Correlation, scale and offset of each column; NaN where a column is constant."""
    da, db = a - a.mean(axis=0), b - b.mean(axis=0)
    covariance, va, vb = (da * db).sum(axis=0), (da**2).sum(axis=0), (db**2).sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        correlation = covariance / np.sqrt(va * vb)
        scale = covariance / va
    offset = b.mean(axis=0) - scale * a.mean(axis=0)
    return correlation, scale, offset


def _best_row_offset(a: Rows, b: Rows) -> dict[str, Any]:
    """The shift of rows at which they correlate best, on average."""
    za, zb = _standard_rows(a[:1024]), _standard_rows(b[:1024])
    n = len(za)
    scores = {
        s: float((za[max(0, -s) : n - max(0, s)] * zb[max(0, s) : n - max(0, -s)]).sum(axis=1).mean())
        for s in range(-min(SHIFTS, n - 2), min(SHIFTS, n - 2) + 1)
    }
    best = max(scores, key=lambda s: (scores[s], -abs(s)))
    return {"offset": best, "correlation": scores[best]}


def _best_column_offset(a: Rows, b: Rows) -> dict[str, Any]:
    """The shift of columns at which they correlate best, on average."""
    za, zb = _standard_columns(a), _standard_columns(b)
    d = za.shape[1]
    reach = min(SHIFTS, max(d - 2, 0))
    scores = {
        s: float((za[:, max(0, -s) : d - max(0, s)] * zb[:, max(0, s) : d - max(0, -s)]).mean())
        for s in range(-reach, reach + 1)
    }
    best = max(scores, key=lambda s: (scores[s], -abs(s)))
    return {"offset": best, "correlation": scores[best]}


def _linear_fit(a: Rows, b: Rows) -> float | None:
    """R2 on every second row of the best affine map from ours to theirs, fitted on the others."""
    fit, test = slice(0, None, 2), slice(1, None, 2)
    if len(a[fit]) < 2 * a.shape[1]:
        return None
    design = np.column_stack([a, np.ones(len(a))])
    solution = np.linalg.lstsq(design[fit], b[fit], rcond=1e-8)[0]
    residual = b[test] - design[test] @ solution
    total = ((b[test] - b[fit].mean(axis=0)) ** 2).sum()
    return float(1 - (residual**2).sum() / total) if total else None


def _standard_columns(x: Rows) -> Rows:
    centred = x - x.mean(axis=0)
    deviation = centred.std(axis=0)
    standard: Rows = centred / np.where(deviation > 0, deviation, 1)
    return standard


def _standard_rows(x: Rows) -> Rows:
    """Rows centred by column and scaled to unit length: their products are correlations."""
    return _unit(_standard_columns(x))


def _unit(x: Rows) -> Rows:
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    unit: Rows = x / np.where(norms > 0, norms, 1)
    return unit
