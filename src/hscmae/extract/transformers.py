"""Any checkpoint of ``transformers``: AST and CLAP for sound, CLIP, SigLIP and DINOv2 for pictures.

``transformers:ID`` takes an id on the Hugging Face hub or a local folder; weights are read from safetensors alone, and
no code that comes with a checkpoint is run. Pictures are brought to size as the checkpoint's own image processor says;
sounds longer than a model hears at once are cut into equal parts and averaged.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hscmae.errors import InputError
from hscmae.extract.base import AudioExtractor, Extractor, Float, VisualExtractor, in_batches
from hscmae.extract.media import Fit
from hscmae.extract.weights import sha256
from hscmae.extras import require

GPU_BATCH = 64


@dataclass(frozen=True)
class Kind:
    """How a type of model is used: its modality, its class, and which of its outputs is the vector."""

    modality: str
    model: str
    output: str


KINDS = {
    "audio-spectrogram-transformer": Kind("audio", "ASTModel", "pooler_output"),
    "clap": Kind("audio", "ClapAudioModelWithProjection", "audio_embeds"),
    "clap_audio_model": Kind("audio", "ClapAudioModelWithProjection", "audio_embeds"),
    "clip": Kind("visual", "CLIPVisionModelWithProjection", "image_embeds"),
    "clip_vision_model": Kind("visual", "CLIPVisionModelWithProjection", "image_embeds"),
    "siglip": Kind("visual", "SiglipVisionModel", "pooler_output"),
    "siglip_vision_model": Kind("visual", "SiglipVisionModel", "pooler_output"),
    "dinov2": Kind("visual", "Dinov2Model", "pooler_output"),
}
RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}


class _Checkpoint:
    """A model on its device, its vector of a batch, and its fingerprint."""

    def __init__(self, name: str, kind: Kind, model: torch.nn.Module, fingerprint: str) -> None:
        self.name, self.kind, self.sha256 = name, kind, fingerprint
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = model.eval().to(self.device)
        self.batch = GPU_BATCH if self.device.type == "cuda" else 1

    @torch.inference_mode()
    def run(self, **inputs: torch.Tensor) -> Float:
        found = self.model(**{name: value.to(self.device) for name, value in inputs.items()})
        vectors: Float = getattr(found, self.kind.output).float().cpu().numpy()
        return vectors


class TransformersVisual(VisualExtractor):
    """A vector a picture."""

    def __init__(self, checkpoint: _Checkpoint, processor: Any) -> None:
        self.name, self.checkpoint = f"transformers:{checkpoint.name}", checkpoint
        self.windows_at_once = 8 if checkpoint.batch > 1 else 1
        self.fit = _fit(checkpoint.name, processor)
        scale = processor.rescale_factor if processor.do_rescale else 1.0
        mean = np.array(processor.image_mean if processor.do_normalize else [0.0] * 3, np.float32)
        deviation = np.array(processor.image_std if processor.do_normalize else [1.0] * 3, np.float32)
        self._scale, self._mean, self._deviation = np.float32(scale), mean, deviation
        self.dim = self.describe(np.zeros((1, self.fit.crop, self.fit.crop, 3), np.uint8)).shape[1]

    def fingerprint(self) -> dict[str, Any]:
        return {
            "sha256": self.checkpoint.sha256,
            "fit": self.fit.as_json(),
            "scale": float(self._scale),
            "mean": self._mean.tolist(),
            "deviation": self._deviation.tolist(),
        }

    def describe(self, batch: npt.NDArray[np.uint8]) -> Float:
        return in_batches(self._run, batch, self.checkpoint.batch)

    def _run(self, pictures: npt.NDArray[np.uint8]) -> Float:
        x = (pictures.astype(np.float32) * self._scale - self._mean) / self._deviation  # (n, height, width, 3)
        return self.checkpoint.run(pixel_values=torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2))))


class TransformersAudio(AudioExtractor):
    """A vector a window."""

    sequence = False

    def __init__(self, checkpoint: _Checkpoint, features: Any) -> None:
        self.name, self.checkpoint, self._features = f"transformers:{checkpoint.name}", checkpoint, features
        self.rate = int(features.sampling_rate)
        # CLAP counts samples, AST frames of 10 ms, of which the last takes 25 ms.
        samples = getattr(features, "nb_max_samples", None) or round((features.max_length - 1) * 0.01 * self.rate)
        self._longest = int(samples)
        self.dim = self.describe([np.zeros(self.rate, np.float32)]).shape[1]

    def fingerprint(self) -> dict[str, Any]:
        return {"sha256": self.checkpoint.sha256, "rate": self.rate, "longest": self._longest}

    def describe(self, batch: Sequence[Float] | Float) -> Float:
        return np.stack([self._describe(sound) for sound in batch])

    def _describe(self, sound: Float) -> Float:
        parts = np.array_split(sound, max(1, math.ceil(len(sound) / self._longest)))
        vectors = [self._run(part) for part in parts]
        return np.asarray(np.mean(vectors, axis=0, dtype=np.float64), np.float32)

    def _run(self, sound: Float) -> Float:
        inputs = self._features(sound, sampling_rate=self.rate, return_tensors="pt")
        return np.asarray(self.checkpoint.run(**inputs)[0], np.float32)


def load(name: str, modality: str) -> Extractor:
    """The extractor of a checkpoint.

    Raises:
        InputError: the extra ``transformers`` is missing, no such checkpoint, none of safetensors, or of another kind.
    """
    library = require("transformers", "transformers")
    library.logging.set_verbosity_error()
    library.logging.disable_progress_bar()
    try:
        config = library.AutoConfig.from_pretrained(name, trust_remote_code=False)
        kind = KINDS.get(config.model_type)
        if kind is None or kind.modality != modality:
            known = ", ".join(sorted(key for key, value in KINDS.items() if value.modality == modality))
            raise InputError(
                f"transformers:{name}: {config.model_type} gives no {modality} features; there are {known}"
            )
        model = getattr(library, kind.model).from_pretrained(name, use_safetensors=True, trust_remote_code=False)
        checkpoint = _Checkpoint(name, kind, model, _fingerprint(name, model))
        if modality == "visual":
            processor = _image_processor(library, name)
            return TransformersVisual(checkpoint, processor)
        return TransformersAudio(checkpoint, library.AutoFeatureExtractor.from_pretrained(name))
    except (OSError, ValueError, KeyError, ImportError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"transformers:{name}: cannot be loaded ({' '.join(str(error).split())[:300]})") from error


def _image_processor(library: Any, name: str) -> Any:
    try:
        return library.AutoImageProcessor.from_pretrained(name, backend="pil")
    except TypeError:
        return library.AutoImageProcessor.from_pretrained(name, use_fast=False)


def _fit(name: str, processor: Any) -> Fit:
    """An image processor's steps as a ``Fit``."""
    size = dict(processor.size)
    crop = dict(processor.crop_size) if getattr(processor, "do_center_crop", False) else None
    filter_ = RESAMPLING[int(processor.resample)]
    if "shortest_edge" in size and crop is not None and crop["height"] == crop["width"]:
        return Fit(int(size["shortest_edge"]), int(crop["height"]), filter_)
    if size.get("height") == size.get("width") is not None and crop is None:
        return Fit(int(size["height"]), int(size["height"]), filter_, squash=True)
    raise InputError(f"transformers:{name}: pictures are resized in a way that is not known here ({size}, {crop})")


def _fingerprint(name: str, model: Any) -> str:
    """SHA-256 of a local checkpoint's files, or of the weights as they were loaded."""
    files = sorted(Path(name).glob("*.safetensors")) if Path(name).is_dir() else []
    if len(files) == 1:
        return sha256(files[0])
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.contiguous().cpu().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
