"""``hscmae extract`` as a user types it: what it says, what it gives, and where it leaves one when it fails."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("av", reason="needs the extra media")

from hscmae.cli import main
from media_files import clicks, write_clip, write_wav


@pytest.fixture
def media(tmp_path):
    folder = tmp_path / "media"
    folder.mkdir()
    for k in range(3):
        write_clip(folder, f"c{k}", k)
    write_wav(folder / "long.wav", clicks(31, 3))
    (folder / "broken.png").write_bytes(b"nothing")
    return folder


LIGHT = ["--audio", "light", "--visual", "light"]


def test_what_it_says(media, tmp_path, capsys):
    store = str(tmp_path / "store")
    assert main(["extract", str(media), "--output", store, *LIGHT]) == 0
    said = capsys.readouterr()
    assert f"{store}: 6 rows of 5 clips, 3 without visual. Next: hscmae inspect {store}" in said.out
    assert (
        f"1 problems (1 x cannot be read as an image (cannot identify image file)); see {store}/media.csv" in said.err
    )
    assert main(["inspect", store]) == 0
    assert main(["extract", str(media), "--output", store, "--update"]) == 0
    assert "0 new or changed, 5 kept, 0 dropped" in capsys.readouterr().out


def test_json_is_all_there_is_on_stdout(media, tmp_path, capsys):
    options = ["--pool", "mean", "--window", "5", "--hop", "2.5", "--jobs", "1", "--json"]
    assert main(["extract", str(media), "--output", str(tmp_path / "store"), *LIGHT, *options]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rows"] == 3 + 11 and found["clips"] == 5 and len(found["problems"]) == 1
    assert found["recipe"]["window"] == 5.0 and found["recipe"]["audio"]["extractor"] == "light"


@pytest.mark.parametrize(
    "options, words",
    [
        (["--audio", "loud"], "no audio extractor 'loud'"),
        (["--window", "0"], "a window takes 1 to 3600 seconds"),
        (["--strict", *LIGHT], "broken.png: cannot be read as an image"),
        (["--audio", "none", "--visual", "none"], "neither sound nor pictures"),
        (["--labels", "nowhere.csv", *LIGHT], "nowhere.csv: cannot be read"),
        (["--audio", "vggish"], "vggish: no weights"),
    ],
)
def test_failures_are_one_line(media, tmp_path, capsys, options, words):
    assert main(["extract", str(media), "--output", str(tmp_path / "store"), *options]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: ") and words in line
    assert not (tmp_path / "store").exists()


def test_the_default_is_the_best_at_hand_and_says_so(media, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("HSCMAE_MODELS", raising=False)
    (media / "c1.png").unlink()
    assert main(["extract", str(media / "c1.wav"), "--output", str(tmp_path / "store")]) == 0
    assert "sound by light statistics; --audio yamnet fetches a trained network" in capsys.readouterr().err
