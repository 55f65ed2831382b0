"""The tests that rounding can reach, on the code paths that other processors take.

The libraries choose their instructions, and with them the order of sums, by what the processor has. Where a setting has
no effect (MKL's on an AMD processor) the tests run as they do anyway.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
SENSITIVE = ["losses", "linear", "nn", "methods", "evaluation", "training", "test_embedding.py", "test_artifact.py"]
PATHS: dict[str, dict[str, str]] = {
    "MKL, the same on any processor": {"MKL_CBWR": "COMPATIBLE"},
    "MKL, SSE4.2": {"MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
    "MKL, AVX2": {"MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "torch, no vectors": {"ATEN_CPU_CAPABILITY": "default"},
    "torch, AVX2": {"ATEN_CPU_CAPABILITY": "avx2"},
    "oneDNN, SSE4.1": {"ONEDNN_MAX_CPU_ISA": "SSE41"},
    "NumPy's BLAS, SSE": {"OPENBLAS_CORETYPE": "Nehalem"},
    "two threads": {"HSCMAE_TEST_THREADS": "2", "OMP_NUM_THREADS": "2"},
}


@pytest.mark.long
@pytest.mark.parametrize("path", PATHS)
def test_rounding_decides_no_test(path: str) -> None:
    command = [sys.executable, "-m", "pytest", *SENSITIVE, "-p", "no:cacheprovider", "-n", "0"]
    done = subprocess.run(
        command, cwd=TESTS, env={**os.environ, "OMP_NUM_THREADS": "1", **PATHS[path]}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
