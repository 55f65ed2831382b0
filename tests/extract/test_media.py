"""Media files are paired by name, decoded alike whatever their form, and refused by name when broken."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av", reason="needs the extra media")
pytest.importorskip("PIL", reason="needs the extra media")

import av
from PIL import Image

from hscmae.errors import InputError
from hscmae.extract.media import find_clips, read_audio
from media_files import read_pictures, write_wav


def write_video(path: Path, frames: int, sound: np.ndarray | None = None, codec: str = "libx264") -> Path:
    """Frames that grow brighter; sound of shape (samples,) at 16 kHz."""
    with av.open(str(path), "w") as file:
        video = file.add_stream(codec, rate=10)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = file.add_stream("aac", rate=16000) if sound is not None else None
        if audio is not None:
            audio.layout = "mono"
        for k in range(frames):
            grey = np.full((48, 64, 3), 40 + 180 * k // max(1, frames - 1), np.uint8)
            file.mux(video.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        file.mux(video.encode())
        if audio is not None:
            part = av.AudioFrame.from_ndarray(
                np.round(sound * 32767).astype(np.int16)[None], format="s16", layout="mono"
            )
            part.sample_rate, part.time_base, part.pts = 16000, Fraction(1, 16000), 0
            file.mux(audio.encode(part))
            file.mux(audio.encode())
    return path


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def tone(frequency: float, seconds: float, rate: int) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * frequency * np.arange(int(seconds * rate)) / rate)


def test_files_of_one_name_are_one_clip(tmp_path):
    touch(
        tmp_path,
        "b/dog.wav",
        "b/dog.PNG",
        "a/cat.mp4",
        "lone.flac",
        "view.jpg",
        "notes.txt",
        ".hidden.wav",
        ".git/x.wav",
    )
    clips = find_clips([tmp_path])
    assert [(c.id, c.audio and c.audio.name, c.visual and c.visual.name) for c in clips] == [
        ("a/cat", "cat.mp4", "cat.mp4"),
        ("b/dog", "dog.wav", "dog.PNG"),
        ("lone", "lone.flac", None),
        ("view", None, "view.jpg"),
    ]


def test_two_folders_pair_by_relative_path(tmp_path):
    touch(tmp_path, "sounds/x/1.wav", "pictures/x/1.png")
    (clip,) = find_clips([tmp_path / "sounds", tmp_path / "pictures"])
    assert clip.id == "x/1" and clip.audio and clip.visual


def test_a_separate_file_comes_before_a_videos_stream(tmp_path):
    touch(tmp_path, "a.mp4", "a.wav")
    (clip,) = find_clips([tmp_path / "a.mp4", tmp_path / "a.wav", tmp_path])
    assert clip.audio.suffix == ".wav" and clip.visual.suffix == ".mp4"


def test_names_with_dots_and_spaces_keep_them(tmp_path):
    touch(tmp_path, "a b.1.wav", "a b.2.wav", "ü.png")
    assert [clip.id for clip in find_clips([tmp_path])] == ["a b.1", "a b.2", "ü"]
    assert find_clips([tmp_path / "a b.1.wav"])[0].id == "a b.1"


def test_tags_that_are_not_utf8_are_no_reason_to_refuse(tmp_path):
    path = write_wav(tmp_path / "a.wav", tone(440, 0.5, 16000))
    title = b"caf\xe9\0\0\0"
    info = b"INFOINAM" + len(title).to_bytes(4, "little") + title
    data = path.read_bytes() + b"LIST" + len(info).to_bytes(4, "little") + info
    path.write_bytes(data[:4] + (len(data) - 8).to_bytes(4, "little") + data[8:])
    assert len(read_audio(path)) == 8000


@pytest.mark.parametrize(
    ("names", "paths", "message"),
    [
        (["a.wav", "a.mp3"], ["."], "'a' has .*a.mp3 already; one audio file each"),
        (["x/a.wav", "y/a.wav"], ["x", "y"], "one audio file each"),
        (["a.txt"], ["a.txt"], "a.txt: not a media file"),
        (["a.txt"], ["."], "no media files in"),
        ([], ["absent"], "absent: no such file"),
    ],
)
def test_what_cannot_be_paired_is_named(tmp_path, names, paths, message):
    touch(tmp_path, *names)
    with pytest.raises(InputError, match=message):
        find_clips([tmp_path / path for path in paths])


def test_wav_samples_come_out_as_they_went_in(tmp_path):
    sound = np.random.default_rng(0).uniform(-1, 1, (5000, 1))
    read = read_audio(write_wav(tmp_path / "a.wav", sound))
    assert read.dtype == np.float32 and read.shape == (5000,)
    np.testing.assert_allclose(read, sound[:, 0], atol=1e-4)


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_other_rates_and_channels_come_out_as_16_khz_mono(tmp_path, rate):
    sound = tone(1000, 1.0, rate)
    read = read_audio(write_wav(tmp_path / "a.wav", np.stack([sound, sound], axis=1), rate))
    assert len(read) == pytest.approx(16000, abs=40)
    middle = read[2000:14000] * np.hanning(12000)
    assert np.abs(np.fft.rfft(middle)).argmax() * 16000 / 12000 == pytest.approx(1000, abs=2)
    assert np.abs(read[2000:14000]).max() == pytest.approx(0.5, rel=0.05)


def test_video_gives_sound_and_frames_in_order(tmp_path):
    path = write_video(tmp_path / "a.mp4", 30, tone(1000, 3.0, 16000))
    pictures = read_pictures(path)
    assert len(pictures) == 3 and pictures[0].shape == (48, 64, 3)
    brightness = [picture.mean() for picture in pictures]
    assert brightness == sorted(brightness) and brightness[-1] - brightness[0] > 100
    sound = read_audio(path)
    assert len(sound) / 16000 == pytest.approx(3.0, abs=0.2)
    assert np.abs(np.fft.rfft(sound[8000:40000])).argmax() / 2 == pytest.approx(1000, abs=2)


@pytest.mark.parametrize("frames", [1, 2, 7, 14, 16, 100])
def test_a_picture_a_second(tmp_path, frames):
    path = write_video(tmp_path / "a.mp4", frames)
    pictures = read_pictures(path)
    assert len(pictures) == max(1, int(frames / 10 + 0.5))
    assert len(read_pictures(path, 0.0, 1.0)) == 1


def test_images_of_any_mode_come_out_as_rgb(tmp_path):
    for mode, colour in (
        ("L", 77),
        ("RGBA", (10, 20, 30, 255)),
        ("P", 3),
        ("CMYK", (0, 0, 0, 0)),
        ("1", 1),
        ("I;16", 9),
    ):
        path = tmp_path / f"{mode[0]}.{'tiff' if mode in ('CMYK', 'I;16') else 'png'}"
        Image.new(mode, (5, 4), colour).save(path)
        (picture,) = read_pictures(path)
        assert picture.shape == (4, 5, 3) and picture.dtype == np.uint8


def test_broken_files_are_named(tmp_path):
    noise = np.random.default_rng(0).bytes(3000)
    Image.new("RGB", (64, 64)).save(tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    for name, content in {
        "noise.wav": noise, "empty.wav": b"", "noise.mp3": b"\0" * 100, "noise.png": noise, "empty.jpg": b"",
        "cut.png": whole[: len(whole) - 60], "noise.mp4": noise, "empty.mp4": b"",
    }.items():  # fmt: skip
        path = tmp_path / name
        path.write_bytes(content)
        reads = [read_audio] if path.suffix in (".wav", ".mp3") else [read_pictures]
        for read in reads + ([read_audio] if path.suffix == ".mp4" else []):
            with pytest.raises(InputError) as caught:
                read(path)
            message = str(caught.value)
            assert message.startswith(f"{path}: ") and "\n" not in message, message
            assert message.count(str(path)) == 1, message


def test_no_sound_in_a_file_says_so(tmp_path):
    with pytest.raises(InputError, match=r"still\.mp4: holds no sound"):
        read_audio(write_video(tmp_path / "still.mp4", 3))
    with pytest.raises(InputError, match=r"none\.wav: holds no sound"):
        read_audio(write_wav(tmp_path / "none.wav", np.zeros((0, 1))))


@pytest.mark.filterwarnings("ignore")  # Pillow warns about odd tags and large sizes
@pytest.mark.parametrize("rounds", [40, pytest.param(1500, marks=pytest.mark.long)])
def test_damaged_files_are_read_or_refused(tmp_path, rounds):
    """Flipped and missing bytes: arrays or an InputError that names the file, nothing else."""
    rng = np.random.default_rng(1)
    sound = tone(500, 0.3, 16000)
    originals = [write_wav(tmp_path / "o.wav", sound[:, None]), write_video(tmp_path / "o.mp4", 4, sound)]
    pixels = Image.fromarray(rng.integers(0, 256, (30, 30, 3), dtype=np.uint8))
    for ending in ("png", "jpg", "gif", "bmp", "tiff", "webp"):
        originals.append(tmp_path / f"o.{ending}")
        pixels.save(originals[-1])
    refused = 0
    for number in range(rounds):
        original = originals[number % len(originals)]
        content = bytearray(original.read_bytes())
        for place in rng.integers(0, len(content), rng.integers(1, 20)):
            content[place] = rng.integers(256)
        damaged = tmp_path / f"damaged{original.suffix}"
        damaged.write_bytes(content[: rng.integers(1, len(content) + 1)] if number % 3 == 0 else content)
        for read in (read_audio, read_pictures):
            if (read is read_audio) != (original.suffix == ".wav") and original.suffix != ".mp4":
                continue
            try:
                assert len(read(damaged))
            except InputError as error:
                assert str(damaged) in str(error)
                refused += 1
    assert 0 < refused < rounds
