"""Runs ``compute`` for the archive of now, one kind after the other, and keeps what it wrote for the next start."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hscmae.data.store import is_store
from hscmae.extract.jail import child_environment
from hscmae.linear.agreement import MIN_PAIRS
from hscmae.serve.compute import KINDS
from hscmae.serve.snapshot import Shelf, Snapshot

log = logging.getLogger("hscmae.serve")
State = Literal["computing", "ready", "failed"]
COMMAND = [sys.executable, "-P", "-m", "hscmae.serve.compute"]
VERSION = "[0-9a-f]" * 16
ENDINGS = {"suspicious": ".json", "map": ".bin"}


@dataclass(frozen=True)
class Outcome:
    """One kind of result.

    Attributes:
        state: whether it is there.
        version: of the snapshot that it is about.
        why: why it failed, for people.
        about: the JSON of it.
        content: the file, for the map.
    """

    state: State
    version: str = ""
    why: str = ""
    about: Any = None
    content: bytes = b""


class Background:
    """The results for the snapshot of now; used from one event loop."""

    def __init__(self, shelf: Shelf, folder: Path) -> None:
        self.shelf, self.folder = shelf, folder
        self.outcomes = dict.fromkeys(KINDS, Outcome("computing"))
        self._task: asyncio.Task[None] | None = None
        self._version = ""

    def start(self) -> None:
        """Begin, or begin anew for another snapshot."""
        if self._task is not None and not self._task.done():
            if self._version == self.shelf.now.version:
                return
            self._task.cancel()
        self._version = self.shelf.now.version
        self._task = asyncio.create_task(self._run(self.shelf.now))

    async def close(self) -> None:
        """End what is under way."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _run(self, snapshot: Snapshot) -> None:
        for kind in ("map", "suspicious"):
            if self.outcomes[kind].version != snapshot.version:
                self.outcomes[kind] = Outcome("computing", snapshot.version)
                try:
                    self.outcomes[kind] = await self._outcome(kind, snapshot)
                except (OSError, ValueError) as error:
                    log.warning("not computed", extra={"fields": {"kind": kind, "reason": str(error)}})
                    self.outcomes[kind] = Outcome("failed", snapshot.version, "This could not be computed.")

    async def _outcome(self, kind: str, snapshot: Snapshot) -> Outcome:
        if kind == "suspicious" and (why := _no_audit(snapshot)):
            return Outcome("failed", snapshot.version, why)
        path = self.folder / f"{kind}-{snapshot.version}{ENDINGS[kind]}"
        if not path.is_file():
            for old in self.folder.glob(f"{kind}-{VERSION}{ENDINGS[kind]}"):  # others are not ours
                old.unlink(missing_ok=True)
            await self._compute(kind, snapshot, path)
        content = await asyncio.to_thread(path.read_bytes)
        if kind == "map":
            head, _, numbers = content.partition(b"\n")
            return Outcome("ready", snapshot.version, about=json.loads(head), content=numbers)
        return Outcome("ready", snapshot.version, about=json.loads(content))

    async def _compute(self, kind: str, snapshot: Snapshot, path: Path) -> None:
        arguments = [kind, str(snapshot.folder.resolve()), str(path.resolve())]
        child = await asyncio.create_subprocess_exec(
            *COMMAND,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=child_environment(),
        )
        try:
            _, said = await child.communicate()
        except asyncio.CancelledError:
            with suppress(ProcessLookupError):
                child.kill()
            await child.wait()
            raise
        if child.returncode:
            raise ValueError((said.decode(errors="replace").strip().splitlines() or ["it crashed"])[-1][:300])


def _no_audit(snapshot: Snapshot) -> str:
    if is_store(snapshot.folder) or not is_store(snapshot.folder / "features"):
        return "Only an archive that holds its features (hscmae build) can be looked through for wrong pairs."
    if len(snapshot.complete) < MIN_PAIRS:
        return f"To tell wrong pairs from right ones takes at least {MIN_PAIRS} clips with both sound and picture."
    return ""
