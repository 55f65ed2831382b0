"""Every method by name, behind one interface; ``docs/architecture.md`` says how to add one."""

from pathlib import Path

from hscmae.artifact import read_config
from hscmae.errors import InputError
from hscmae.methods.base import Method
from hscmae.methods.contrastive import InfoNCE, SoftCLIP
from hscmae.methods.correlation import DCCA, DCCAE
from hscmae.methods.hscmae import HSCMAE
from hscmae.methods.kernel import KernelCCA, SmoothedKernelCCA
from hscmae.methods.linear import CCA, PCA, PLS, Random, RidgeCCA, SmoothedCCA
from hscmae.methods.reconstruction import CAVMAE, MAE

METHODS: dict[str, type[Method]] = {
    method.name: method
    for method in (
        Random,
        PCA,
        PLS,
        CCA,
        RidgeCCA,
        SmoothedCCA,
        KernelCCA,
        SmoothedKernelCCA,
        DCCA,
        DCCAE,
        InfoNCE,
        SoftCLIP,
        MAE,
        CAVMAE,
        HSCMAE,
    )
}


def get_method(name: str) -> type[Method]:
    """The class of a method by its name.

    Raises:
        InputError: no such method.
    """
    if name not in METHODS:
        raise InputError(f"unknown method {name!r}; there are {', '.join(METHODS)}")
    return METHODS[name]


def load(folder: str | Path) -> Method:
    """The fitted method in ``folder``, whichever it is.

    Raises:
        InputError: not an artefact, or a damaged one.
    """
    folder = Path(folder)
    return get_method(str(read_config(folder).get("method"))).load(folder)
