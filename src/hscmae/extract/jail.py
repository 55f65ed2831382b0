"""Decoding in child processes, for files come from strangers.

A child has limits on memory, may write no file, and dies with its parent. It talks by lines of JSON and raw samples,
never by pickle, and what it says is checked before it is believed; where it crashes, hangs or talks nonsense, that is a
problem of the file, and the next file gets a new child. ``python -P -m hscmae.extract.jail`` is the child.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from hscmae.extract.media import Fit, Limits
from hscmae.extract.windows import MOST, Sampling, Task, Trouble, Window, decode

# -P: nothing is imported from the folder that the caller happens to be in, which may be the media's.
CHILD = [sys.executable, "-P", "-m", "hscmae.extract.jail"]
SECRET = "HSCMAE_TOKEN"
MOST_HEADER = 1 << 20  # bytes
PER_MEDIA_SECOND = 4.0  # seconds that decoding a second of a recording may take, beside the limit for each window


class Jail:
    """One child, started when first needed and anew after each crash; used by one thread."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None

    def decode(self, task: Task) -> Generator[Window | Trouble, None, None]:
        """What ``windows.decode`` gives, made in the child; never raises for what the file or the child does."""
        modality = "audio" if task.audio is not None else "visual"
        path = task.audio or task.visual
        waited, reached = 0.0, 0.0
        try:
            child = self._started()
            _send(child, _task_as_json(task))
            while True:
                begun = time.monotonic()
                allowed = min(task.limits.seconds, task.limits.seconds + PER_MEDIA_SECOND * reached - waited)
                header = json.loads(_line(child, begun + allowed))
                kind = header["kind"]
                if kind == "end":
                    return
                if kind == "trouble":
                    yield Trouble(*(str(header[name])[:1000] for name in ("modality", "text")))
                    continue
                modality = "visual" if task.audio is None else "audio"
                window = _window(child, header, task, begun + allowed)
                waited, reached = waited + time.monotonic() - begun, max(reached, window.end)
                yield window
        except TimeoutError:
            self.close()
            yield Trouble(modality, f"{path}: decoding took too long")
        except (EOFError, BrokenPipeError, OSError):
            how = self._last_words()
            yield Trouble(modality, f"{path}: the decoder crashed ({how})")
        except (ValueError, LookupError, TypeError, ArithmeticError, RecursionError):
            self.close()
            yield Trouble(modality, f"{path}: the decoder gave nonsense")
        except GeneratorExit:
            self.close()
            raise

    def start(self) -> None:
        """Start the child now, so that the first file does not wait for it."""
        self._started()

    def interrupt(self) -> None:
        """Kill the child from another thread: who waits for it stops waiting."""
        if (child := self._child) is not None:
            child.kill()

    def close(self) -> None:
        """End the child."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
            child.wait()

    def __enter__(self) -> Jail:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._child is not None and self._child.poll() is not None:
            self.close()  # it died while it had nothing to do, which is no fault of the next file
        if self._child is None:
            self._child = subprocess.Popen(
                CHILD,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=child_environment(),
                bufsize=0,
                start_new_session=True,  # an interrupt is the parent's to handle
            )
        return self._child

    def _last_words(self) -> str:
        child = self._child
        if child is None:
            return "gone"
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(2)
        code = child.returncode
        self.close()
        if code is not None and code < 0:
            return signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        return "out of memory" if code == OUT_OF_MEMORY else f"exit code {code}"


def child_environment() -> dict[str, str]:
    """The environment of a process that is to find this package, keep to one thread, and know no secret of a server."""
    kept = {name: value for name, value in os.environ.items() if name != SECRET}
    paths = [str(Path(__file__).resolve().parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    alone = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {**kept, **alone, "PYTHONPATH": os.pathsep.join(paths)}


def _send(child: subprocess.Popen[bytes], message: dict[str, Any]) -> None:
    assert child.stdin is not None
    child.stdin.write(json.dumps(message).encode() + b"\n")


def _line(child: subprocess.Popen[bytes], deadline: float) -> bytes:
    length = int.from_bytes(_exactly(child, 4, deadline), "little")
    if length > MOST_HEADER:
        raise ValueError("header too long")
    return bytes(_exactly(child, length, deadline))


def _exactly(child: subprocess.Popen[bytes], count: int, deadline: float) -> bytearray:
    assert child.stdout is not None
    content, got = bytearray(count), 0
    view = memoryview(content)
    handle = child.stdout.fileno()
    with selectors.DefaultSelector() as selector:
        selector.register(handle, selectors.EVENT_READ)
        while got < count:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise TimeoutError
            part = os.readv(handle, [view[got:]])
            if not part:
                raise EOFError
            got += part
    return content


def _window(child: subprocess.Popen[bytes], header: dict[str, Any], task: Task, deadline: float) -> Window:
    """Read a window; sizes that the task does not allow are nonsense."""
    start, end = float(header["start"]), float(header["end"])
    samples, count = header["samples"], int(header["pictures"])
    steps = tuple(int(step) for step in header["steps"])
    longest = MOST * task.sampling.window + 1
    crop = task.fit.crop if task.fit else 0
    most_samples = longest * (task.rate or 0)
    if not (0 <= start <= end <= start + longest and end <= task.limits.hours * 3600 + longest):
        raise ValueError("times")
    if not (0 <= count <= len(steps) <= longest + 1 and all(0 <= step < count for step in steps)):
        raise ValueError("steps")
    if not (samples is None or 0 < int(samples) <= most_samples):
        raise ValueError("samples")
    sound = pictures = None
    if samples is not None:
        sound = np.frombuffer(_exactly(child, 4 * int(samples), deadline), np.float32)
        if not np.isfinite(sound).all():
            raise ValueError("samples that are not finite")
    if count:
        pixels = _exactly(child, count * crop * crop * 3, deadline)
        pictures = np.frombuffer(pixels, np.uint8).reshape(count, crop, crop, 3)
    return Window(start, end, sound, pictures, steps)


def _task_as_json(task: Task) -> dict[str, Any]:
    return {
        "audio": None if task.audio is None else os.path.abspath(task.audio),  # noqa: PTH100
        "visual": None if task.visual is None else os.path.abspath(task.visual),  # noqa: PTH100
        "rate": task.rate,
        "fit": task.fit and asdict(task.fit),
        "sampling": asdict(task.sampling),
        "limits": asdict(task.limits),
        "threads": task.threads,
        "at": task.at,
    }


# ---------------------------------------------------------------------------------------------------------- the child

OUT_OF_MEMORY = 77


def _task_from_json(message: dict[str, Any]) -> Task:
    return Task(
        audio=message["audio"] and Path(message["audio"]),
        visual=message["visual"] and Path(message["visual"]),
        rate=message["rate"],
        fit=message["fit"] and Fit(**message["fit"]),
        sampling=Sampling(**message["sampling"]),
        limits=Limits(**message["limits"]),
        threads=message["threads"],
        at=message["at"],
    )


def _lock_up() -> None:
    """No files written, no memory dumped; on Linux, no child that outlives its parent and no new privileges."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    die_with_parent()


def die_with_parent() -> None:
    """On Linux, end this process when its parent ends, however that is; and let it gain no privileges."""
    if sys.platform == "linux":
        import ctypes

        libc = ctypes.CDLL(None)
        set_death_signal, no_new_privileges = 1, 38
        libc.prctl(set_death_signal, signal.SIGKILL, 0, 0, 0)
        libc.prctl(no_new_privileges, 1, 0, 0, 0)


def _limit_memory(size: int) -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (size, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _write(out: BinaryIO, header: dict[str, Any], *payload: memoryview) -> None:
    head = json.dumps(header).encode()
    for part in (memoryview(len(head).to_bytes(4, "little") + head), *payload):
        rest = part.cast("B")
        while len(rest):
            rest = rest[out.write(rest) or 0 :]


def _serve() -> int:
    """Decode what the lines of stdin ask for, to stdout."""
    _lock_up()
    import warnings

    import av
    import PIL.Image

    warnings.simplefilter("ignore")
    av.logging.set_level(av.logging.PANIC)
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # a library that prints does not get in between
    for line in sys.stdin.buffer:
        task = _task_from_json(json.loads(line))
        _limit_memory(task.limits.memory)
        PIL.Image.MAX_IMAGE_PIXELS = task.limits.pixels
        try:
            for item in decode(task):
                if isinstance(item, Trouble):
                    _write(out, {"kind": "trouble", "modality": item.modality, "text": item.text})
                    continue
                header = {
                    "kind": "window",
                    "start": item.start,
                    "end": item.end,
                    "samples": None if item.sound is None else len(item.sound),
                    "pictures": 0 if item.pictures is None else len(item.pictures),
                    "steps": item.steps,
                }
                payload = [np.ascontiguousarray(a).data for a in (item.sound, item.pictures) if a is not None]
                _write(out, header, *payload)
        except MemoryError:
            return OUT_OF_MEMORY
        _write(out, {"kind": "end"})
    return 0


if __name__ == "__main__":
    sys.exit(_serve())
