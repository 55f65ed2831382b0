"""Every setting of every method, with its help, its bounds and its default.

The nested form is what configuration files, ``--set loss.tau=0.1`` and artefacts use; ``flatten`` gives the flat form
of the Python constructors (``loss_tau=0.1``). Unknown keys are refused. ``PRESETS`` names complete settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from hscmae.errors import InputError

Positive = Annotated[int, Field(gt=0)]
Dimension = Annotated[int, Field(gt=0, le=4096)]  # covariances of embeddings are kept and decomposed
Share = Annotated[float, Field(ge=0, le=1)]
MIN_STEPS = 200
Weight = Annotated[float, Field(ge=0)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class View(Section):
    """What a network is trained on."""

    kind: Literal["linear", "kernel"] = Field(
        "linear", description="standardised values, or components of a kernel on them, their sizes kept"
    )
    bandwidth: float = Field(1.0, gt=0, description="of the kernel, relative to the median squared distance")
    linear: float = Field(0.1, ge=0, description="weight of the linear kernel beside the Gaussian one")
    landmarks: Positive = Field(1024, description="training rows that the kernel is approximated by")
    rank: Positive = Field(512, description="leading components of the kernel that are kept")


class Network(Section):
    """Encoder f_m, decoder g_m and the nonlinear branch."""

    width: Positive = Field(512, description="hidden width of encoders and decoders")
    depth: Positive = Field(1, description="layers of each encoder")
    decoder_depth: Positive = Field(1, description="layers of each decoder")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of hidden units dropped in training")
    branch_scale: float = Field(1.0, gt=0, description="factor on the nonlinear branch beside a warm start")


class Masking(Section):
    """MAE path."""

    ratio: float = Field(0.5, ge=0, lt=1, description="share of each sample's values hidden from the student")
    spread: float = Field(
        0.4, ge=0, le=0.5, description="how far a sample's own ratio, drawn at random, may lie from it; 0: all alike"
    )
    steps_ratio: float = Field(0.0, ge=0, lt=1, description="share of a sequence's whole steps hidden from the student")


class Teacher(Section):
    """EMA teacher."""

    decay: float = Field(0.99, ge=0, le=1, description="decay at the start; rises to 1 along a cosine; 0 copies")


class Affinity(Section):
    """Local level: which neighbours the teacher mines, and how a sample's own pair is treated."""

    source: Literal["batch", "queue", "train"] = Field("batch", description="where neighbours are mined")
    keys: Literal["student", "teacher"] = Field(
        "student",
        description="what the student is compared with: its other modality, or the teacher's fused embeddings",
    )
    k: Positive = Field(50, description="neighbours a sample")
    tau_teacher: float = Field(0.1, gt=0, description="temperature of the soft positives")
    pair_share: Share = Field(0.0, description="weight of a sample's own pair among its positives")
    mask_pair: bool = Field(False, description="take a sample's own pair out of the denominator")
    queue_size: Positive = Field(4096, description="past teacher embeddings kept, for source queue")
    refresh: Positive = Field(20, description="steps between refreshes of the memory, for source train")
    warmup: int = Field(0, ge=0, description="steps over which local level and distillation are brought in")

    @model_validator(mode="after")
    def _one_treatment(self) -> Affinity:
        if self.mask_pair and self.pair_share > 0:
            raise ValueError("mask_pair leaves the own pair out of the denominator: pair_share must be 0")
        return self


class Loss(Section):
    """Weights, temperatures and forms of the losses; a weight of 0 removes the part."""

    global_weight: Weight = Field(1.0, description="global level: deep CCA")
    local_weight: Weight = Field(1.0, description="local level: affinity-weighted InfoNCE")
    sample_weight: Weight = Field(1.0, description="sample level: masked reconstruction")
    cross_weight: Weight = Field(0.0, description="reconstruction of each modality from the other's masked features")
    distill_weight: Weight = Field(0.0, description="distillation of the teacher into the masked student")
    learn_weights: bool = Field(True, description="learn the weights, starting from those given")
    tau: float = Field(0.2, gt=0, description="temperature of the student's InfoNCE")
    ridge: float = Field(1e-2, gt=0, description="ridge of the deep CCA loss, relative to the mean eigenvalue")
    correlation: Literal["singular", "frobenius"] = Field("singular", description="form of the deep CCA loss")
    distillation: Literal["cosine", "relational"] = Field("relational", description="form of the distillation")

    @model_validator(mode="after")
    def _something_to_learn(self) -> Loss:
        if not any(getattr(self, name) for name in type(self).model_fields if name.endswith("_weight")):
            raise ValueError("every weight is 0: nothing is left to learn")
        return self


class WarmStart(Section):
    """Canonical warm start."""

    kind: Literal["none", "ridge", "smoothed"] = Field(
        "smoothed", description="closed form that the network starts from"
    )
    ridge: float = Field(0.0, ge=0, description="ridge relative to the mean eigenvalue; 0: chosen on held-out pairs")
    k: int = Field(0, ge=0, description="neighbours a row, for smoothed; 0: a tenth of the rows, 50 to 200")
    tau: float = Field(0.1, gt=0, description="temperature of the affinities, for smoothed")


class Head(Section):
    """CCA head on the embeddings."""

    final: Literal["none", "ridge", "smoothed"] = Field(
        "none", description="head fitted on the teacher's clean training embeddings: by ridge CCA, or smoothed too"
    )
    ridge: float = Field(1.0, gt=0, description="ridge relative to the mean eigenvalue")
    refresh: int = Field(0, ge=0, description="steps between fits of a head inside the local level; 0: none")

    @field_validator("final", mode="before")
    @classmethod
    def _once_a_switch(cls, value: Any) -> Any:
        # Models and settings of before there were two kinds.
        return {False: "none", True: "ridge"}[value] if isinstance(value, bool) else value


class Anchors(Section):
    """Neighbourhood attention at the end: an embedding leans towards the training clips that it is close to."""

    share: Share = Field(0.0, description="share of the attended anchors in an embedding; 0: no anchors")
    rows: Positive = Field(2048, description="training clips kept as anchors")
    tau: float = Field(0.1, gt=0, description="temperature of the attention")


class Training(Section):
    """The optimiser, the batches, and the label-free choice of the number of steps."""

    epochs: Positive = Field(20, description="passes over the training rows, where steps is 0")
    steps: int = Field(0, ge=0, description="steps of a full run; 0: those of the epochs, at least 200")
    batch_size: Annotated[int, Field(ge=2)] = Field(512, description="complete pairs a step")
    shuffle_block: int = Field(0, ge=0, description="rows read in a run, for data on slow disks; 0: full shuffle")
    lr: float = Field(3e-3, gt=0, description="peak learning rate of AdamW")
    weight_decay: float = Field(1e-2, ge=0, description="decoupled weight decay")
    warmup: int = Field(10, ge=0, description="steps of linear warm-up; a cosine decay follows")
    grad_clip: float = Field(5.0, gt=0, description="largest norm of the gradient")
    validation_share: float = Field(1 / 7, ge=0, lt=1, description="pairs held out to choose the step; 0: none")
    evaluations: Positive = Field(20, description="times a run is logged and, on held-out pairs, measured")
    patience: Positive = Field(10, description="measurements without improvement before the choice is made")
    refit: bool = Field(True, description="after choosing, train again on all training rows for the chosen steps")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="type of the matrix products; auto: bfloat16 where the machine is quicker in it"
    )
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    checkpoint_seconds: float = Field(20.0, ge=0, description="least time between checkpoints")

    def planned_steps(self, rows: int, least: int = MIN_STEPS) -> int:
        """Steps of a full run over ``rows`` training rows, where the settings do not say: so many at ``least``."""
        return self.steps or max(least, self.epochs * (rows // min(rows, self.batch_size)))


class MethodConfig(Section):
    """What every method has."""

    dim: Dimension = Field(64, description="embedding dimension")
    seed: int = Field(0, ge=0, description="seed of every random draw")
    pooling: Literal["mean", "max", "attention"] = Field("mean", description="how sequences become vectors")
    anchors: Anchors = Anchors()


class LinearConfig(MethodConfig):
    """What every closed form has: nothing in it could learn attention."""

    pooling: Literal["mean", "max"] = Field("mean", description="how sequences become vectors")


class DeepConfig(MethodConfig):
    """What every method that trains a network has."""

    view: View = View()
    network: Network = Network()
    head: Head = Head()
    training: Training = Training()


class HSCMAEConfig(DeepConfig):
    """All settings of HSC-MAE."""

    view: View = View(kind="kernel")
    masking: Masking = Masking()
    teacher: Teacher = Teacher()
    affinity: Affinity = Affinity()
    loss: Loss = Loss()
    warm_start: WarmStart = WarmStart()
    head: Head = Head(final="smoothed", ridge=0.7)
    anchors: Anchors = Anchors(share=0.6)
    training: Training = Training(patience=5)
    weigh_pairs: bool = Field(True, description="count a pair by the chance that it is right")


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with the settings of ``over`` in its place, section by section."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


PAPER: dict[str, Any] = {
    "weigh_pairs": False,
    "view": {"kind": "linear"},
    "network": {"width": 512, "depth": 2},
    "masking": {"ratio": 0.3, "spread": 0.0},
    "teacher": {"decay": 0.99},
    "affinity": {
        "source": "batch",
        "keys": "student",
        "k": 5,
        "tau_teacher": 0.1,
        "pair_share": 0.0,
        "mask_pair": False,
    },
    "loss": {"tau": 0.1, "learn_weights": True},
    "warm_start": {"kind": "none"},
    "head": {"final": "ridge", "ridge": 1.0},
    "anchors": {"share": 0.0},
    "training": {"lr": 1e-3, "patience": 10},
}
# Chosen without labels on 1,303 YouTube-8M clips: `hscmae tune FILE --preset paper --set network.depth=1 --trials 10`;
# the warm-up of the local level by the ablation of docs/paper.md.
TUNED: dict[str, Any] = {
    "network": {"depth": 1, "dropout": 0.27},
    "masking": {"ratio": 0.76},
    "affinity": {"k": 5, "tau_teacher": 0.038, "warmup": 100},
    "loss": {"tau": 0.2, "ridge": 0.039, "global_weight": 0.69, "local_weight": 0.47, "sample_weight": 1.76},
    "head": {"ridge": 1.2},
    "training": {"lr": 6e-3},
}
PRESETS: dict[str, dict[str, Any]] = {"default": {}, "paper": PAPER, "paper-tuned": merge(PAPER, TUNED)}

C = TypeVar("C", bound=MethodConfig)


def flatten(config: MethodConfig) -> dict[str, Any]:
    """Nested settings as flat parameters: ``loss.tau`` becomes ``loss_tau``."""
    flat: dict[str, Any] = {}
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, Section):
            flat |= {f"{name}_{leaf}": getattr(value, leaf) for leaf in type(value).model_fields}
        else:
            flat[name] = value
    return flat


def describe(model: type[MethodConfig]) -> dict[str, tuple[Any, Any, str]]:
    """Flat parameter name -> (type, default, help) of every setting of a method."""
    found: dict[str, tuple[Any, Any, str]] = {}
    for name, info in model.model_fields.items():
        value = info.get_default()
        leaves = type(value).model_fields.items() if isinstance(value, Section) else ()
        found |= {f"{name}_{leaf}": (i.annotation, getattr(value, leaf), i.description or "") for leaf, i in leaves}
        if not isinstance(value, Section):
            found[name] = (info.annotation, value, info.description or "")
    return found


def dotted_names(model: type[MethodConfig]) -> dict[str, str]:
    """Flat parameter name -> dotted name of every setting of a method."""
    names: dict[str, str] = {}
    for name, info in model.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, Section):
            names |= {f"{name}_{leaf}": f"{name}.{leaf}" for leaf in info.annotation.model_fields}
        else:
            names[name] = name
    return names


def nest(model: type[MethodConfig], flat: Mapping[str, Any]) -> dict[str, Any]:
    """Flat or dotted parameters as nested settings.

    Raises:
        InputError: a name that the method does not have, with the nearest that it has.
    """
    by_flat = dotted_names(model)
    known = by_flat | {dotted: dotted for dotted in by_flat.values()}
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        if name not in known:
            raise InputError(f"unknown setting {name!r}{_suggestion(name, known)}")
        section, _, leaf = known[name].rpartition(".")
        if section:
            nested.setdefault(section, {})[leaf] = value
        else:
            nested[leaf] = value
    return nested


def build(model: type[C], settings: Mapping[str, Any], origin: str = "settings") -> C:
    """Validate nested settings; those not given are the model's own defaults, also within a section that is given.

    Raises:
        InputError: one line that names ``origin``, the setting and what is wrong with it.
    """
    try:
        return model.model_validate(merge(model().model_dump(), settings))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            known = [*dotted_names(model).values(), *model.model_fields]
            raise InputError(f"{origin}: unknown setting {name!r}{_suggestion(name, known)}") from None
        given = "" if name == "" or isinstance(first["input"], dict) else f", got {first['input']!r}"
        raise InputError(f"{origin}: {name}: {first['msg'].removeprefix('Value error, ')}{given}") from None


def _suggestion(name: str, known: Any) -> str:
    import difflib

    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
