"""YouTube-8M TFRecord: the small reader against records written from the format's definition."""

import struct
from pathlib import Path

import numpy as np
import pytest

from hscmae.data.readers import open_table, read
from hscmae.data.readers.tfrecord import dequantise, masked_crc32c
from hscmae.errors import InputError

REAL = Path(__file__).parents[2] / "../shared/data/yt8m_sample.tfrecord"


def crc_bit_by_bit(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def varint(value: int) -> bytes:
    value &= 2**64 - 1
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def message(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def feature(values: object, packed: bool = True) -> bytes:
    if isinstance(values, bytes):
        return message(1, message(1, values))
    if isinstance(values, np.ndarray):
        floats = values.astype("<f4")
        loose = b"".join(varint(1 << 3 | 5) + struct.pack("<f", v) for v in floats)
        return message(2, message(1, floats.tobytes()) if packed else loose)
    loose = b"".join(varint(1 << 3) + varint(v) for v in values)
    return message(3, message(1, b"".join(varint(v) for v in values)) if packed else loose)


def entries(features: dict[str, bytes]) -> bytes:
    return b"".join(message(1, message(1, key.encode()) + message(2, value)) for key, value in features.items())


def example(context: dict[str, bytes], frames: dict[str, list[bytes]] | None = None) -> bytes:
    lists = {key: b"".join(message(1, frame) for frame in values) for key, values in (frames or {}).items()}
    return message(1, entries(context)) + (message(2, entries(lists)) if frames is not None else b"")


def record(data: bytes) -> bytes:
    def masked(b: bytes) -> bytes:
        crc = crc_bit_by_bit(b)
        return ((((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF).to_bytes(4, "little")

    length = len(data).to_bytes(8, "little")
    return length + masked(length) + data + masked(data)


def video(clip: bytes, labels: list[int], audio: np.ndarray, rgb: np.ndarray, packed: bool = True) -> bytes:
    return example(
        {
            "id": feature(clip), "labels": feature(labels, packed),
            "mean_audio": feature(audio, packed), "mean_rgb": feature(rgb, packed),
        }
    )  # fmt: skip


@pytest.mark.parametrize("size", [0, 1, 3, 8, 4097])
def test_the_checksum_is_the_masked_crc32c(size: int) -> None:
    data = np.random.default_rng(size).bytes(size)
    crc = crc_bit_by_bit(data)
    assert masked_crc32c(data) == (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def test_the_crc_by_definition_has_the_known_values() -> None:
    assert crc_bit_by_bit(b"123456789") == 0xE3069283
    assert crc_bit_by_bit(b"\0" * 32) == 0x8A9136AA  # RFC 3720, B.4


@pytest.mark.parametrize("packed", [True, False])
def test_video_level(tmp_path: Path, packed: bool) -> None:
    rng = np.random.default_rng(0)
    audio, rgb = rng.normal(size=(4, 3)).astype(np.float32), rng.normal(size=(4, 5)).astype(np.float32)
    labels = [[3, 1], [], [200], [0]]
    data = b"".join(record(video(b"id%d" % i, labels[i], audio[i], rgb[i], packed)) for i in range(4))
    (tmp_path / "x.tfrecord").write_bytes(data)
    pairs = read(tmp_path / "x.tfrecord")
    assert pairs.modalities == ("audio", "visual")
    np.testing.assert_array_equal(pairs.features["audio"], audio)
    np.testing.assert_array_equal(pairs.features["visual"], rgb)
    assert pairs.ids.tolist() == [b"id0", b"id1", b"id2", b"id3"]
    assert pairs.labels.indptr.tolist() == [0, 2, 2, 3, 4] and pairs.labels.indices.tolist() == [1, 3, 200, 0]
    assert len(pairs.labels.names) == 201
    with open_table(tmp_path / "x.tfrecord") as table:
        blocks = [block for _, block in table.blocks(3)]
    np.testing.assert_array_equal(np.concatenate([b.features["audio"] for b in blocks]), audio)


def test_frame_level_is_dequantised(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    counts = [3, 1]
    frames = [rng.integers(0, 256, (n, 4), dtype=np.uint8) for n in counts]
    data = b"".join(
        record(
            example(
                {"video_id": feature(b"v%d" % i), "labels": feature([i])},
                {"audio": [feature(f.tobytes()) for f in x], "rgb": [feature(f.tobytes() * 2) for f in x]},
            )
        )
        for i, x in enumerate(frames)
    )
    (tmp_path / "frames").write_bytes(data)
    pairs = read(tmp_path / "frames")
    assert pairs.dims == {"audio": 4, "visual": 8}
    assert pairs.lengths["audio"].tolist() == counts
    expected = frames[0].astype(np.float64) * 4 / 255 + 4 / 512 - 2  # Dequantize in YouTube-8M's utils.py
    np.testing.assert_allclose(pairs.features["audio"][0], expected, atol=1e-6)
    assert not pairs.features["audio"][1, 1:].any()
    assert dequantise(np.array([0, 255], np.uint8)).tolist() == pytest.approx([-1.9921875, 2.0078125])


def test_a_record_may_lack_a_modality(tmp_path: Path) -> None:
    both = video(b"a", [1], np.ones(3), np.ones(2))
    silent = example({"id": feature(b"b"), "mean_rgb": feature(np.ones(2))})
    (tmp_path / "x").write_bytes(record(both) + record(silent))
    pairs = read(tmp_path / "x")
    assert pairs.present["audio"].tolist() == [True, False] and pairs.present["visual"].all()
    assert pairs.labels.indptr.tolist() == [0, 1, 1]


GOOD = record(video(b"a", [1], np.ones(3), np.ones(2)))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (GOOD + GOOD[:-3], "record of .* bytes is cut short in row 1"),
        (GOOD + GOOD[:7], "record is cut short in row 1"),
        (GOOD + b"\1" + GOOD[1:], "wrong CRC32C of its length in row 1"),
        (GOOD + GOOD[:40] + b"?" + GOOD[41:], "wrong CRC32C in row 1"),
        (GOOD + record(b"\x0a\xff"), "not a protobuf example .* in row 1"),
        (record(example({"id": feature(b"a")})), "no features"),
        (GOOD + record(video(b"b", [1], np.ones(4), np.ones(2))), "audio: not of shape .* in row 1"),
        (GOOD + GOOD, "ids seen before"),
        (record(video(b"b", [1], np.ones(0), np.ones(2))), "audio: holds no values"),
        (GOOD + record(video(b"b", [-3], np.ones(3), np.ones(2))), "labels: negative classes in row 1"),
        (record(video(b"b", [1], np.full(3, np.nan), np.ones(2))), "audio: NaN or infinite values in row 0"),
    ],
)
def test_faults_are_named(tmp_path: Path, data: bytes, text: str) -> None:
    (tmp_path / "x.tfrecord").write_bytes(data)
    with pytest.raises(InputError, match=text):
        read(tmp_path / "x.tfrecord")


def test_masked_crc_of_the_first_record_is_the_mark_of_the_format() -> None:
    assert masked_crc32c(GOOD[:8]).to_bytes(4, "little") == GOOD[8:12]


@pytest.mark.real
@pytest.mark.skipif(not REAL.exists(), reason="the real features are not here")
def test_real_sample() -> None:
    pairs = read(REAL)
    assert (len(pairs), pairs.dims) == (60, {"audio": 128, "visual": 1024})
    assert pairs.complete().all() and np.diff(pairs.labels.indptr).min() >= 1
