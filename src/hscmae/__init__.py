"""HSC-MAE: one embedding space for two modalities, learned from paired, unlabelled features.

>>> import numpy as np
>>> from hscmae import HSCMAE
>>> rng = np.random.default_rng(0)
>>> pairs = {"audio": rng.normal(size=(64, 8)), "visual": rng.normal(size=(64, 16))}
>>> model = HSCMAE(dim=4, training_steps=4).fit(pairs)
>>> model.embed("audio", rng.normal(size=(3, 8))).shape
(3, 4)
"""

import lazy_loader

from hscmae.cpus import set_threads
from hscmae.version import __version__ as __version__

set_threads()  # before torch is loaded, which reads it once
# What is public stands in __init__.pyi, and is imported on first use: `hscmae --help` does not wait for torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
