"""A file's bytes, or a range of them (RFC 9110), from a descriptor that is open already."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Mapping

from starlette.responses import Response, StreamingResponse

from hscmae.serve.problems import Problem

BLOCK = 2**18  # bytes read at a time


def range_of(header: str | None, size: int) -> tuple[int, int] | None:
    """First byte and the one after the last; ``None`` for the whole file, also where several ranges are asked for.

    Raises:
        Problem: a range beyond the file.

    >>> range_of("bytes=0-9", 100), range_of("bytes=-10", 100), range_of("bytes=95-", 100), range_of("lines=1-2", 9)
    ((0, 10), (90, 100), (95, 100), None)
    """
    found = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", (header or "").replace(" ", ""), re.ASCII)
    if found is None or found[0] == "bytes=-":
        return None
    first, last = found[1], found[2]
    if not first:
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), min(int(last or size) + 1, size)
        if last and int(last) < start:
            return None
    if start >= stop:
        raise Problem(416, "No such part of the file.", {"Content-Range": f"bytes */{size}"})
    return start, stop


def unchanged(request: Mapping[str, str], etag: str) -> bool:
    """Whether the client says that it has this state already.

    >>> unchanged({"if-none-match": '"a", W/"b"'}, '"b"'), unchanged({}, '"b"')
    (True, False)
    """
    return etag in (tag.strip().removeprefix("W/") for tag in request.get("if-none-match", "").split(","))


def part_of(request: Mapping[str, str], etag: str, size: int) -> tuple[int, int] | None:
    """``range_of`` of a request; the whole where it asks for a part of another state."""
    return range_of(request.get("range"), size) if request.get("if-range", etag) == etag else None


def file_response(
    handle: int, size: int, kind: str, etag: str, request: Mapping[str, str], method: str, headers: Mapping[str, str]
) -> Response:
    """An answer with the file's content; closes ``handle``.

    Args:
        handle: open descriptor of the file.
        size: its bytes.
        kind: its media type.
        etag: changes when the file does.
        request: the request's headers.
        method: of the request.
        headers: further ones of the answer.
    """
    given = {**headers, "ETag": etag, "Accept-Ranges": "bytes"}
    if unchanged(request, etag):
        os.close(handle)
        return Response(status_code=304, headers=given)
    try:
        part = part_of(request, etag, size)
    except Problem:
        os.close(handle)
        raise
    start, stop = part or (0, size)
    given["Content-Length"] = str(stop - start)
    if part is not None:
        given["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    status = 200 if part is None else 206
    if method == "HEAD":
        os.close(handle)
        return Response(status_code=status, headers=given, media_type=kind)
    return StreamingResponse(_blocks(handle, start, stop), status, given, kind)


async def _blocks(handle: int, start: int, stop: int) -> AsyncIterator[bytes]:
    try:
        while start < stop:
            block = await asyncio.to_thread(os.pread, handle, min(BLOCK, stop - start), start)
            if not block:
                return  # became shorter: the connection is closed
            start += len(block)
            yield block
    finally:
        os.close(handle)
