"""What every backend does: clips with a vector in each space, added, removed, searched, counted.

A *space* is a modality, or "both" fused. A clip has an id, tags (``COLUMN=VALUE``, what filters ask for) and a unit
vector in each space that it is in. Adding a clip of a known id replaces it. What a call has returned from is kept, also
if the process is killed after it; faiss alone, a file rather than a database, keeps what ``close`` has returned from.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]
Tags = Sequence[str]


class Backend(ABC):
    """One index. A context manager that closes.

    Attributes:
        dim: of the vectors.
        spaces: names of the spaces.
        about: what the index was made of, as JSON; kept with it, see ``bind``.
        in_folder: whether its place is a folder of its own, unless it looks like an address.
    """

    in_folder: ClassVar[bool] = True
    dim: int
    spaces: tuple[str, ...]
    about: dict[str, Any]

    @classmethod
    @abstractmethod
    def at(cls, place: str, table: str, dim: int = 0, spaces: Sequence[str] = ()) -> Self:
        """The index at a place, which is made if ``dim`` is given and there is none.

        Args:
            place: a folder, an address or a connection string.
            table: in a database that may hold several.
            dim, spaces: of a new index; those of an old one must be the same.

        Raises:
            InputError: none there and no ``dim``, damaged, or of other spaces.
        """

    @classmethod
    @abstractmethod
    def knows(cls, place: str) -> bool:
        """Whether a place, by its looks and without reading what is there, is one of this backend's."""

    @abstractmethod
    def add(self, ids: Sequence[str], vectors: Mapping[str, Float32Array], tags: Sequence[Tags]) -> None:
        """Add clips, or replace those of the same ids.

        Args:
            ids: shape (n,), each once.
            vectors: space -> unit rows, shape (n, dim); a row of zeros is not in the space.
            tags: of each clip.
        """

    @abstractmethod
    def remove(self, ids: Sequence[str]) -> None:
        """Remove clips; ids that are not there are passed over."""

    @abstractmethod
    def search(
        self, space: str, queries: Float32Array, k: int, where: Sequence[str] = ()
    ) -> list[list[tuple[str, float]]]:
        """For each query, shape (q, dim), ids and cosines of the ``k`` nearest clips, the nearest first.

        With ``where``, of the clips that have all of these tags; as many as ``k`` of them are found.
        """

    @abstractmethod
    def count(self) -> int:
        """How many clips there are."""

    @abstractmethod
    def digests(self) -> dict[str, str]:
        """``digest_of`` of each clip by id: what an update compares."""

    @abstractmethod
    def bind(self, about: Mapping[str, Any]) -> None:
        """Say what the index is made of."""

    def finish(self) -> None:  # noqa: B027 (nothing to do where searching is fast at once)
        """Make searching fast, once everything is added."""

    def search_harder(self, space: str) -> bool:
        """Look at more clips in every search of a space from now on; whether it can.

        Raises:
            RunError: it could, but does so already as far as it goes.
        """
        return False

    @abstractmethod
    def close(self) -> None:
        """Keep what was done and let go of what is held."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()

    def abandon(self) -> None:
        """Let go of what is held without keeping what ``close`` would keep."""
        self.close()


def digest_of(vectors: Sequence[npt.NDArray[Any]], tags: Tags) -> str:
    """A clip's content as 32 hexadecimal digits: its vectors in the order of the spaces, and its tags."""
    digest = hashlib.blake2b(digest_size=16)
    for vector in vectors:
        digest.update(np.ascontiguousarray(vector, np.float32).tobytes())
    digest.update("\0".join(sorted(tags)).encode())
    return digest.hexdigest()


def digests_of(vectors: Mapping[str, Float32Array], tags: Sequence[Tags], spaces: Sequence[str]) -> list[str]:
    """``digest_of`` of each clip."""
    return [digest_of([vectors[space][row] for space in spaces], own) for row, own in enumerate(tags)]
