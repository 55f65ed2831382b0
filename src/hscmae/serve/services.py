"""Everything that routes use, made once for an app."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from starlette.requests import Request

from hscmae.data.store import is_store
from hscmae.extract.media import VIDEO
from hscmae.serve.background import Background
from hscmae.serve.decisions import Decisions
from hscmae.serve.guard import Gate
from hscmae.serve.media import Media, place_in
from hscmae.serve.observe import Metrics
from hscmae.serve.problems import Problem
from hscmae.serve.searching import Searcher
from hscmae.serve.settings import Settings
from hscmae.serve.snapshot import Shelf, Snapshot
from hscmae.serve.uploads import Uploads


@dataclass
class Services:
    """What an app holds."""

    settings: Settings
    metrics: Metrics
    gate: Gate
    shelf: Shelf
    searcher: Searcher
    media: Media
    uploads: Uploads
    decisions: Decisions
    background: Background
    draining: bool = False

    @classmethod
    def make(cls, settings: Settings) -> Services:
        """Open the archive and all else.

        Raises:
            InputError: no archive, or a state folder that cannot be used.
        """
        metrics = Metrics()
        shelf = Shelf(settings, metrics)
        state = state_folder(settings)
        decisions = Decisions(state)
        return cls(
            settings=settings,
            metrics=metrics,
            gate=Gate(settings.token),
            shelf=shelf,
            searcher=Searcher(settings, metrics),
            media=Media(settings),
            uploads=Uploads(settings),
            decisions=decisions,
            background=Background(shelf, state),
        )

    @property
    def snapshot(self) -> Snapshot:
        """The archive as it is now."""
        return self.shelf.now

    def close(self) -> None:
        """Let go of everything."""
        self.media.close()
        self.searcher.close()
        self.uploads.close()
        self.decisions.close()
        self.snapshot.close()


def state_folder(settings: Settings) -> Path:
    """Where decisions are kept: beside an embedding store, which holds nothing but itself; within an archive."""
    if settings.state is not None:
        return settings.state
    folder = settings.archive
    return folder.with_name(f"{folder.name}-serve") if is_store(folder) else folder / "serve"


def services(request: Request) -> Services:
    """The app's services, for a route."""
    found: Services = request.app.state.services
    return found


def row_of(snapshot: Snapshot, name: str) -> int:
    """The row of a clip's id.

    Raises:
        Problem: no such clip.
    """
    row = snapshot.archive.clips.row_of.get(name)
    if row is None:
        raise Problem(HTTPStatus.NOT_FOUND, "The archive has no clip of this name.")
    return row


def card(snapshot: Snapshot, row: int) -> dict[str, Any]:
    """What is said of a clip wherever it appears."""
    clips = snapshot.archive.clips
    name = clips.id(row)
    line = clips.media.get(name, {})
    start, end = place_in(snapshot, row)
    audio, visual = line.get("audio") or None, line.get("visual") or None
    return {
        "id": name,
        "labels": clips.labels(row),
        "modalities": snapshot.modalities(row),
        "sound": audio,
        "picture": visual,
        "video": visual is not None and Path(visual).suffix.lower() in VIDEO,
        "start": start,
        "end": end,
    }
