# SPDX-License-Identifier: Apache-2.0
"""The voice: a source-filter synthesiser driven by the articulation.

A train of glottal pulses and noise go through resonators whose frequencies follow the mouth: the first rises with the
opening, the second rises with spread lips and falls with rounded ones, the third likewise but less. Structure after
Klatt, "Software for a cascade/parallel formant synthesizer", JASA 1980; pulse after Rosenberg, JASA 1971.
"""

import numpy as np
from scipy.signal import sosfilt

from lipsync_bench.datamodules.datasets.synthetic.articulation import Articulation
from lipsync_bench.datamodules.datasets.synthetic.person import Person
from lipsync_bench.datamodules.media.audio import SAMPLE_RATE

__all__ = ["formants", "synthesise"]

_BLOCK = 80  # samples (5 ms) for which the resonators do not change
_BANDWIDTHS = (70.0, 95.0, 140.0, 220.0)
_PEAK = 0.85


def formants(opening: np.ndarray, spread: np.ndarray, rounding: np.ndarray, tract: float = 1.0) -> np.ndarray:
    """Resonances in Hz, (4, N), of mouths with this opening, spread and rounding: 0..1 each, (N,).

    `tract` scales them all.
    """
    first = 260.0 + 560.0 * opening**0.85
    second = 1450.0 + 950.0 * spread - 680.0 * rounding - 150.0 * opening
    third = 2600.0 + 350.0 * spread - 300.0 * rounding
    return np.stack([first, np.maximum(second, first + 250.0), third, np.full_like(first, 3600.0)]) * tract


def _resonators(centre_hz: np.ndarray, bandwidth_hz: np.ndarray, unit_peak: bool) -> np.ndarray:
    """Second-order sections (..., 6) of resonators with gain 1 at zero frequency, or about 1 at their peak."""
    radius = np.exp(-np.pi * bandwidth_hz / SAMPLE_RATE)
    cosine = np.cos(2 * np.pi * centre_hz / SAMPLE_RATE)
    a1, a2 = -2 * radius * cosine, radius**2
    gain = (1 - radius) * np.sqrt(1 - 2 * radius * (2 * cosine**2 - 1) + radius**2) if unit_peak else 1 + a1 + a2
    zero, one = np.zeros_like(a1), np.ones_like(a1)
    return np.stack([gain, zero, zero, one, a1, a2], axis=-1)


def _filter_in_blocks(samples: np.ndarray, sections: np.ndarray) -> np.ndarray:
    """Filters samples (S,) by sections (blocks, K, 6), each for one block; their state is kept from block to block."""
    out = np.empty_like(samples)
    state = np.zeros((sections.shape[1], 2))
    for index, section in enumerate(np.ascontiguousarray(sections)):
        cut = slice(index * _BLOCK, (index + 1) * _BLOCK)
        out[cut], state = sosfilt(section, samples[cut], zi=state)
    return out


def _glottis(pitch_hz: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Derivative of Rosenberg's pulse (what leaves the lips) along a pitch contour, with jitter and shimmer."""
    wander = np.repeat(rng.normal(0.0, 0.012, len(pitch_hz) // 64 + 1), 64)[: len(pitch_hz)]
    phase = np.cumsum(pitch_hz * (1.0 + wander) / SAMPLE_RATE)
    cycle, place = phase.astype(int), phase % 1.0
    opens, closes = 0.40, 0.16
    rising = (np.pi / 2) * np.sin(np.pi * place / opens) / opens
    falling = -(np.pi / 2) / closes * np.sin(np.pi / 2 * (place - opens) / closes)
    pulse = np.where(place < opens, rising, np.where(place < opens + closes, falling, 0.0))
    shimmer = 1.0 + rng.normal(0.0, 0.04, cycle[-1] + 1)
    return pulse * shimmer[cycle] / 6.0


def synthesise(articulation: Articulation, speaker: Person, rng: np.random.Generator) -> np.ndarray:
    """The voice of an utterance: float32 (S,), 16 kHz, S = seconds * 16000, peak below 0.9."""
    count = round(articulation.seconds * SAMPLE_RATE)
    times = (np.arange(count) + 0.5) / SAMPLE_RATE
    blocks = -(-count // _BLOCK)
    middles = (np.arange(blocks) + 0.5) * _BLOCK / SAMPLE_RATE

    def slow(track: np.ndarray) -> np.ndarray:
        return articulation.at(track, middles)

    opening, spread, rounding = slow(articulation.opening), slow(articulation.spread), slow(articulation.rounding)
    centres = formants(opening, spread, rounding, speaker.tract)
    nasal = slow(articulation.nasal)
    centres[0] += nasal * (260.0 * speaker.tract - centres[0])
    widths = np.array(_BANDWIDTHS)[:, None] * (1.0 + 1.2 * nasal)
    vocal_tract = _resonators(np.minimum(centres, 7000.0), widths, unit_peak=False).transpose(1, 0, 2)

    voice, breath = articulation.at(articulation.voice, times), articulation.at(articulation.noise, times)
    source = _glottis(speaker.pitch_hz * articulation.at(articulation.pitch, times), rng)
    hiss = rng.normal(0.0, 1.0, count)
    # Every voice contains some noise of breath.
    samples = _filter_in_blocks((source + 0.012 * hiss) * voice, vocal_tract)

    noise_hz = slow(articulation.noise_hz)
    noise_level = breath.copy()
    for start_s, loudness, centre_hz in articulation.bursts:
        since = times - start_s
        noise_level += loudness * np.exp(-np.maximum(since, 0.0) / 0.008) * np.clip(since / 0.002 + 1.0, 0.0, 1.0)
        noise_hz[np.abs(middles - start_s) < 0.02] = centre_hz
    frication = _resonators(noise_hz, np.maximum(700.0, 0.30 * noise_hz), unit_peak=True)[:, None]
    samples += 0.8 * _filter_in_blocks(rng.normal(0.0, 1.0, count) * noise_level, np.repeat(frication, 2, axis=1))

    ends = np.clip(np.minimum(times, times[::-1]) / 0.01, 0.0, 1.0)
    samples = samples * ends
    return (samples * (_PEAK / max(float(np.abs(samples).max()), 1e-6))).astype(np.float32)
