"""Optional dependencies: imported when needed; a missing one fails by the name of the extra that brings it."""

from __future__ import annotations

import importlib
from types import ModuleType

from hscmae.errors import InputError


def require(module: str, extra: str) -> ModuleType:
    """Import ``module`` (a dotted name), or say which extra to install.

    Raises:
        InputError: the module is not installed.

    >>> require("math", "media").sqrt(4.0)
    2.0
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or (module != error.name and not module.startswith(error.name + ".")):
            raise  # a fault within the module, not its absence
        raise InputError(f"{module} is not installed: pip install 'hscmae[{extra}]'") from error
