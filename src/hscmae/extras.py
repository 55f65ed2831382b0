"""Optional dependencies: imported when needed; a missing one fails by the name of the extra that brings it."""

from __future__ import annotations

import importlib
import re
import shlex
from importlib.metadata import PackageNotFoundError, requires
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
        raise InputError(f"{module} is not installed: pip install {_packages(extra)}") from error


def _packages(extra: str) -> str:
    """What brings an extra, in words for pip that serve in a clone as well: its packages, where they are known."""
    try:
        lines = requires("hscmae") or []
    except PackageNotFoundError:
        lines = []
    marker = re.compile(rf"""(.+?)\s*;\s*extra == ['"]{re.escape(extra)}['"]$""")
    packages = [found[1] for line in lines if (found := marker.match(line))]
    return f"{shlex.join(packages)} (extra {extra})" if packages else f"'hscmae[{extra}]'"
