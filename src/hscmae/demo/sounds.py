"""Twelve kinds of sound and six ambiences, synthesised so that one knows each by ear.

Every sound is a function of a random generator, a ``size`` in [0, 1] (a large dog barks low, a small bell rings
high) and a number of samples at ``RATE``; it varies pitch, tempo and colour by the generator. Ambiences have no size.
Built from four bricks: harmonic tones with formants, decaying partials, band-limited noise, and envelopes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

RATE = 16_000
BLOCK = 800  # samples, 50 ms; recordings are whole numbers of blocks
Wave = npt.NDArray[np.float64]
Rng = np.random.Generator


def _times(samples: int) -> Wave:
    return np.arange(samples) / RATE


def _between(rng: Rng, low: float, high: float) -> float:
    """A number drawn evenly on a logarithmic scale."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _noise(rng: Rng, samples: int, low: float, high: float, slope: float = 0.0) -> Wave:
    """Noise between two frequencies in Hz, edges an octave wide, amplitude falling as frequency**-slope; RMS 1."""
    size = -(-samples // BLOCK) * BLOCK  # lengths of small prime factors: fast transforms
    frequency = np.maximum(np.fft.rfftfreq(size, 1 / RATE), 1.0)
    below, above = (low / frequency) ** 2, (frequency / high) ** 2
    gain = 1 / ((1 + below * below) * (1 + above * above))
    if slope:
        gain *= frequency**-slope
    spectrum = gain * rng.standard_normal(2 * len(frequency)).view(np.complex128)
    wave = np.fft.irfft(spectrum, size)[:samples]
    return np.asarray(wave / (np.sqrt(np.mean(wave**2)) + 1e-12))


def _swell(rng: Rng, samples: int, rate: float, depth: float) -> Wave:
    """A slow random envelope around 1: about ``rate`` swings a second, clipped at 0."""
    knots = 2 + int(np.ceil(samples / RATE * rate * 2))
    curve = np.interp(np.linspace(0, knots - 1, samples), np.arange(knots), rng.uniform(-1, 1, knots))
    return np.asarray(np.maximum(1 + depth * curve, 0.0))


def _voice(pitch: Wave, formants: Sequence[tuple[Wave | float, float, float]], slope: float) -> Wave:
    """Harmonics of a moving pitch in Hz, shaped by formants (centre and width in Hz, gain), falling as k**-slope."""
    turn = np.exp(2j * np.pi * np.cumsum(pitch) / RATE)
    coarse = np.arange(0, len(pitch), 16)  # formants move slowly: shaped at every 16th sample, then drawn out
    centres = [np.broadcast_to(centre, pitch.shape)[coarse] for centre, _, _ in formants]
    wave, harmonic = np.zeros(len(pitch)), np.ones(len(pitch), dtype=complex)
    for k in range(1, max(2, int(6000 / pitch.min()) + 1)):
        harmonic *= turn
        frequency = k * pitch[coarse]
        shape = np.full(len(coarse), 0.02)
        for centre, (_, width, gain) in zip(centres, formants, strict=True):
            shape += gain * np.exp(-np.square((frequency - centre) / width))
        shape *= k**-slope * (frequency < 7500)
        wave += np.repeat(shape, 16)[: len(pitch)] * harmonic.imag
    return wave


def _partials(samples: int, frequencies: Wave, amplitudes: Wave, decays: Wave) -> Wave:
    """Struck partials: frequencies in Hz, decays in seconds."""
    keep = frequencies < 7800
    rate = (2j * np.pi * frequencies[keep] - 1 / decays[keep]) / RATE
    # exp(rate * (256 a + b)) is a product of two: one small matrix product instead of a long exponential each.
    late = np.exp(np.arange(0, samples, 256)[:, None] * rate) * amplitudes[keep]
    early = np.exp(np.arange(256)[:, None] * rate)
    return np.asarray((late @ early.T).imag.ravel()[:samples])


def _place(out: Wave, start: float, sound: Wave) -> None:
    """Add ``sound`` to ``out`` from ``start`` seconds on, cut at the end."""
    first = int(start * RATE)
    sound = sound[: max(0, len(out) - first)]
    out[first : first + len(sound)] += sound


def _dog(rng: Rng, size: float, samples: int) -> Wave:
    out = np.zeros(samples)
    base = 620 * 0.3**size * _between(rng, 0.9, 1.1)
    tract = 1.35 - 0.6 * size
    at, gap = rng.uniform(0.0, 0.3), _between(rng, 0.32, 0.6)
    while at < samples / RATE - 0.1:
        n = int(RATE * rng.uniform(0.16, 0.24))
        u = np.linspace(0, 1, n)
        pitch = base * rng.uniform(0.95, 1.05) * (0.75 + 0.55 * np.exp(-(((u - 0.25) / 0.25) ** 2)))
        bark = _voice(pitch, [(650 * tract, 300, 1.0), (1250 * tract, 350, 0.7), (2600 * tract, 500, 0.25)], 0.4)
        bark += 0.35 * np.abs(bark).mean() * _noise(rng, n, 500, 3000)
        _place(out, at, bark * np.minimum(u / 0.06, 1) * np.exp(-3.5 * u) * (1 - u**8))
        at += gap * rng.uniform(0.85, 1.15) * (2.0 if rng.random() < 0.2 else 1.0)
    return out


def _cat(rng: Rng, size: float, samples: int) -> Wave:
    out = np.zeros(samples)
    at = rng.uniform(0.05, 0.5)
    while at < samples / RATE - 0.4:
        n = int(RATE * rng.uniform(0.6, 0.95))
        u = np.linspace(0, 1, n)
        pitch = (
            760 * 0.55**size * (0.8 + 0.35 * np.sin(np.pi * u**0.7) - 0.2 * u) * (1 + 0.012 * np.sin(2 * np.pi * 7 * u))
        )
        opening = np.sin(np.pi * np.clip(u * 1.1, 0, 1)) ** 1.2  # m - e - ow
        meow = _voice(pitch, [(500 + 700 * opening, 280, 1.0), (2300 - 900 * u, 450, 0.7), (3600, 500, 0.2)], 0.3)
        _place(out, at, meow * (0.15 + opening) * np.minimum(u / 0.08, 1) * np.minimum((1 - u) / 0.15, 1))
        at += n / RATE + rng.uniform(0.25, 0.8)
    return out


def _bird(rng: Rng, size: float, samples: int) -> Wave:
    out = np.zeros(samples)
    base = 5200 * 0.45**size * _between(rng, 0.9, 1.1)
    style = rng.integers(3)  # falling tweets, rising tweets, trill
    at = rng.uniform(0.0, 0.3)
    while at < samples / RATE - 0.1:
        for _ in range(rng.integers(2, 5) if style < 2 else rng.integers(6, 12)):
            n = int(RATE * (rng.uniform(0.07, 0.14) if style < 2 else 0.04))
            u = np.linspace(0, 1, n)
            sweep = (0.35 * (0.5 - u), 0.35 * (u - 0.5), 0.12 * np.sin(2 * np.pi * u))[style]
            chirp = np.sin(2 * np.pi * np.cumsum(base * (1 + sweep) * rng.uniform(0.95, 1.05)) / RATE)
            _place(out, at, chirp * np.sin(np.pi * u) ** 0.8)
            at += n / RATE + (rng.uniform(0.03, 0.08) if style < 2 else 0.02)
        at += rng.uniform(0.2, 0.6)
    return out


def _bell(rng: Rng, size: float, samples: int) -> Wave:
    out = np.zeros(samples)
    hum = 420 * 0.28**size * _between(rng, 0.9, 1.1)
    ratios = np.array([1.0, 2.0, 2.4, 3.0, 4.0, 5.02, 5.9, 8.1, 10.6]) * rng.uniform(0.995, 1.005, 9)
    amplitudes = np.array([0.6, 0.8, 0.9, 0.5, 1.0, 0.4, 0.3, 0.25, 0.15]) * rng.uniform(0.7, 1.3, 9)
    decays = (0.7 + 1.2 * size) / ratios**0.6 * 1.6
    at, gap = rng.uniform(0.0, 0.3), _between(rng, 0.8, 1.5)
    stroke = _partials(samples, hum * ratios, amplitudes, decays)
    while at < samples / RATE:
        _place(out, at, rng.uniform(0.7, 1.0) * stroke)
        at += gap
    return out


def _telephone(rng: Rng, size: float, samples: int) -> Wave:
    low = 1500 * 0.65**size * _between(rng, 0.93, 1.07)
    strike = _partials(
        int(0.35 * RATE),
        low * np.array([1.0, 1.26, 2.71, 3.4, 4.2]),
        np.array([1.0, 0.9, 0.4, 0.35, 0.15]),
        np.array([0.16, 0.16, 0.08, 0.08, 0.05]),
    )
    out = np.zeros(samples)
    at, on, off, beat = rng.uniform(0.0, 0.3), rng.uniform(0.7, 1.0), rng.uniform(0.35, 0.6), _between(rng, 19, 26)
    while at < samples / RATE:
        for k in range(int(on * beat)):
            _place(out, at + k / beat, strike * (1.0 if k % 2 else 0.75))
        at += on + off
    return out


def _clock(rng: Rng, size: float, samples: int) -> Wave:
    out = np.zeros(samples)
    pitch = 3400 * 0.4**size * _between(rng, 0.9, 1.1)
    period = 0.28 + 0.3 * size
    at, tock = rng.uniform(0.0, period), 1.0
    while at < samples / RATE:
        click = _partials(
            1200, pitch * tock * np.array([1.0, 1.63, 2.3]), np.array([1.0, 0.6, 0.4]), np.array([0.012, 0.008, 0.004])
        )
        click[:90] += 0.5 * _noise(rng, 90, 1500, 7000) * np.linspace(1, 0, 90)
        _place(out, at, click)
        at, tock = at + period, 0.78 if tock == 1.0 else 1.0
    return out


def _drum(rng: Rng, size: float, samples: int) -> Wave:
    out = np.zeros(samples)
    n = int(0.4 * RATE)
    t = _times(n)
    low = 95 * 0.6**size
    kick = np.sin(2 * np.pi * np.cumsum(low * (1 + 1.8 * np.exp(-t / 0.025))) / RATE) * np.exp(-t / 0.13)
    rattle = _noise(rng, n, 1200, 7000) * np.exp(-t / 0.07)
    snare = 0.45 * rattle + 0.6 * np.sin(2 * np.pi * 2.1 * low * t) * np.exp(-t / 0.06)
    step = 60 / _between(rng, 95, 150) / 2
    pattern = (("k", "", "s", "", "k", "k", "s", ""), ("k", "s", "k", "s"), ("k", "", "s", "s", "k", "", "s", "k"))
    beats = pattern[rng.integers(3)]
    for k in range(int(samples / RATE / step) + 1):
        if beats[k % len(beats)]:
            _place(out, k * step, rng.uniform(0.8, 1.0) * (kick if beats[k % len(beats)] == "k" else snare))
    return out


def _violin(rng: Rng, size: float, samples: int) -> Wave:
    out = np.zeros(samples)
    root = 620 * 0.4**size * _between(rng, 0.9, 1.1)  # a violin, a viola, a cello
    scale = np.array([0, 2, 4, 5, 7, 9, 11, 12])
    at, note = 0.0, int(rng.integers(0, 5))
    while at < samples / RATE - 0.1:
        n = int(RATE * rng.uniform(0.4, 0.85))
        t = _times(n)
        vibrato = 1 + 0.008 * np.minimum(t / 0.2, 1) * np.sin(2 * np.pi * rng.uniform(5, 6.5) * t)
        body = 1.2 - 0.5 * size
        tone = _voice(
            root * 2 ** (scale[note] / 12) * vibrato,
            [(480 * body, 350, 1.0), (1150 * body, 500, 0.9), (2900, 900, 0.8)],
            0.7,
        )
        tone += 0.05 * np.abs(tone).mean() * _noise(rng, n, 2000, 6000)
        _place(out, at, tone * np.minimum(t / 0.07, 1) * np.minimum((t[-1] - t) / 0.08, 1))
        at += n / RATE
        note = int(np.clip(note + rng.choice([-2, -1, 1, 2, 3]), 0, 7))
    return out


def _siren(rng: Rng, size: float, samples: int) -> Wave:
    t = _times(samples)
    shift = 1.25 * 0.72**size * _between(rng, 0.95, 1.05)
    start = rng.random()
    if rng.random() < 0.5:  # hi-lo
        pitch = np.where((t / rng.uniform(0.45, 0.65) + start) % 2 < 1, 440.0, 585.0) * shift * 1.2
    else:  # wail
        pitch = shift * (650 + 550 * (0.5 - 0.5 * np.cos(2 * np.pi * (t * rng.uniform(0.35, 0.9) + start))))
    wave = _voice(pitch, [(1100, 900, 1.0), (2600, 900, 0.5)], 0.8)
    return wave * _swell(rng, samples, 0.6, 0.35)


def _engine(rng: Rng, size: float, samples: int) -> Wave:
    t = _times(samples)
    idle = 62 * 0.42**size * _between(rng, 0.9, 1.1)
    rev = rng.uniform(0.3, 1.2) * np.maximum(np.sin(2 * np.pi * (t * rng.uniform(0.2, 0.5) + rng.random())), 0)
    half = np.exp(1j * np.pi * np.cumsum(idle * (1 + rev)) / RATE)  # half orders: a four-stroke engine
    orders = np.arange(1, 40) * 0.5
    weights = rng.uniform(0.3, 1.0, len(orders)) * orders**-0.6 * np.where(np.arange(1, 40) % 4 == 0, 2.2, 1.0)
    offsets = rng.uniform(0, 2 * np.pi, len(orders))
    total = np.zeros(samples, dtype=complex)
    for factor in (weights * np.exp(1j * offsets))[::-1]:  # Horner
        total = (total + factor) * half
    rumble, puff = total.imag, 0.5 + 0.5 * (half**4).imag
    return np.asarray(np.tanh(0.6 * rumble) + 0.3 * puff**3 * _noise(rng, samples, 150, 1800, 0.5))


def _rain(rng: Rng, size: float, samples: int) -> Wave:
    hiss = _noise(rng, samples, 1200 - 600 * size, 6500, 0.2) * _swell(rng, samples, 3, 0.1)
    out = 0.6 * hiss
    for at in rng.uniform(0, samples / RATE, int(60 + 120 * size)):
        n = int(RATE * 0.02)
        pitch = _between(rng, 1500, 5500) * np.linspace(1.0, 1.25, n)
        drop = np.sin(2 * np.pi * np.cumsum(pitch) / RATE) * np.exp(-np.linspace(0, 5, n))
        _place(out, at, _between(rng, 0.4, 3.0) * drop)
    return out


def _waves(rng: Rng, size: float, samples: int) -> Wave:
    t = _times(samples)
    u = (t * rng.uniform(0.35, 0.6) + rng.random()) % 1.0
    breaking = np.where(u < 0.45, (u / 0.45) ** 2, np.exp(-(u - 0.45) / 0.22))
    roar = _noise(rng, samples, 60, 700 - 300 * size, 0.6)
    foam = _noise(rng, samples, 500, 4500, 0.5)
    return roar * (0.25 + 0.75 * breaking) + foam * breaking**1.5


EVENTS: Mapping[str, Callable[[Rng, float, int], Wave]] = {
    "dog": _dog, "cat": _cat, "bird": _bird, "bell": _bell, "telephone": _telephone, "clock": _clock,
    "drum": _drum, "violin": _violin, "siren": _siren, "engine": _engine, "rain": _rain, "waves": _waves,
}  # fmt: skip


def _street(rng: Rng, samples: int) -> Wave:
    passing = np.exp(-(((_times(samples) - rng.uniform(0, samples / RATE)) / 0.6) ** 2))
    return _noise(rng, samples, 40, 250, 0.5) + passing * _noise(rng, samples, 200, 1500, 0.5)


def _forest(rng: Rng, samples: int) -> Wave:
    return _noise(rng, samples, 800, 4500, 0.3) * _swell(rng, samples, 1.5, 0.8)


def _room(rng: Rng, samples: int) -> Wave:
    t = _times(samples)
    hum = sum(
        a * np.sin(2 * np.pi * 50 * k * t + rng.uniform(0, 6)) for k, a in ((2, 1.0), (4, 0.6), (6, 0.4), (12, 0.2))
    )
    return np.asarray(hum + 0.4 * _noise(rng, samples, 100, 2000, 0.8))


def _night(rng: Rng, samples: int) -> Wave:
    t = _times(samples)
    pitch, beat = _between(rng, 4200, 5000), rng.uniform(14, 18)
    chirring = np.maximum(np.sin(2 * np.pi * beat * t), 0) * ((t * rng.uniform(1.6, 2.4) + rng.random()) % 1 < 0.55)
    return chirring * np.sin(2 * np.pi * pitch * t) + 0.15 * _noise(rng, samples, 100, 1500, 0.5)


def _crowd(rng: Rng, samples: int) -> Wave:
    out = np.zeros(samples)
    for _ in range(7):
        centre = _between(rng, 350, 1600)
        out += _noise(rng, samples, centre / 1.4, centre * 1.4, 0.3) * _swell(rng, samples, 4.5, 1.0) ** 2
    return out


def _field(rng: Rng, samples: int) -> Wave:
    centre = _between(rng, 350, 700)
    whistle = _noise(rng, samples, centre / 1.1, centre * 1.1) * _swell(rng, samples, 0.8, 0.9)
    return whistle + 0.6 * _noise(rng, samples, 50, 300, 0.5) * _swell(rng, samples, 1.2, 0.8)


AMBIENCES: Mapping[str, Callable[[Rng, int], Wave]] = {
    "street": _street, "forest": _forest, "room": _room, "night": _night, "crowd": _crowd, "field": _field,
}  # fmt: skip


def mix(rng: Rng, events: Sequence[tuple[str, float]], ambience: str, samples: int) -> npt.NDArray[np.int16]:
    """A recording: the events (kind, size) over an ambience, through a cheap microphone.

    Args:
        rng: gives every variation, so that the same state gives the same samples.
        events: what is heard.
        ambience: a key of ``AMBIENCES``; mostly 3 to 18 dB below an event.
        samples: length at ``RATE``, a multiple of ``BLOCK``.

    Returns:
        Shape (samples,), 16-bit.
    """
    background = AMBIENCES[ambience](rng, samples)
    out = background / (_loudness(background) + 1e-9) * 10 ** (rng.uniform(-18, -3) / 20)
    for kind, size in events:
        sound = EVENTS[kind](rng, size, samples)
        out += sound / (_loudness(sound) + 1e-9) * 10 ** (rng.uniform(-5, 2) / 20)
    out += 10 ** (rng.uniform(-50, -32) / 20) * rng.normal(size=samples)
    # The microphone: a tilt of the spectrum, and a level.
    spectrum = np.fft.rfft(out)
    octaves = np.log2(np.maximum(np.fft.rfftfreq(samples, 1 / RATE), 30) / 1000)
    out = np.fft.irfft(spectrum * 10 ** (rng.uniform(-2.5, 2.5) * octaves / 20), samples)
    peak = np.abs(out).max() + 1e-9
    return np.asarray(np.round(out / peak * 32767 * 10 ** (rng.uniform(-15, -1) / 20)), dtype=np.int16)


def _loudness(wave: Wave) -> float:
    """RMS of the loudest quarter of the sound's blocks, so that rare barks are not pumped up."""
    power = np.sort(np.square(wave.reshape(-1, BLOCK)).mean(axis=1))
    return float(np.sqrt(power[-max(1, len(power) // 4) :].mean()))
