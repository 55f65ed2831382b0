"""What is tuned, and within which bounds: one range a setting, whichever methods have it.

The dimension is never tuned: the criterion does not compare models of different dimension (``docs/decisions.md``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hscmae.benchmark.jobs import Contender
from hscmae.config import dotted_names, flatten
from hscmae.methods import get_method


@dataclass(frozen=True)
class Range:
    """Bounds, both included; whole numbers where both bounds are, on a logarithmic scale where ``log``."""

    low: float
    high: float
    log: bool = True

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)


RANGES: dict[str, Range] = {
    "ridge": Range(0.03, 100.0),
    "k": Range(5, 200),
    "tau": Range(0.02, 0.5),
    "hops": Range(1, 3, log=False),
    "bandwidth": Range(0.1, 10.0),
    "view.bandwidth": Range(0.3, 3.0),
    "training.lr": Range(1e-4, 1e-2),
    "network.dropout": Range(0.0, 0.8, log=False),
    "network.branch_scale": Range(0.03, 1.0),
    "masking.ratio": Range(0.1, 0.9, log=False),
    "affinity.k": Range(5, 100),
    "affinity.tau_teacher": Range(0.03, 0.3),
    "loss.tau": Range(0.05, 0.5),
    "loss.soft_share": Range(0.0, 1.0, log=False),
    "loss.tau_target": Range(0.03, 0.3),
    "loss.ridge": Range(1e-3, 1.0),
    "loss.global_weight": Range(0.1, 10.0),
    "loss.local_weight": Range(0.1, 10.0),
    "loss.sample_weight": Range(0.1, 10.0),
    "loss.contrastive_weight": Range(0.01, 10.0),
    "loss.reconstruction_weight": Range(0.01, 10.0),
    "warm_start.ridge": Range(0.1, 30.0),
    "head.ridge": Range(0.1, 30.0),
}
# Plain CCA is what papers report because of its ridge; tuned, it would be another method.
DEFINED_BY = {"cca": {"ridge"}}


def space(contender: Contender) -> dict[str, Range]:
    """Dotted setting -> range, of the settings that the contender has and that matter to it.

    A part that its settings switch off stays off: its weight is not tuned, nor what only it reads.
    """
    if contender.reads_labels:
        return {}
    method = get_method(contender.method)
    config = method.from_settings(contender.settings, contender.preset).config
    value = {dotted: flatten(config)[flat] for flat, dotted in dotted_names(method.Config).items()}
    without = set(DEFINED_BY.get(contender.method, ()))
    without |= {name for name in RANGES if name.endswith("_weight") and value.get(name) == 0}
    without |= {name for name in ("ridge", "warm_start.ridge", "k") if value.get(name) == 0}  # chosen in the fit
    if value.get("view.kind") == "linear":
        without.add("view.bandwidth")
    if value.get("head.final") == "none" and not value.get("head.refresh"):
        without.add("head.ridge")
    if value.get("warm_start.kind", "none") == "none":
        without |= {"warm_start.ridge", "network.branch_scale"}
    return {name: bounds for name, bounds in RANGES.items() if name in value and name not in without}


def defaults(contender: Contender, names: Any) -> dict[str, Any]:
    """The contender's own values of the named settings."""
    method = get_method(contender.method)
    config = method.from_settings(contender.settings, contender.preset).config
    return {dotted: flatten(config)[flat] for flat, dotted in dotted_names(method.Config).items() if dotted in names}
