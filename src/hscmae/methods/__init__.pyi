"""Written by ``make stubs``: the constructors' parameters, which are made at run time, for type checkers."""

# fmt: off
from pathlib import Path
from typing import Literal

from .base import Method as Method
from .contrastive import InfoNCE as _InfoNCE
from .contrastive import SoftCLIP as _SoftCLIP
from .correlation import DCCA as _DCCA
from .correlation import DCCAE as _DCCAE
from .hscmae import HSCMAE as _HSCMAE
from .kernel import KernelCCA as _KernelCCA
from .kernel import SmoothedKernelCCA as _SmoothedKernelCCA
from .linear import CCA as _CCA
from .linear import PCA as _PCA
from .linear import PLS as _PLS
from .linear import Random as _Random
from .linear import RidgeCCA as _RidgeCCA
from .linear import SmoothedCCA as _SmoothedCCA
from .reconstruction import CAVMAE as _CAVMAE
from .reconstruction import MAE as _MAE

class InfoNCE(_InfoNCE):
    def __init__(
        self, *,
        preset: Literal["default"] = ..., dim: int = ..., seed: int = ...,
        pooling: Literal["mean", "max", "attention"] = ..., anchors_share: float = ..., anchors_rows: int = ...,
        anchors_tau: float = ..., view_kind: Literal["linear", "kernel"] = ..., view_bandwidth: float = ...,
        view_linear: float = ..., view_landmarks: int = ..., view_rank: int = ..., network_width: int = ...,
        network_depth: int = ..., network_decoder_depth: int = ..., network_dropout: float = ...,
        network_branch_scale: float = ..., head_final: Literal["none", "ridge", "smoothed"] = ...,
        head_ridge: float = ..., head_refresh: int = ..., training_epochs: int = ..., training_steps: int = ...,
        training_batch_size: int = ..., training_shuffle_block: int = ..., training_lr: float = ...,
        training_weight_decay: float = ..., training_warmup: int = ..., training_grad_clip: float = ...,
        training_validation_share: float = ..., training_evaluations: int = ..., training_patience: int = ...,
        training_refit: bool = ..., training_precision: Literal["auto", "float32", "bfloat16"] = ...,
        training_device: str = ..., training_checkpoint_seconds: float = ..., loss_tau: float = ...
    ) -> None: ...

class SoftCLIP(_SoftCLIP):
    def __init__(
        self, *,
        preset: Literal["default"] = ..., dim: int = ..., seed: int = ...,
        pooling: Literal["mean", "max", "attention"] = ..., anchors_share: float = ..., anchors_rows: int = ...,
        anchors_tau: float = ..., view_kind: Literal["linear", "kernel"] = ..., view_bandwidth: float = ...,
        view_linear: float = ..., view_landmarks: int = ..., view_rank: int = ..., network_width: int = ...,
        network_depth: int = ..., network_decoder_depth: int = ..., network_dropout: float = ...,
        network_branch_scale: float = ..., head_final: Literal["none", "ridge", "smoothed"] = ...,
        head_ridge: float = ..., head_refresh: int = ..., training_epochs: int = ..., training_steps: int = ...,
        training_batch_size: int = ..., training_shuffle_block: int = ..., training_lr: float = ...,
        training_weight_decay: float = ..., training_warmup: int = ..., training_grad_clip: float = ...,
        training_validation_share: float = ..., training_evaluations: int = ..., training_patience: int = ...,
        training_refit: bool = ..., training_precision: Literal["auto", "float32", "bfloat16"] = ...,
        training_device: str = ..., training_checkpoint_seconds: float = ..., loss_tau: float = ...,
        loss_soft_share: float = ..., loss_tau_target: float = ...
    ) -> None: ...

class DCCA(_DCCA):
    def __init__(
        self, *,
        preset: Literal["default"] = ..., dim: int = ..., seed: int = ...,
        pooling: Literal["mean", "max", "attention"] = ..., anchors_share: float = ..., anchors_rows: int = ...,
        anchors_tau: float = ..., view_kind: Literal["linear", "kernel"] = ..., view_bandwidth: float = ...,
        view_linear: float = ..., view_landmarks: int = ..., view_rank: int = ..., network_width: int = ...,
        network_depth: int = ..., network_decoder_depth: int = ..., network_dropout: float = ...,
        network_branch_scale: float = ..., head_final: Literal["none", "ridge", "smoothed"] = ...,
        head_ridge: float = ..., head_refresh: int = ..., training_epochs: int = ..., training_steps: int = ...,
        training_batch_size: int = ..., training_shuffle_block: int = ..., training_lr: float = ...,
        training_weight_decay: float = ..., training_warmup: int = ..., training_grad_clip: float = ...,
        training_validation_share: float = ..., training_evaluations: int = ..., training_patience: int = ...,
        training_refit: bool = ..., training_precision: Literal["auto", "float32", "bfloat16"] = ...,
        training_device: str = ..., training_checkpoint_seconds: float = ..., loss_ridge: float = ...,
        loss_correlation: Literal["singular", "frobenius"] = ...
    ) -> None: ...

class DCCAE(_DCCAE):
    def __init__(
        self, *,
        preset: Literal["default"] = ..., dim: int = ..., seed: int = ...,
        pooling: Literal["mean", "max", "attention"] = ..., anchors_share: float = ..., anchors_rows: int = ...,
        anchors_tau: float = ..., view_kind: Literal["linear", "kernel"] = ..., view_bandwidth: float = ...,
        view_linear: float = ..., view_landmarks: int = ..., view_rank: int = ..., network_width: int = ...,
        network_depth: int = ..., network_decoder_depth: int = ..., network_dropout: float = ...,
        network_branch_scale: float = ..., head_final: Literal["none", "ridge", "smoothed"] = ...,
        head_ridge: float = ..., head_refresh: int = ..., training_epochs: int = ..., training_steps: int = ...,
        training_batch_size: int = ..., training_shuffle_block: int = ..., training_lr: float = ...,
        training_weight_decay: float = ..., training_warmup: int = ..., training_grad_clip: float = ...,
        training_validation_share: float = ..., training_evaluations: int = ..., training_patience: int = ...,
        training_refit: bool = ..., training_precision: Literal["auto", "float32", "bfloat16"] = ...,
        training_device: str = ..., training_checkpoint_seconds: float = ..., loss_ridge: float = ...,
        loss_correlation: Literal["singular", "frobenius"] = ..., loss_reconstruction_weight: float = ...
    ) -> None: ...

class HSCMAE(_HSCMAE):
    def __init__(
        self, *,
        preset: Literal["default", "paper", "paper-tuned"] = ..., dim: int = ..., seed: int = ...,
        pooling: Literal["mean", "max", "attention"] = ..., anchors_share: float = ..., anchors_rows: int = ...,
        anchors_tau: float = ..., view_kind: Literal["linear", "kernel"] = ..., view_bandwidth: float = ...,
        view_linear: float = ..., view_landmarks: int = ..., view_rank: int = ..., network_width: int = ...,
        network_depth: int = ..., network_decoder_depth: int = ..., network_dropout: float = ...,
        network_branch_scale: float = ..., head_final: Literal["none", "ridge", "smoothed"] = ...,
        head_ridge: float = ..., head_refresh: int = ..., training_epochs: int = ..., training_steps: int = ...,
        training_batch_size: int = ..., training_shuffle_block: int = ..., training_lr: float = ...,
        training_weight_decay: float = ..., training_warmup: int = ..., training_grad_clip: float = ...,
        training_validation_share: float = ..., training_evaluations: int = ..., training_patience: int = ...,
        training_refit: bool = ..., training_precision: Literal["auto", "float32", "bfloat16"] = ...,
        training_device: str = ..., training_checkpoint_seconds: float = ..., masking_ratio: float = ...,
        masking_spread: float = ..., masking_steps_ratio: float = ..., teacher_decay: float = ...,
        affinity_source: Literal["batch", "queue", "train"] = ..., affinity_keys: Literal["student", "teacher"] = ...,
        affinity_k: int = ..., affinity_tau_teacher: float = ..., affinity_pair_share: float = ...,
        affinity_mask_pair: bool = ..., affinity_queue_size: int = ..., affinity_refresh: int = ...,
        affinity_warmup: int = ..., loss_global_weight: float = ..., loss_local_weight: float = ...,
        loss_sample_weight: float = ..., loss_cross_weight: float = ..., loss_distill_weight: float = ...,
        loss_learn_weights: bool = ..., loss_tau: float = ..., loss_ridge: float = ...,
        loss_correlation: Literal["singular", "frobenius"] = ...,
        loss_distillation: Literal["cosine", "relational"] = ...,
        warm_start_kind: Literal["none", "ridge", "smoothed"] = ..., warm_start_ridge: float = ...,
        warm_start_k: int = ..., warm_start_tau: float = ..., weigh_pairs: bool = ...
    ) -> None: ...

class KernelCCA(_KernelCCA):
    def __init__(
        self, *,
        preset: Literal["default"] = ..., dim: int = ..., seed: int = ..., pooling: Literal["mean", "max"] = ...,
        anchors_share: float = ..., anchors_rows: int = ..., anchors_tau: float = ..., ridge: float = ...,
        scale: bool = ..., weigh_pairs: bool = ..., bandwidth: float = ..., linear: float = ..., landmarks: int = ...,
        rank: int = ...
    ) -> None: ...

class SmoothedKernelCCA(_SmoothedKernelCCA):
    def __init__(
        self, *,
        preset: Literal["default"] = ..., dim: int = ..., seed: int = ..., pooling: Literal["mean", "max"] = ...,
        anchors_share: float = ..., anchors_rows: int = ..., anchors_tau: float = ..., ridge: float = ...,
        scale: bool = ..., weigh_pairs: bool = ..., k: int = ..., tau: float = ..., hops: int = ...,
        bandwidth: float = ..., linear: float = ..., landmarks: int = ..., rank: int = ...
    ) -> None: ...

class CCA(_CCA):
    def __init__(
        self, *,
        preset: Literal["default"] = ..., dim: int = ..., seed: int = ..., pooling: Literal["mean", "max"] = ...,
        anchors_share: float = ..., anchors_rows: int = ..., anchors_tau: float = ..., ridge: float = ...,
        scale: bool = ...
    ) -> None: ...

class PCA(_PCA):
    def __init__(
        self, *,
        preset: Literal["default"] = ..., dim: int = ..., seed: int = ..., pooling: Literal["mean", "max"] = ...,
        anchors_share: float = ..., anchors_rows: int = ..., anchors_tau: float = ...
    ) -> None: ...

class PLS(_PLS):
    def __init__(
        self, *,
        preset: Literal["default"] = ..., dim: int = ..., seed: int = ..., pooling: Literal["mean", "max"] = ...,
        anchors_share: float = ..., anchors_rows: int = ..., anchors_tau: float = ..., scale: bool = ...
    ) -> None: ...

class Random(_Random):
    def __init__(
        self, *,
        preset: Literal["default"] = ..., dim: int = ..., seed: int = ..., pooling: Literal["mean", "max"] = ...,
        anchors_share: float = ..., anchors_rows: int = ..., anchors_tau: float = ...
    ) -> None: ...

class RidgeCCA(_RidgeCCA):
    def __init__(
        self, *,
        preset: Literal["default"] = ..., dim: int = ..., seed: int = ..., pooling: Literal["mean", "max"] = ...,
        anchors_share: float = ..., anchors_rows: int = ..., anchors_tau: float = ..., ridge: float = ...,
        scale: bool = ..., weigh_pairs: bool = ...
    ) -> None: ...

class SmoothedCCA(_SmoothedCCA):
    def __init__(
        self, *,
        preset: Literal["default"] = ..., dim: int = ..., seed: int = ..., pooling: Literal["mean", "max"] = ...,
        anchors_share: float = ..., anchors_rows: int = ..., anchors_tau: float = ..., ridge: float = ...,
        scale: bool = ..., weigh_pairs: bool = ..., k: int = ..., tau: float = ..., hops: int = ...
    ) -> None: ...

class CAVMAE(_CAVMAE):
    def __init__(
        self, *,
        preset: Literal["default"] = ..., dim: int = ..., seed: int = ...,
        pooling: Literal["mean", "max", "attention"] = ..., anchors_share: float = ..., anchors_rows: int = ...,
        anchors_tau: float = ..., view_kind: Literal["linear", "kernel"] = ..., view_bandwidth: float = ...,
        view_linear: float = ..., view_landmarks: int = ..., view_rank: int = ..., network_width: int = ...,
        network_depth: int = ..., network_decoder_depth: int = ..., network_dropout: float = ...,
        network_branch_scale: float = ..., head_final: Literal["none", "ridge", "smoothed"] = ...,
        head_ridge: float = ..., head_refresh: int = ..., training_epochs: int = ..., training_steps: int = ...,
        training_batch_size: int = ..., training_shuffle_block: int = ..., training_lr: float = ...,
        training_weight_decay: float = ..., training_warmup: int = ..., training_grad_clip: float = ...,
        training_validation_share: float = ..., training_evaluations: int = ..., training_patience: int = ...,
        training_refit: bool = ..., training_precision: Literal["auto", "float32", "bfloat16"] = ...,
        training_device: str = ..., training_checkpoint_seconds: float = ..., masking_ratio: float = ...,
        loss_tau: float = ..., loss_contrastive_weight: float = ..., loss_reconstruction_weight: float = ...
    ) -> None: ...

class MAE(_MAE):
    def __init__(
        self, *,
        preset: Literal["default"] = ..., dim: int = ..., seed: int = ...,
        pooling: Literal["mean", "max", "attention"] = ..., anchors_share: float = ..., anchors_rows: int = ...,
        anchors_tau: float = ..., view_kind: Literal["linear", "kernel"] = ..., view_bandwidth: float = ...,
        view_linear: float = ..., view_landmarks: int = ..., view_rank: int = ..., network_width: int = ...,
        network_depth: int = ..., network_decoder_depth: int = ..., network_dropout: float = ...,
        network_branch_scale: float = ..., head_final: Literal["none", "ridge", "smoothed"] = ...,
        head_ridge: float = ..., head_refresh: int = ..., training_epochs: int = ..., training_steps: int = ...,
        training_batch_size: int = ..., training_shuffle_block: int = ..., training_lr: float = ...,
        training_weight_decay: float = ..., training_warmup: int = ..., training_grad_clip: float = ...,
        training_validation_share: float = ..., training_evaluations: int = ..., training_patience: int = ...,
        training_refit: bool = ..., training_precision: Literal["auto", "float32", "bfloat16"] = ...,
        training_device: str = ..., training_checkpoint_seconds: float = ..., masking_ratio: float = ...
    ) -> None: ...

METHODS: dict[str, type[Method]]

def get_method(name: str) -> type[Method]: ...
def load(folder: str | Path) -> Method: ...
