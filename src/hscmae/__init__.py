"""HSC-MAE: one embedding space for two modalities, learned from paired, unlabelled features.

>>> import numpy as np
>>> from hscmae import HSCMAE
>>> rng = np.random.default_rng(0)
>>> pairs = {"audio": rng.normal(size=(64, 8)), "visual": rng.normal(size=(64, 16))}
>>> model = HSCMAE(dim=4, training_steps=4).fit(pairs)
>>> model.embed("audio", rng.normal(size=(3, 8))).shape
(3, 4)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from hscmae.artifact import from_pretrained, push_to_hub
    from hscmae.artifact import load_artifact as load
    from hscmae.data.pairs import Labels, Pairs
    from hscmae.data.readers import read
    from hscmae.data.synthetic import synthetic_pairs
    from hscmae.errors import HscmaeError, InputError, RunError
    from hscmae.evaluation.protocol import evaluate
    from hscmae.extract import extract
    from hscmae.methods import (
        CAVMAE,
        CCA,
        DCCA,
        DCCAE,
        HSCMAE,
        MAE,
        PCA,
        PLS,
        InfoNCE,
        KernelCCA,
        Random,
        RidgeCCA,
        SmoothedCCA,
        SmoothedKernelCCA,
        SoftCLIP,
    )

# Imported on first use, so that `hscmae --help` does not wait for torch.
_HOME = {
    "CCA": "hscmae.methods",
    "HSCMAE": "hscmae.methods",
    "HscmaeError": "hscmae.errors",
    "InfoNCE": "hscmae.methods",
    "KernelCCA": "hscmae.methods",
    "InputError": "hscmae.errors",
    "Labels": "hscmae.data.pairs",
    "PCA": "hscmae.methods",
    "PLS": "hscmae.methods",
    "Pairs": "hscmae.data.pairs",
    "Random": "hscmae.methods",
    "RidgeCCA": "hscmae.methods",
    "RunError": "hscmae.errors",
    "SmoothedCCA": "hscmae.methods",
    "SmoothedKernelCCA": "hscmae.methods",
    "evaluate": "hscmae.evaluation.protocol",
    "extract": "hscmae.extract",
    "from_pretrained": "hscmae.artifact",
    "load": "hscmae.artifact",
    "push_to_hub": "hscmae.artifact",
    "read": "hscmae.data.readers",
    "synthetic_pairs": "hscmae.data.synthetic",
    "CAVMAE": "hscmae.methods",
    "DCCA": "hscmae.methods",
    "DCCAE": "hscmae.methods",
    "MAE": "hscmae.methods",
    "SoftCLIP": "hscmae.methods",
}

__all__ = [
    "CAVMAE",
    "CCA",
    "DCCA",
    "DCCAE",
    "HSCMAE",
    "MAE",
    "PCA",
    "PLS",
    "HscmaeError",
    "InfoNCE",
    "InputError",
    "KernelCCA",
    "Labels",
    "Pairs",
    "Random",
    "RidgeCCA",
    "RunError",
    "SmoothedCCA",
    "SmoothedKernelCCA",
    "SoftCLIP",
    "evaluate",
    "extract",
    "from_pretrained",
    "load",
    "push_to_hub",
    "read",
    "synthetic_pairs",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'hscmae' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), "load_artifact" if name == "load" else name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
