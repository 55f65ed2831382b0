"""What an operator may set, and the limits that hold whoever asks."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from hscmae.errors import InputError

SHORTEST_TOKEN = 16  # characters
MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Settings:
    """How an archive is served.

    Attributes:
        archive: folder of ``hscmae build`` or ``hscmae embed``.
        media: folders in which media files may lie, beside those that the archive names.
        state: folder for decisions and what is computed once; by default ``ARCHIVE/serve``.
        index: of ``hscmae index``, searched instead of the embeddings.
        weights: files and folders with extractors' weights.
        host, port: where to listen.
        token: what every request must bring, if anything.
        most_upload: bytes of a request's body.
        least_rate: bytes a second that a body must come at, after ``patience`` seconds.
        patience: seconds that a client may take for its headers, for taking a part of an answer, and beside
            ``least_rate`` for a body.
        most_waiting: searches that may wait; more are told to come again.
        most_decoding: media that may wait to be decoded.
        most_received: bytes of bodies held at a time, of all requests together.
        query_seconds: of an uploaded recording that are looked at.
        refresh: seconds between looks whether the archive was rebuilt.
    """

    archive: Path
    media: tuple[Path, ...] = ()
    state: Path | None = None
    index: str | None = None
    weights: tuple[Path, ...] = ()
    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    most_upload: int = 64 * MEGABYTE
    least_rate: int = 4096
    patience: float = 10.0
    most_waiting: int = 256
    most_decoding: int = 64
    most_received: int = 512 * MEGABYTE
    query_seconds: float = 60.0
    refresh: float = 2.0

    def __post_init__(self) -> None:
        if self.token is not None and (len(self.token) < SHORTEST_TOKEN or not self.token.isascii()):
            raise InputError(f"a token takes at least {SHORTEST_TOKEN} characters, all of ASCII")
        if self.token is None and not is_loopback(self.host):
            raise InputError(
                f"whoever reaches {self.host} would see the archive: set a token in the environment, "
                "HSCMAE_TOKEN=$(openssl rand -hex 24), or listen on 127.0.0.1"
            )
        for folder in self.media:
            if not folder.is_dir():
                raise InputError(f"{folder}: no such folder")


def is_loopback(host: str) -> bool:
    """Whether a host's name or address is this machine's alone.

    >>> [is_loopback(h) for h in ("localhost", "127.0.0.1", "::1", "0.0.0.0", "example.org")]
    [True, True, True, False, False]
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
