"""A missing optional dependency names its extra; a fault inside one that is there is not hidden."""

import math

import pytest

from hscmae.errors import InputError
from hscmae.extras import require


def test_gives_the_module():
    assert require("math", "media") is math


@pytest.mark.parametrize("name", ["no_such_module", "no_such_package.inner", "json.no_such_part"])
def test_missing_module_names_the_extra(name):
    with pytest.raises(
        InputError, match=rf"{name} is not installed: pip install .*'av>=14'.* 'pillow>=10'.* \(extra media\)"
    ):
        require(name, "media")


def test_an_extra_that_is_not_known_is_named(monkeypatch):
    with pytest.raises(InputError, match=r"pip install 'hscmae\[nosuch\]'"):
        require("no_such_module", "nosuch")
    monkeypatch.setattr("hscmae.extras.requires", lambda _: None)
    with pytest.raises(InputError, match=r"pip install 'hscmae\[media\]'"):
        require("no_such_module", "media")


@pytest.mark.parametrize("extra", ["hub", "media", "metrics", "plots", "ray", "tensorboard", "tune", "umap"])
def test_every_extra_says_what_to_install(extra):
    with pytest.raises(InputError, match=rf"pip install '[\w-]+>=[\d.]+'.* \(extra {extra}\)"):
        require("no_such_module", extra)


def test_a_fault_within_a_module_is_not_taken_for_its_absence(tmp_path, monkeypatch):
    (tmp_path / "hscmae_faulty_module.py").write_text("import no_such_inner_module\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_inner_module"):
        require("hscmae_faulty_module", "media")
