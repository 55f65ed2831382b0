"""Pairs to check: the audit's suspicious pairs, what people decide about them, and the list for the next training."""

from __future__ import annotations

import asyncio
from collections import Counter
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from hscmae.serve.api.models import DecisionIn, DecisionOut, Number, SuspiciousOut, problems
from hscmae.serve.api.search import as_json
from hscmae.serve.decisions import CHOICES, as_list, can_be_listed
from hscmae.serve.problems import Problem
from hscmae.serve.services import card, row_of, services

router = APIRouter(tags=["pairs to check"])


@router.get("/api/suspicious", response_model=SuspiciousOut, responses=problems(422))
async def suspicious(
    request: Request,
    k: Number = 24,
    offset: Annotated[int, Query(ge=0, le=100_000)] = 0,
    open: Annotated[bool, Query(description="Only those that nobody decided about.")] = False,
) -> Response:
    """The pairs whose sound and picture disagree most, the worst first, with what was decided about them."""
    app = services(request)
    snapshot, outcome = app.snapshot, app.background.outcomes["suspicious"]
    about = outcome.about or {"pairs": [], "wrong_share": None, "wrong_share_ci": None}
    made, rows = app.decisions.all(), snapshot.archive.clips.row_of
    # Of a clip that is gone since they were computed, nothing can be shown.
    listed = [pair for pair in about["pairs"] if pair["id"] in rows]
    decided = Counter(made[pair["id"]] for pair in listed if pair["id"] in made)
    if open:
        listed = [pair for pair in listed if pair["id"] not in made]
    return as_json(
        {
            "state": outcome.state,
            "why": outcome.why,
            "wrong_share": about["wrong_share"],
            "wrong_share_ci": about["wrong_share_ci"],
            "total": sum(pair["id"] in rows for pair in about["pairs"]),
            "decided": {choice: decided[choice] for choice in CHOICES},
            "pairs": [
                {**card(snapshot, rows[pair["id"]]), **pair, "decision": made.get(pair["id"])}
                for pair in listed[offset : offset + k]
            ],
        }
    )


@router.get("/api/decisions", response_model=list[DecisionOut], responses=problems())
async def decisions(request: Request) -> Response:
    """Every decision."""
    return as_json([{"id": name, "decision": choice} for name, choice in services(request).decisions.all().items()])


@router.post("/api/decisions", response_model=DecisionOut, responses=problems(400, 404, 413, 415, 422))
async def decide(request: Request, decision: DecisionIn) -> Response:
    """Keep a decision, or take one back; it is on the disk when the answer comes."""
    app = services(request)
    row = row_of(app.snapshot, decision.id)
    if decision.decision == "drop" and not can_be_listed(app.snapshot.archive.clips.keys[row]):
        raise Problem(
            HTTPStatus.UNPROCESSABLE_ENTITY, "The name of this clip cannot be written into a list; rename its files."
        )
    try:
        await asyncio.to_thread(app.decisions.decide, decision.id, decision.decision)
    except OSError:
        raise Problem(
            HTTPStatus.INSUFFICIENT_STORAGE, "The decision could not be kept: is the server's disk full?"
        ) from None
    return as_json({"id": decision.id, "decision": decision.decision})


@router.get(
    "/api/decisions/export",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"example": "dogs/rex\n"}}}, **problems()},
)
async def export(request: Request) -> Response:
    """The pairs to drop, as `hscmae build ARCHIVE --retrain --exclude-ids` takes them."""
    app = services(request)
    clips = app.snapshot.archive.clips
    rows = [
        clips.row_of[name] for name, choice in app.decisions.all().items() if choice == "drop" and name in clips.row_of
    ]
    content = as_list(clips.keys[row] for row in rows)
    headers = {"Content-Disposition": 'attachment; filename="exclude-ids.txt"'}
    return Response(content, media_type="text/plain; charset=utf-8", headers=headers)
