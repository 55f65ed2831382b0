"""A six-gigabyte AVE release within a gigabyte of anonymous memory, killed three times and resumed."""

import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from hscmae.data.store import open_store

CLIPS = 6000  # of a megabyte each
CONVERT = """
    import sys, threading, time
    from hscmae.data.convert import convert

    peak = 0

    def watch():
        global peak
        while True:
            with open("/proc/self/status") as status:
                peak = max(peak, *(int(line.split()[1]) for line in status if line.startswith("RssAnon")))
            time.sleep(0.01)

    threading.Thread(target=watch, daemon=True).start()
    convert([sys.argv[1]], sys.argv[2], resume=True, progress=lambda path, done, total: print(done, flush=True))
    print(peak)
"""


@pytest.mark.long
def test_large_release(tmp_path: Path) -> None:
    if shutil.disk_usage(tmp_path).free < 10e9:
        pytest.skip("needs 10 GB of disk")
    source, output = tmp_path / "ave", tmp_path / "store"
    source.mkdir()
    rng = np.random.default_rng(0)
    some = rng.random((100, 10, 7, 7, 512), dtype=np.float32)
    with h5py.File(source / "visual_feature.h5", "w") as file:
        visual = file.create_dataset("avadataset", (CLIPS, 10, 7, 7, 512), "f4")
        for start in range(0, CLIPS, 100):
            visual[start : start + 100] = some * (1 + start / 100)
    with h5py.File(source / "audio_feature.h5", "w") as file:
        file["avadataset"] = rng.normal(size=(CLIPS, 10, 128)).astype(np.float32)
    starts = []
    for kill in (True, True, True, False):
        command = [sys.executable, "-c", textwrap.dedent(CONVERT), str(source), str(output)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            starts.append(int(child.stdout.readline()))
            if kill:
                until = time.monotonic() + 2.3  # a checkpoint is made every two seconds
                while time.monotonic() < until and child.stdout.readline():
                    pass
                child.send_signal(signal.SIGKILL)
                assert not output.exists()
            else:
                peak = int(child.stdout.read().split()[-1])
    assert starts == sorted(starts) and starts[-1] > starts[0]
    assert peak < 2**20, f"{peak / 2**10:.0f} MiB of anonymous memory"
    pairs = open_store(output, verify=True)
    assert len(pairs) == CLIPS
    for row in rng.integers(0, CLIPS, 20):
        clip = some[row % 100] * (1 + row // 100)
        expected = clip.reshape(10, 49, 512).mean(axis=1, dtype=np.float64)
        np.testing.assert_allclose(pairs.features["visual"][row], expected, rtol=1e-6)
