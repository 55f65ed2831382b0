"""Paired features made from scratch, with known truth: for tests, benchmarks and the smallest possible example.

A clip has some events, each of a class and of a kind within the class; an event is heard and seen, only heard (off
screen) or only seen (a silent object). Each modality mixes its events nonlinearly with a background scene that both
modalities share but that means nothing, with a few private directions of large, heavy-tailed variance (loudness,
light, camera), and with noise. Classes come in families that are hard to tell apart, other families by ear than by
eye. Audio is non-negative and sparse as VGGish is; visual is signed with a falling spectrum as PCA-ed Inception is.
Some training pairs are wrong: their audio belongs to another clip. Test pairs are all right.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from hscmae.data.pairs import BoolArray, Labels, Pairs
from hscmae.errors import InputError

Float = npt.NDArray[np.float64]
Int = npt.NDArray[np.intp]

DIMS: Mapping[str, int] = MappingProxyType({"audio": 128, "visual": 1024})
LATENT = 64  # dimensions in which events, scenes and nuisances of one modality add up
KINDS = 3  # kinds within a class (lapdog, hound): shared by both modalities
SCENES = 8
NUISANCES = 6


@dataclass(frozen=True, eq=False)
class SyntheticPairs:
    """Made-up pairs and the truth about each row, which no method is given.

    Attributes:
        pairs: features, ids, labels (the events of the clip, at least one) and the split into train and test.
        wrong: rows whose audio (first modality) belongs to another clip, shape (n,); never a test row. The labels
            stay those of the clip that gave the other modality.
        silent: rows whose first modality is the one vector of silence, shape (n,).
        scene: the meaningless background of each clip, shape (n,).
    """

    pairs: Pairs
    wrong: BoolArray
    silent: BoolArray
    scene: Int


def synthetic_pairs(
    n: int = 2000,
    *,
    classes: int = 12,
    dims: Mapping[str, int] = DIMS,
    events: tuple[int, int] = (1, 3),
    offscreen: float = 0.2,
    wrong_pairs: float = 0.1,
    background: float = 1.0,
    noise: float = 1.0,
    silent: float = 0.02,
    test_share: float = 0.2,
    seed: int = 0,
) -> SyntheticPairs:
    """Make ``n`` pairs of features with known truth; the same arguments give the same values.

    Args:
        n: number of clips, at least 2.
        classes: number of event classes; they differ in frequency by a factor of up to two.
        dims: the two modalities' names and dimensions; the first is treated as audio (sparse, may be silent).
        events: least and largest number of events in a clip; each further event is half as likely as the one before.
        offscreen: chance that an event lacks one of the modalities, either one alike; the strongest event of a clip
            lacks one half as often.
        wrong_pairs: share of the training pairs whose audio is another training clip's.
        background: size of the scene that both modalities share without meaning; 0 for none.
        noise: size of the noise of the single feature.
        silent: share of all clips whose audio is silence.
        test_share: share of the clips in the test split.
        seed: seeds everything, the classes' looks and sounds included.

    Returns:
        The pairs (float32) and their truth.

    Raises:
        InputError: a number or share out of range.

    >>> made = synthetic_pairs(100, seed=1)
    >>> made.pairs.dims, len(made.pairs.of_split("test")), int(made.wrong.sum())
    ({'audio': 128, 'visual': 1024}, 20, 8)
    """
    shares = {"offscreen": offscreen, "wrong_pairs": wrong_pairs, "silent": silent, "test_share": test_share}
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise InputError(f"synthetic_pairs: {name} must lie in [0, 1], got {share}")
    if n < 2 or classes < 1 or len(dims) != 2 or min(dims.values()) < 1:
        raise InputError("synthetic_pairs: needs n >= 2, classes >= 1 and two modalities of dimension >= 1")
    if not 1 <= events[0] <= events[1] <= classes:
        raise InputError(f"synthetic_pairs: events must satisfy 1 <= least <= most <= classes, got {events}")

    world, clips, faults = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(3))
    member, kind, strength = _draw_events(clips, n, classes, events)
    absent = _draw_absences(clips, member, strength, offscreen)
    scene = clips.integers(SCENES, size=n)
    scene_strength = background * clips.lognormal(0.0, 0.3, n)

    features: dict[str, Float] = {}
    for place, (name, dim) in enumerate(dims.items()):
        heard = np.where(absent[place], 0.0, strength)  # (n, classes)
        latent = _latent(world, clips, heard, kind, scene, scene_strength)
        features[name] = (_sparse if place == 0 else _signed)(world, clips, latent, dim, noise)

    is_test = np.zeros(n, dtype=bool)
    is_test[faults.permutation(n)[: round(test_share * n)]] = True
    is_silent = np.zeros(n, dtype=bool)
    is_silent[faults.permutation(n)[: round(silent * n)]] = True
    first = next(iter(dims))
    features[first][is_silent] = np.maximum(world.normal(0.0, 0.2, dims[first]), 0.0)

    # A cycle through the chosen rows: each gets another clip's audio, none keeps its own.
    train = np.flatnonzero(~is_test)
    chosen = faults.permutation(train)[: round(wrong_pairs * len(train))]
    is_wrong = np.zeros(n, dtype=bool)
    if len(chosen) > 1:
        is_wrong[chosen] = True
        source = np.arange(n)
        source[chosen] = np.roll(chosen, 1)
        features[first] = features[first][source]
        is_silent = is_silent[source]

    rows, indices = np.nonzero(member)
    indptr = np.searchsorted(rows, np.arange(n + 1)).astype(np.int64)
    names = tuple(f"event{c:02d}" for c in range(classes))
    pairs = Pairs(
        {name: x.astype(np.float32) for name, x in features.items()},
        ids=np.array([f"clip{i:06d}" for i in range(n)], dtype=np.bytes_),
        labels=Labels(indices.astype(np.int64), indptr, names),
        split=np.where(is_test, b"test", b"train"),
        source=f"synthetic pairs, seed {seed}",
    )
    return SyntheticPairs(pairs, is_wrong, is_silent, scene)


def _draw_events(
    rng: np.random.Generator, n: int, classes: int, events: tuple[int, int]
) -> tuple[BoolArray, Int, Float]:
    """Which classes each clip has, of which kind, and how strong: three arrays of shape (n, classes)."""
    least, most = events
    chances = 0.5 ** np.arange(most - least + 1)
    count = rng.choice(np.arange(least, most + 1), size=n, p=chances / chances.sum())
    frequency = np.linspace(2.0, 1.0, classes)
    # Gumbel trick: ranking log-frequency + Gumbel noise draws classes without replacement.
    order = np.argsort(-(np.log(frequency) + rng.gumbel(size=(n, classes))), axis=1)
    rank = np.argsort(order, axis=1)
    member = rank < count[:, None]
    kind = rng.integers(KINDS, size=(n, classes))
    strength = np.where(member, rng.lognormal(0.0, 0.35, (n, classes)), 0.0)
    return member, kind, strength


def _draw_absences(
    rng: np.random.Generator, member: BoolArray, strength: Float, offscreen: float
) -> tuple[BoolArray, BoolArray]:
    """Events that the first and that the second modality lack; the strongest event lacks one half as often."""
    strongest = np.arange(member.shape[1]) == strength.argmax(axis=1)[:, None]
    lacking = member & (rng.random(member.shape) < np.where(strongest, offscreen / 2, offscreen))
    in_first = rng.random(member.shape) < 0.5
    return lacking & in_first, lacking & ~in_first


def _latent(
    world: np.random.Generator,
    clips: np.random.Generator,
    strength: Float,
    kind: Int,
    scene: Int,
    scene_strength: Float,
) -> Float:
    """Sum of a clip's events, scene and nuisances in one modality, shape (n, LATENT)."""
    n, classes = strength.shape
    family = world.permutation(classes) // 3  # members of a family are alike in this modality
    prototype = world.normal(size=(classes, LATENT)) + world.normal(size=(classes, LATENT))[family]
    kinds = prototype[:, None] + 0.8 * world.normal(size=(classes, KINDS, LATENT))
    spread = world.normal(size=(classes, 4, LATENT))  # directions in which events of a class vary
    latent = np.zeros((n, LATENT))
    for c in range(classes):
        rows = np.flatnonzero(strength[:, c])
        event = kinds[c, kind[rows, c]] + 0.4 * clips.standard_t(5, (len(rows), 4)) @ spread[c]
        latent[rows] += 1.3 * strength[rows, c, None] * event
    latent += scene_strength[:, None] * world.normal(size=(SCENES, LATENT))[scene]
    nuisance = world.normal(size=(NUISANCES, LATENT))
    return latent + 0.8 * clips.standard_t(4, (n, NUISANCES)) @ nuisance


def _hidden(world: np.random.Generator, latent: Float, width: int) -> Float:
    """A saturating random layer, shape (n, width)."""
    weights = world.normal(size=(LATENT, width)) / np.sqrt(LATENT)
    hidden: Float = np.tanh(0.25 * latent @ weights + 0.3 * world.normal(size=width))
    return hidden


def _sparse(world: np.random.Generator, clips: np.random.Generator, latent: Float, dim: int, noise: float) -> Float:
    """Non-negative features of which about half are 0, as after a ReLU."""
    hidden = _hidden(world, latent, 2 * LATENT)
    drive = hidden @ world.normal(size=(2 * LATENT, dim)) / np.sqrt(2 * LATENT)
    drive += 0.35 * noise * clips.normal(size=drive.shape)
    features: Float = np.maximum(drive + world.normal(-0.05, 0.15, dim), 0.0) * world.lognormal(0.0, 0.5, dim)
    return features


def _signed(world: np.random.Generator, clips: np.random.Generator, latent: Float, dim: int, noise: float) -> Float:
    """Signed features whose scale falls over the dimensions, as after a PCA."""
    hidden = _hidden(world, latent, 4 * LATENT)
    mixed = hidden @ world.normal(size=(4 * LATENT, dim)) / np.sqrt(4 * LATENT)
    mixed += 0.5 * noise * clips.standard_t(5, mixed.shape)
    features: Float = mixed * (1.0 + 9.0 * np.arange(dim) / dim) ** -0.5
    return features
