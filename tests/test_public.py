"""What `import hscmae` offers: every name is there and says what it is, and none is waited for that is not used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import hscmae
from hscmae.methods import METHODS


@pytest.mark.parametrize("name", hscmae.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    assert getattr(hscmae, name).__doc__


def test_every_method_is_public() -> None:
    assert {method.__name__ for method in METHODS.values()} <= set(hscmae.__all__)


def test_help_names_every_public_name() -> None:
    import pydoc

    text = pydoc.render_doc(hscmae, renderer=pydoc.plaintext)
    assert all(name in text for name in hscmae.__all__)


def test_importing_does_not_wait_for_torch() -> None:
    code = "import sys, hscmae; assert 'torch' not in sys.modules; hscmae.load; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="nosuch"):
        hscmae.nosuch  # noqa: B018
