"""``Method``: the one interface of HSC-MAE and every baseline, with scikit-learn manners.

A method is built from flat settings, fitted on pairs without their labels, embeds either modality alone into unit-norm
rows, and is saved as an artefact that holds no pickle.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hscmae.artifact import read_artifact, read_seen, replace_artifact, write_artifact
from hscmae.config import dotted_names, flatten
from hscmae.data.coercion import as_features
from hscmae.data.fingerprint import Fingerprint, fingerprint
from hscmae.data.pairs import BoolArray, Float64Array, FloatArray, IntArray, Pairs
from hscmae.data.pooling import How, pool_steps
from hscmae.data.recipe import Recipe
from hscmae.data.scaling import Standardizer
from hscmae.data.table import non_finite_rows
from hscmae.errors import InputError, describe_rows, first_line, printable
from hscmae.evaluation.selection import mutual_knn
from hscmae.linear.cca import Covariances
from hscmae.linear.smoothing import fuse
from hscmae.methods.estimator import Estimator
from hscmae.methods.moments import doubt, fit_scalers, raw_covariances, standardised
from hscmae.nn.anchors import attend
from hscmae.notebook import table
from hscmae.streams import generator
from hscmae.training.loop import Progress

Float32Array = npt.NDArray[np.float32]
BLOCK = 2048  # rows; small enough that one operation finds in the cache what the one before wrote
WITHOUT_DIRECTION = "values too large for float32, or none that the model sees,"
WITHOUT_INFLUENCE = ("training_checkpoint_seconds",)


class Method(Estimator, ABC):
    """Base of all methods.

    Attributes:
        dims_: modality -> feature dimension, once fitted, in the order of the data.
        scalers_: modality -> standardiser, once fitted.
        anchors_: fused embeddings of training clips, shape (m, dim), or ``None`` without anchors, once fitted.
        seen_: keys of the rows that it was fitted on, or ``None`` where they did not come with a loaded model.
        recipe_: how the features of training were extracted, see ``data.recipe``, where a run or an artefact says so.
        summary_: what fitting found out (chosen step, criterion, ...), once fitted.
    """

    takes_background: ClassVar[bool] = False

    dims_: dict[str, int]
    scalers_: dict[str, Standardizer]
    anchors_: Tensor | None
    summary_: dict[str, Any]
    seen_: Fingerprint | None = None
    recipe_: Recipe | None = None
    _raw_background: Covariances | None = None
    _chance: Float64Array | None = None  # of each pair that it is right, while fitting

    def fit(
        self,
        data: Pairs | Mapping[str, npt.ArrayLike],
        y: object = None,
        *,
        background: Pairs | Mapping[str, npt.ArrayLike] | None = None,
        run: Path | None = None,
        resume: bool = False,
        progress: Progress | None = None,
    ) -> Self:
        """Learn the common space from pairs. Labels are never looked at.

        Args:
            data: pairs, or a mapping of two modalities' names to arrays of shape (n, d_m), or (n, t, d_m) for
                sequences, which are pooled as the setting ``pooling`` says. Where the data has a split, its training
                rows are used, and its validation rows, if any, for choices.
            y: ignored; scikit-learn passes it.
            background: unlabelled pairs of other sources with the same features, of which every row is used: towards
                their covariances those of the training rows are drawn, the more the fewer training rows there are.
                Leave the test clips out of it. Taken by ridge CCA, smoothed CCA, and HSC-MAE for its warm start.
            run: folder for ``metrics.jsonl`` and checkpoints of methods that train step by step.
            resume: go on from the checkpoint in ``run``.
            progress: called with each logged record.

        Raises:
            InputError: not two modalities, values that are not finite, too few complete pairs, or a background that
                the method does not take or that has other features.
        """
        before = copy.copy(self.__dict__)
        try:
            self._fit_whole(Pairs.of(data).without_labels(), background, run=run, resume=resume, progress=progress)
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise
        return self

    def _fit_whole(
        self,
        pairs: Pairs,
        background: Pairs | Mapping[str, npt.ArrayLike] | None,
        *,
        run: Path | None,
        resume: bool,
        progress: Progress | None,
    ) -> None:
        if len(pairs.modalities) != 2:
            choose = f"; choose two: --modalities {','.join(pairs.modalities[:2])}" if len(pairs.modalities) > 2 else ""
            found = ", ".join(pairs.modalities) or "none"
            raise InputError(f"{pairs.source}: training needs two modalities, found {found}{choose}")
        rows = np.arange(len(pairs)) if pairs.split is None else pairs.rows_of("train")
        for m, x in pairs.features.items():
            _require_finite(x, pairs.present[m], f"{pairs.source}: {m}", rows, pairs.lengths.get(m))
        self.seen_ = fingerprint(pairs, rows=rows)
        vectors = pairs.usable(self.vector_pooling, among=rows)  # what is silence, test rows must not say
        pairs = replace(pairs, present=vectors.present) if self._keeps_steps else vectors
        complete = int(pairs.complete()[rows].sum())
        if complete < 8:
            raise InputError(f"{pairs.source}: {complete} complete training pairs are too few to learn from (8 needed)")
        self.dims_ = pairs.dims
        self.summary_ = {"rows": len(rows), "complete_pairs": complete}
        self._raw_background = None if background is None else self._background_covariances(Pairs.of(background))
        if getattr(self.config, "weigh_pairs", False):
            self._chance, told = doubt(pairs.pooled(), rows, self.config.seed)
            self.summary_ |= told
        self._fit(pairs, rows, run=run, resume=resume, progress=progress)
        self._raw_background = self._chance = None
        # As a file gives it back, row by row from an aligned address: other strides may round otherwise.
        self._restore({name: _as_loaded(value) for name, value in self._tensors().items()})
        self.anchors_ = self._fit_anchors(pairs, rows)

    def _repr_html_(self) -> str:
        rows: list[tuple[object, object]] = list(self.changed_params().items())
        fitted = self.__sklearn_is_fitted__()
        if fitted:
            rows += [(f"{m} features", d) for m, d in self.dims_.items()]
            rows += [(name, value) for name, value in self.summary_.items() if isinstance(value, (int, float, str))]
        return table(f"{type(self).__name__}, {'fitted' if fitted else 'not fitted'}", rows)

    def embed(
        self,
        modality: str,
        x: npt.ArrayLike,
        *,
        present: BoolArray | None = None,
        lengths: IntArray | None = None,
    ) -> Float32Array:
        """Embed rows of one modality; the other is not needed.

        Args:
            modality: its name.
            x: features as extracted (scaling is part of the model), shape (n, d_m), or (n, t, d_m) for sequences.
            present: which rows have the modality, shape (n,); the others become zero rows.
            lengths: valid steps of each sequence, shape (n,); all where not given. A row with none lacks the modality.

        Returns:
            Unit-norm embeddings, shape (n, dim), float32: their inner products are cosines.

        Raises:
            InputError: unknown modality, wrong shape, values that are not finite, or rows that get no direction:
                values whose squares float32 cannot hold, or nothing that the model sees.
        """
        self.require_fitted()
        if modality not in self.dims_:
            raise InputError(f"unknown modality {modality!r}; the model has {', '.join(self.dims_)}")
        rows = as_features(x, modality)
        if rows.ndim not in (2, 3) or rows.shape[-1] != self.dims_[modality]:
            raise InputError(f"{modality}: expected features of shape (n, {self.dims_[modality]}), got {rows.shape}")
        present = np.ones(len(rows), dtype=bool) if present is None else present
        if rows.ndim == 3:
            lengths = np.full(len(rows), rows.shape[1]) if lengths is None else np.asarray(lengths)
        z = self._embed_rows(modality, rows, present, lengths, check=True)
        if (lost := np.flatnonzero(np.isnan(z[:, 0]))).size:
            raise InputError(f"{modality}: {WITHOUT_DIRECTION} in {describe_rows(lost.tolist())}")
        return z

    def _embed_rows(
        self, modality: str, rows: FloatArray, present: BoolArray, lengths: IntArray | None, *, check: bool
    ) -> Float32Array:
        """Unit rows; zeros where the modality is not present, not a number where a row gets no direction."""
        if lengths is not None:
            present = present & (lengths > 0)
        out = np.zeros((len(rows), self.config.dim), dtype=np.float32)
        bad: list[int] = []
        for start in range(0, len(rows), BLOCK):
            x, keep = rows[start : start + BLOCK], present[start : start + BLOCK]
            steps = None if lengths is None else lengths[start : start + BLOCK]
            if check:
                bad += (non_finite_rows(x, keep, steps) + start).tolist()
            if not bad:
                out[start : start + BLOCK] = self._embed_block(modality, x, keep, steps)
        _refuse_non_finite(bad, modality)
        return out

    @torch.inference_mode()
    def _embed_block(self, modality: str, x: FloatArray, present: BoolArray, lengths: IntArray | None) -> Float32Array:
        """Embeddings of rows known to be finite where present; zeros elsewhere."""
        whole = bool(present.all())
        if not whole:
            x, lengths = x[present], None if lengths is None else lengths[present]
        unit: Float32Array = self.unit_rows(modality, self._vectors(modality, x, lengths)).cpu().numpy()
        if whole:
            return unit
        out = np.zeros((len(present), unit.shape[1]), dtype=np.float32)
        out[present] = unit
        return out

    def unit_rows(self, modality: str, vectors: Tensor) -> Tensor:
        """Embed standardised vectors, shape (n, d_m): all that follows scaling and pooling, as torch computes it.

        Returns:
            Unit rows, shape (n, dim), float32; not a number where a row gets no direction.
        """
        z = self._embed(modality, vectors).float()  # (n, dim)
        size = torch.linalg.vector_norm(z, dim=1)  # (n,)
        lost = (size == 0) | ~torch.isfinite(size) | ~torch.isfinite(torch.linalg.vector_norm(vectors, dim=1))
        if self.anchors_ is not None:
            z = attend(z, self.anchors_, tau=self.config.anchors.tau, share=self.config.anchors.share)
        return torch.nn.functional.normalize(z, dim=1).masked_fill(lost[:, None], torch.nan)

    def embed_pairs(self, data: Pairs | Mapping[str, FloatArray]) -> dict[str, Float32Array]:
        """Embeddings of every modality that the data has, by name."""
        pairs = Pairs.of(data)
        return {
            m: self.embed(m, x, present=pairs.present[m], lengths=pairs.lengths.get(m))
            for m, x in pairs.features.items()
        }

    def embed_checked(self, pairs: Pairs) -> dict[str, Float32Array]:
        """``embed_pairs`` of rows that are known to be finite where present, and are called by their ids in errors."""
        z = {
            m: self._embed_rows(m, x, pairs.present[m], pairs.lengths.get(m), check=False)
            for m, x in pairs.features.items()
        }
        for m, rows in z.items():
            if (lost := np.flatnonzero(np.isnan(rows[:, 0]))).size:
                clips = ", ".join(printable(name.decode("utf-8", "replace")) for name in pairs.ids[lost[:5]].tolist())
                more = f" and {lost.size - 5} more" if lost.size > 5 else ""
                raise InputError(
                    f"{pairs.source}: {m}: {WITHOUT_DIRECTION} in {'clip' if pairs.has_ids else 'row'} {clips}{more}"
                )
        return z

    def score(self, data: Pairs | Mapping[str, FloatArray], y: object = None) -> float:
        """Mutual k-NN agreement of the complete pairs of ``data``, in [0, 1]: higher is better, no labels needed."""
        pairs = Pairs.of(data)
        pairs = pairs.take(np.flatnonzero(pairs.usable(self.vector_pooling).complete()))
        first, second = self.embed_pairs(pairs).values()
        return mutual_knn(first, second)

    def trained_on(self, pairs: Pairs) -> BoolArray | None:
        """Which rows the model was trained on, known again by id or content, shape (n,).

        ``None`` where the keys of the training rows did not come with a loaded model.
        """
        return None if self.seen_ is None else fingerprint(pairs, list(self.dims_)).among(self.seen_)

    def uses_seed(self, rows: int) -> bool:
        """Whether the seed can change the solution on ``rows`` training rows; if not, one fit says all."""
        return True

    def save(self, folder: str | Path) -> None:
        """Write the artefact: ``model.safetensors``, ``config.json`` and a model card; see ``artifact``.

        A model that is there is replaced once the new one is whole.

        Raises:
            InputError: not fitted; ``folder`` holds anything but a model.
        """
        replace_artifact(Path(folder), *self.packed())

    def packed(
        self, data: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Tensor]]:
        """What an artefact holds: its configuration, the weights, and keys of the training rows.

        Args:
            data: what it was trained on, for the record: source, split, holdout, excluded ids.
        """
        self.require_fitted()
        config = {
            "method": self.name,
            "preset": self.preset,
            "settings": self.config.model_dump(),
            "modalities": {m: {"dim": d} for m, d in self.dims_.items()},
            "training": self.summary_,
            "data": dict(data or {}),
        }
        if self.recipe_ is not None:
            config["recipe"] = dict(self.recipe_)
        tensors = dict(self._tensors())
        for m, scaler in self.scalers_.items():
            tensors[f"scaler/mean/{m}"] = torch.from_numpy(scaler.mean)
            tensors[f"scaler/scale/{m}"] = torch.from_numpy(scaler.scale)
        if self.anchors_ is not None:
            tensors["anchors"] = self.anchors_
        seen = {} if self.seen_ is None else {"content": self.seen_.content, "ids": self.seen_.ids}
        return config, tensors, {name: torch.from_numpy(keys) for name, keys in seen.items() if keys is not None}

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read an artefact of this method; ``hscmae.load`` reads one of any.

        Raises:
            InputError: not an artefact, damaged, or of another method.
        """
        folder = Path(folder)
        config, tensors = read_artifact(folder)
        if config.get("method") != cls.name:
            raise InputError(f"{folder}: holds a model of method {config.get('method')}, not {cls.name}")
        method = cls.from_settings(config["settings"])
        method.preset = config.get("preset", "default")
        try:
            method.dims_ = {m: int(entry["dim"]) for m, entry in config["modalities"].items()}
            method.scalers_ = {
                m: Standardizer(tensors[f"scaler/mean/{m}"].numpy(), tensors[f"scaler/scale/{m}"].numpy())
                for m in method.dims_
            }
            method.summary_ = dict(config.get("training", {}))
            kept = method.config.anchors.share and method.summary_.get("anchors", True)
            method.anchors_ = tensors["anchors"] if kept else None
            method._restore(tensors)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise InputError(f"{folder}: weights do not fit the settings ({first_line(error)})") from None
        method.seen_, method.recipe_ = load_seen(folder), config.get("recipe")
        return method

    def __getstate__(self) -> dict[str, Any]:
        """What ``pickle`` and ``joblib`` keep: the files of the artefact where it is fitted, else the settings."""
        if not hasattr(self, "dims_"):
            return {"params": self.get_params()}
        with TemporaryDirectory() as place:
            write_artifact(Path(place), *self.packed())
            return {"files": {file.name: file.read_bytes() for file in sorted(Path(place).iterdir())}}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        if "params" in state:
            fresh = type(self)(**state["params"])
        else:
            with TemporaryDirectory() as place:
                for name, content in state["files"].items():
                    (Path(place) / Path(name).name).write_bytes(content)
                fresh = self.load(place)
        self.__dict__.update(fresh.__dict__)

    def require_same_settings(self, before: Mapping[str, Any], where: Path) -> None:
        """Refuse to go on with a run that had other settings.

        Raises:
            InputError: names the first setting that differs.
        """
        dotted = dotted_names(self.Config)
        for name, value in flatten(self.config).items():
            if name not in WITHOUT_INFLUENCE and before.get(name) != value:
                raise InputError(
                    f"{where}: was trained with {dotted[name]}={before.get(name)!r}, not {value!r}; "
                    "leave the settings as they were, or use another output"
                )

    def require_modalities(self, pairs: Pairs) -> None:
        """Refuse data that lacks one of the method's modalities, or has other dimensions.

        Raises:
            InputError: names the data and the modality.
        """
        self.require_fitted()
        missing = [m for m in self.dims_ if m not in pairs.features]
        if missing:
            raise InputError(f"{pairs.source}: has no {' and no '.join(missing)}, which the model was trained on")
        for m, dim in self.dims_.items():
            if pairs.dims[m] != dim:
                raise InputError(f"{pairs.source}: {m} has {pairs.dims[m]} dimensions, the model {dim}")

    def require_fitted(self) -> None:
        """Refuse to go on without a fit.

        Raises:
            InputError: there was none.
        """
        if not hasattr(self, "dims_"):
            raise InputError(f"this {type(self).__name__} is not fitted yet: call fit first")

    @property
    def _keeps_steps(self) -> bool:
        """Whether training is given sequences as they are, rather than pooled beforehand."""
        return False

    @property
    def vector_pooling(self) -> How:
        """The pooling outside the network; learned attention begins as the mean."""
        return "max" if self.config.pooling == "max" else "mean"

    def _vectors(self, modality: str, x: FloatArray, lengths: IntArray | None) -> Tensor:
        """Standardised vectors (n, d) from features (n, d), or from sequences (n, t, d) and their lengths (n,)."""
        if x.ndim == 3 and lengths is not None:
            x = pool_steps(x, lengths, self.vector_pooling)
        return torch.from_numpy(self.scalers_[modality].apply(x))

    def _fit_scalers(self, pairs: Pairs, rows: npt.NDArray[np.intp]) -> dict[str, Standardizer]:
        return fit_scalers(pairs, rows, self.vector_pooling, self._raw_background)

    def _background(self) -> Covariances | None:
        """Covariances of the background pairs in the units of the fit, if any were given."""
        return None if self._raw_background is None else standardised(self._raw_background, self.scalers_)

    def _background_covariances(self, background: Pairs) -> Covariances:
        if not self.takes_background:
            raise InputError(f"{self.name} takes no background pairs")
        if background.dims != self.dims_:
            raise InputError(f"{background.source}: background of {background.dims}, training pairs of {self.dims_}")
        rows = np.arange(len(background))
        for m, x in background.features.items():
            _require_finite(x, background.present[m], f"{background.source}: {m}", rows, background.lengths.get(m))
        background = background.usable(self.vector_pooling)
        complete = int(background.complete().sum())
        if not complete:
            raise InputError(f"{background.source}: the background has no complete pairs")
        self.summary_["background_pairs"] = complete
        return raw_covariances(background, rows, self.vector_pooling)

    @torch.no_grad()
    def _fit_anchors(self, pairs: Pairs, rows: npt.NDArray[np.intp]) -> Tensor | None:
        if not self.config.anchors.share:
            return None
        rows = rows[pairs.complete()[rows]]
        drawn = torch.randperm(len(rows), generator=generator(self.config.seed, "anchors"))[: self.config.anchors.rows]
        rows = rows[np.sort(drawn.numpy())]
        z = {}
        for m in pairs.modalities:
            lengths = pairs.lengths[m][rows] if m in pairs.lengths else None
            z[m] = self._embed(m, self._vectors(m, pairs.features[m][rows], lengths)).float()
        return fuse(z)

    @abstractmethod
    def _fit(
        self, pairs: Pairs, rows: npt.NDArray[np.intp], *, run: Path | None, resume: bool, progress: Progress | None
    ) -> None:
        """Learn from the training ``rows`` of ``pairs``; set ``scalers_``."""

    @abstractmethod
    def _embed(self, modality: str, x: Tensor) -> Tensor:
        """Embed standardised rows, (n, d_m) -> (n, dim), of any norm."""

    @abstractmethod
    def _tensors(self) -> dict[str, Tensor]:
        """What the artefact stores beside the scalers."""

    @abstractmethod
    def _restore(self, tensors: dict[str, Tensor]) -> None:
        """Take back what ``_tensors`` gave."""


def load_seen(folder: Path) -> Fingerprint | None:
    """Keys of the rows that the model in ``folder`` was trained on, or ``None`` where they did not come with it."""
    seen = read_seen(folder)
    if seen is None:
        return None
    try:
        return Fingerprint(seen["content"].numpy(), seen["ids"].numpy() if "ids" in seen else None)
    except KeyError as error:
        raise InputError(f"{folder}: the keys of its training rows are damaged (no {error})") from None


def _as_loaded(value: Tensor) -> Tensor:
    return value.detach().clone(memory_format=torch.contiguous_format)


def _require_finite(
    x: FloatArray, present: BoolArray, what: str, rows: npt.NDArray[np.intp], lengths: IntArray | None
) -> None:
    bad: list[int] = []
    for start in range(0, len(x), BLOCK):
        here = slice(start, start + BLOCK)
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite in it
            block = np.asarray(x[here]).astype(np.float16 if x.dtype == np.float16 else np.float32, copy=False)
        found = non_finite_rows(block, present[here], None if lengths is None else lengths[here])
        bad += (found + start).tolist()
    _refuse_non_finite(np.intersect1d(bad, rows).tolist(), what)


def _refuse_non_finite(rows: list[int], what: str) -> None:
    if rows:
        raise InputError(f"{what}: values that are not finite in {describe_rows(rows)}")
