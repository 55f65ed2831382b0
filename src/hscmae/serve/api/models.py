"""Shapes of what the API takes and gives, as its OpenAPI document shows them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Query as InQuery
from pydantic import BaseModel, ConfigDict, Field

from hscmae.serve.decisions import Choice
from hscmae.serve.problems import JSON

MOST_RESULTS, MOST_OFFSET, MOST_WHERE, MOST_ROWS = 100, 1000, 8, 200


class ProblemOut(BaseModel):
    """What is wrong, for people (RFC 9457)."""

    title: str
    status: int
    detail: str
    request_id: str


class ClipOut(BaseModel):
    """A clip: its labels, the modalities that it has, its files, and from when to when it is in them."""

    id: str
    labels: list[str]
    modalities: list[str]
    sound: str | None
    picture: str | None
    video: bool
    start: float | None
    end: float | None


class ResultOut(ClipOut):
    """A clip that was found: the best has rank 1; the score is a cosine."""

    rank: int
    score: float
    modality: str


class AnswerOut(BaseModel):
    """Results, and the query they are for; ``vector`` is the query as a link holds it."""

    model_config = ConfigDict(
        populate_by_name=True,
        json_schema_extra={
            "examples": [
                {
                    "query": "bark.ogg",
                    "from": "audio",
                    "to": "visual",
                    "vector": "a87ec1553910.J7dGMbS6M7CgKCysvALO",
                    "more": False,
                    "results": [
                        {
                            "id": "dogs/bella",
                            "labels": ["dog"],
                            "modalities": ["audio", "visual"],
                            "sound": "dogs/bella.ogg",
                            "picture": "dogs/bella.jpg",
                            "video": False,
                            "start": 0.0,
                            "end": 5.0,
                            "rank": 1,
                            "score": 0.87,
                            "modality": "visual",
                        }
                    ],
                }
            ]
        },
    )

    query: str
    source: str = Field(alias="from")
    to: str
    vector: str | None
    more: bool
    results: list[ResultOut]


class EmbeddedOut(BaseModel):
    """A file's embeddings: a unit row for each of its windows, and the same as a link holds it."""

    model_config = ConfigDict(populate_by_name=True)

    source: str = Field(alias="from")
    embeddings: list[list[float]]
    vector: str


class LinkOut(ClipOut):
    """A clip that connects a query with a result: how like either it is, as cosines."""

    like_query: float
    like_result: float


class WhyOut(BaseModel):
    """Clips that are like the query in its modality and like the result in its own."""

    shared: list[LinkOut]


class ClipsOut(BaseModel):
    """Some of the archive's clips."""

    total: int
    clips: list[ClipOut]


class WaveformOut(BaseModel):
    """The envelope of a sound, each value in [0, 1]."""

    peaks: list[float]


class PairOut(ClipOut):
    """A pair whose sound and picture disagree: by how many standard deviations more than pairs made at random on
    average, and the share of those that agree better."""

    score: float
    random_better: float
    decision: Choice | None


class SuspiciousOut(BaseModel):
    """The most suspicious pairs, once they are computed."""

    state: Literal["computing", "ready", "failed"]
    why: str
    wrong_share: float | None
    wrong_share_ci: tuple[float, float] | None
    total: int
    decided: dict[str, int]
    pairs: list[PairOut]


class DecisionIn(BaseModel):
    """A decision about a pair; ``null`` takes it back."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"id": "dogs/rex", "decision": "drop"}]})

    id: str = Field(max_length=4096)
    decision: Choice | None


class DecisionOut(BaseModel):
    """A decision that is on the disk."""

    id: str
    decision: Choice | None


class MapOut(BaseModel):
    """What ``/api/map/points`` holds: ``uint16`` numbers, first x and y of each clip for each modality, then each
    clip's label and cluster; 65535 is for what a clip lacks."""

    state: Literal["computing", "ready", "failed"]
    why: str
    version: str
    clips: int
    modalities: list[str]
    labels: list[str]
    clusters: list[str]


class RowsIn(BaseModel):
    """Clips by their number on a map of this version."""

    model_config = ConfigDict(extra="forbid")

    version: str = Field(max_length=64)
    rows: list[Annotated[int, Field(ge=0, lt=2**31)]] = Field(max_length=MOST_ROWS)


class TokenIn(BaseModel):
    """The token that the operator gave out."""

    model_config = ConfigDict(extra="forbid")

    token: str = Field(max_length=1024)


class FiltersOut(BaseModel):
    """What ``where`` may say: column -> value -> clips."""

    filters: dict[str, dict[str, int]]


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Answers of a route that say what is wrong."""
    schema = {"$ref": "#/components/schemas/ProblemOut"}
    return {
        status: {"description": "What is wrong, for people.", "content": {JSON: {"schema": schema}}}
        for status in (*statuses, 401, 403, 421, 503)
    }


Where = Annotated[
    list[str] | None,
    InQuery(
        max_length=MOST_WHERE,
        description="`COLUMN=VALUE`, of which all must be true; see `/api/filters`.",
        openapi_examples={"label": {"value": ["label=dog"]}},
    ),
]
Number = Annotated[int, InQuery(ge=1, le=MOST_RESULTS, description="Results.")]
Offset = Annotated[int, InQuery(ge=0, le=MOST_OFFSET, description="Results to pass over.")]
To = Annotated[str | None, InQuery(max_length=64, description="Modality of the results, or `both`.")]
From = Annotated[str | None, InQuery(alias="from", max_length=64, description="Modality of the query, or `both`.")]
Group = Annotated[bool, InQuery(description="One result for a recording's windows and for near-duplicates.")]
