"""A query's embedding as text that goes into a link: the same search again, without the file and without the server's
memory.

Half-precision numbers, the windows of the query one after the other, after the model's first digits: another model's
vectors mean nothing here.
"""

from __future__ import annotations

import base64
import binascii

import numpy as np

from hscmae.search.archive import Archive
from hscmae.search.exact import Float32Array
from hscmae.serve.problems import Problem

MOST_WINDOWS = 16
MOST_TEXT = 12_000  # characters: of a wide embedding fewer windows go into a link
DIGITS = 12  # of the model's SHA-256


def to_text(archive: Archive, z: Float32Array) -> str:
    """Unit rows, shape (windows, dim), as text of letters, digits, ``-``, ``_`` and one dot."""
    fit = (MOST_TEXT - DIGITS - 1) * 3 // 4 // (2 * archive.dim)  # base64 makes four characters of three bytes
    content = np.asarray(z[: max(1, min(MOST_WINDOWS, fit))], "<f2").tobytes()
    return f"{model_of(archive)}.{base64.urlsafe_b64encode(content).decode().rstrip('=')}"


def from_text(archive: Archive, text: str) -> Float32Array:
    """What ``to_text`` was given, as far as half precision holds it; shape (windows, dim), unit rows.

    Raises:
        Problem: not such a text, or of another model.
    """
    model, dot, encoded = text.partition(".")
    try:
        if not dot:
            raise ValueError
        content = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
        rows = np.frombuffer(content, "<f2").astype(np.float32).reshape(-1, archive.dim)  # (windows, dim)
    except (ValueError, binascii.Error):
        raise Problem(400, "This link's query is damaged.") from None
    if model != model_of(archive):
        raise Problem(410, "The archive's model was learned anew since this link was made: search by the file again.")
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    if not 0 < len(rows) <= MOST_WINDOWS or not (np.isfinite(norms) & (norms > 0.1)).all():
        raise Problem(400, "This link's query is damaged.")
    return np.asarray(rows / norms, np.float32)


def model_of(archive: Archive) -> str:
    """First digits of the model that made the embeddings."""
    return str((archive.model or {}).get("sha256", "none"))[:DIGITS]
