"""What a benchmark consists of: contenders (a method with settings), and jobs (one fit of one of them).

A job is plain JSON, so that it runs in a process of its own (``benchmark.worker``) and its result is a file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from hscmae.config import merge
from hscmae.errors import InputError
from hscmae.methods import METHODS, get_method

OURS = "hscmae"
SUPERVISED = "supervised"
DAMAGES = ("wrong-pairs", "co-occurrence")
CURVES = (*DAMAGES, "partial")
SHARES = (0.2, 0.4, 0.6)
RESPLIT = "resplit-"


@dataclass(frozen=True)
class Contender:
    """A method with its preset and settings, under the name that tables show.

    Attributes:
        name: unique within a benchmark.
        method: its registered name.
        preset: the preset that the settings change.
        settings: nested settings, all but the seed.
        part: what an ablation changes in it; empty for the whole.
    """

    name: str
    method: str
    preset: str = "default"
    settings: Mapping[str, Any] = field(default_factory=dict)
    part: str = ""

    def changed(self, settings: Mapping[str, Any]) -> Contender:
        """The same with other settings.

        Raises:
            InputError: a setting that the method does not have, or a value that it does not take.
        """
        merged = merge(self.settings, settings)
        get_method(self.method).from_settings(merged, self.preset)
        return replace(self, settings=merged)

    @property
    def reads_labels(self) -> bool:
        """Whether it is there for scale alone: classifiers trained with the labels."""
        return self.method == SUPERVISED

    def uses_seed(self, rows: int) -> bool:
        """Whether the seed matters on so many training rows; classifiers are fitted once."""
        if self.reads_labels:
            return False
        return get_method(self.method).from_settings(self.settings, self.preset).uses_seed(rows)


@dataclass(frozen=True)
class Job:
    """One fit.

    Attributes:
        contender: what is fitted.
        split: ``resplit-SEED``, or any other name for the split that the data has.
        seed: the fit's seed.
        damage: how the training pairs are damaged: one of ``DAMAGES``, or empty.
        share: of the training pairs that are damaged.
        trial: score held-out training pairs without labels, instead of the test rows.
        partial: measure queries with missing values too.
    """

    contender: Contender
    split: str
    seed: int
    damage: str = ""
    share: float = 0.0
    trial: bool = False
    partial: bool = False

    @property
    def key(self) -> str:
        """The job's file name, without ending."""
        parts = [self.contender.name, self.split, str(self.seed)]
        if self.damage:
            parts += [self.damage, f"{self.share:g}"]
        return ".".join(re.sub(r"[^\w=.+-]", "_", part) for part in parts)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> Job:
        return cls(**{**saved, "contender": Contender(**saved["contender"])})


def contenders(names: Sequence[str]) -> list[Contender]:
    """Contenders by METHOD or METHOD:PRESET; "all" is every method, HSC-MAE's preset ``paper``, and ``supervised``.

    Raises:
        InputError: no such method or preset, or none named.
    """
    wanted = [name for given in names for name in (_all() if given == "all" else [given])]
    if not wanted:
        raise InputError(f"no methods named; there are all, {', '.join([*METHODS, SUPERVISED])}")
    found = {}
    for name in wanted:
        if name == SUPERVISED:
            found[name] = Contender(name, name)
            continue
        kind, _, preset = name.partition(":")
        method = get_method(kind)
        method(preset=preset or "default")
        found[name] = Contender(name, kind, preset or "default")
    return list(found.values())


def _all() -> list[str]:
    return [*(name for name in METHODS if name != OURS), f"{OURS}:paper", OURS, SUPERVISED]
