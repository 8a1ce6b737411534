# SPDX-License-Identifier: Apache-2.0
"""What is said: a random chain of syllables, as continuous tracks of the mouth and of the voice.

The tracks are functions of time, sampled at 1 kHz. The picture and the audio are both computed from them, so neither
can lag the other: the resonances and the loudness of the voice depend on the same opening, spread and rounding that
move the lips.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

__all__ = ["CONTROL_RATE", "PHONEMES", "Articulation", "Phoneme", "make_articulation"]

CONTROL_RATE = 1000  # samples of a track per second
# Width (s) of the kernel that joins the targets: how far a sound reaches into its neighbours.
_COARTICULATION_S = 0.032


@dataclass(frozen=True)
class Phoneme:
    """Targets of one sound. Opening of -0.3 presses the lips together, so that they close even in a short consonant."""

    opening: float
    jaw: float
    spread: float
    rounding: float
    seconds: float
    voice: float = 1.0  # loudness of the voice, 0..1
    noise: float = 0.0  # loudness of the breath, 0..1
    noise_hz: float = 3000.0  # middle of its band
    burst: float = 0.0  # loudness of the release
    nasal: float = 0.0
    kind: Literal["vowel", "consonant", "pause"] = "consonant"


PHONEMES: dict[str, Phoneme] = {
    "A": Phoneme(1.00, 0.95, 0.15, 0.0, 0.150, kind="vowel"),
    "E": Phoneme(0.58, 0.50, 0.70, 0.0, 0.130, kind="vowel"),
    "I": Phoneme(0.30, 0.22, 1.00, 0.0, 0.120, kind="vowel"),
    "O": Phoneme(0.62, 0.58, 0.0, 0.75, 0.140, kind="vowel"),
    "U": Phoneme(0.26, 0.25, 0.0, 1.0, 0.125, kind="vowel"),
    "M": Phoneme(-0.30, 0.10, 0.1, 0.1, 0.085, voice=0.30, nasal=1.0),
    "B": Phoneme(-0.30, 0.12, 0.1, 0.1, 0.075, voice=0.10, burst=0.25, noise_hz=900.0),
    "P": Phoneme(-0.30, 0.12, 0.1, 0.1, 0.085, voice=0.0, burst=0.45, noise_hz=1000.0),
    "F": Phoneme(0.06, 0.14, 0.3, 0.0, 0.095, voice=0.0, noise=0.14, noise_hz=4500.0),
    "S": Phoneme(0.14, 0.06, 0.6, 0.0, 0.100, voice=0.0, noise=0.26, noise_hz=6000.0),
    "SH": Phoneme(0.20, 0.10, 0.0, 0.6, 0.105, voice=0.0, noise=0.28, noise_hz=2900.0),
    "T": Phoneme(0.16, 0.12, 0.35, 0.0, 0.075, voice=0.0, burst=0.50, noise_hz=4200.0),
    "D": Phoneme(0.18, 0.15, 0.30, 0.0, 0.060, voice=0.12, burst=0.30, noise_hz=3600.0),
    "K": Phoneme(0.26, 0.22, 0.1, 0.1, 0.080, voice=0.0, burst=0.45, noise_hz=2000.0),
    "N": Phoneme(0.18, 0.15, 0.30, 0.0, 0.070, voice=0.34, nasal=1.0),
    "_": Phoneme(-0.05, 0.02, 0.1, 0.0, 0.3, voice=0.0, kind="pause"),
}
_VOWELS = ("A", "E", "I", "O", "U")
_ONSETS = ("M", "B", "P", "F", "S", "SH", "T", "D", "K", "N", "")
_CODAS = ("", "", "", "", "", "N", "M", "S", "T")


@dataclass(frozen=True)
class Articulation:
    """Tracks of one utterance, float64 (N,) at CONTROL_RATE.

    Args:
        opening: distance of the lips, 0 closed, 1 as wide as it gets.
        jaw: how far the chin is down, 0..1.
        spread: how far the corners of the mouth are apart, 0..1.
        rounding: how far they are drawn together, 0..1.
        voice: loudness of the voice, 0..1.
        noise: loudness of the breath.
        noise_hz: middle of the breath's band.
        nasal: how far the sound goes through the nose, 0..1.
        pitch: factor on the speaker's pitch.
        bursts: (time in s, loudness, middle of the band in Hz) of each release.
        phonemes: (start in s, end in s, name) of each sound; `_` is a pause.
        syllables: what is said; a pause is an empty string.
    """

    opening: np.ndarray
    jaw: np.ndarray
    spread: np.ndarray
    rounding: np.ndarray
    voice: np.ndarray
    noise: np.ndarray
    noise_hz: np.ndarray
    nasal: np.ndarray
    pitch: np.ndarray
    bursts: tuple[tuple[float, float, float], ...]
    phonemes: tuple[tuple[float, float, str], ...]
    syllables: tuple[str, ...]

    @property
    def seconds(self) -> float:
        return len(self.opening) / CONTROL_RATE

    def at(self, track: np.ndarray, times_s: np.ndarray) -> np.ndarray:
        """A track's values at any times, held beyond its ends."""
        return np.interp(times_s * CONTROL_RATE - 0.5, np.arange(len(track)), track)

    @property
    def text(self) -> str:
        """The syllables in capitals, as LRS2 writes its transcripts."""
        return " ".join(syllable for syllable in self.syllables if syllable)


def _syllables(seconds: float, rng: np.random.Generator) -> list[list[tuple[str, float, float]]]:
    """(phoneme, seconds, strength) of each syllable, until the time is filled."""
    said: list[list[tuple[str, float, float]]] = [[("_", float(rng.uniform(0.06, 0.2)), 1.0)]]
    total, left, last = said[0][0][1], int(rng.integers(4, 9)), ""
    while total < seconds:
        if left == 0:
            said.append([("_", float(rng.uniform(0.18, 0.42)), 1.0)])
            left = int(rng.integers(4, 9))
        else:
            vowel = str(rng.choice([name for name in _VOWELS if name != last]))
            # A third of the onsets close the lips: what the eye checks first.
            onset = str(rng.choice(_ONSETS[:3])) if rng.random() < 0.34 else str(rng.choice(_ONSETS[3:]))
            coda = str(rng.choice(_CODAS))
            strength, pace = float(rng.uniform(0.72, 1.08)), float(rng.uniform(0.72, 1.0))
            names = [name for name in (onset, vowel, coda) if name]
            said.append(
                [(name, PHONEMES[name].seconds * pace * float(rng.uniform(0.88, 1.14)), strength) for name in names]
            )
            last, left = vowel, left - 1
        total += sum(length for _, length, _ in said[-1])
    return said


def _smooth(track: np.ndarray, seconds: float) -> np.ndarray:
    """Joins steps by a symmetric bell (so that nothing comes late)."""
    half = round(seconds * CONTROL_RATE * 2)
    bell = 1.0 + np.cos(np.linspace(-np.pi, np.pi, 2 * half + 1))
    return np.convolve(np.pad(track, half, mode="edge"), bell / bell.sum(), mode="valid")


def make_articulation(seconds: float, rng: np.random.Generator) -> Articulation:
    """A random utterance of that length: 4 to 6 syllables a second in phrases of 4 to 8, pauses between them.

    Raises:
        ValueError: less than half a second is asked for.
    """
    if seconds < 0.5:
        raise ValueError(f"an utterance of {seconds} s was asked for; expected at least 0.5 s. Pass a larger seconds.")
    count = round(seconds * CONTROL_RATE)
    said = _syllables(seconds, rng)
    chain = [(name, length, strength) for syllable in said for name, length, strength in syllable]
    edges = np.round(np.cumsum([0.0] + [length for _, length, _ in chain]) * CONTROL_RATE).astype(int)
    edges = np.minimum(edges, count)
    lengths = np.diff(edges)
    sounds = [PHONEMES[name] for name, _, _ in chain]
    strengths = [
        strength if sound.kind == "vowel" else 1.0 for sound, (_, _, strength) in zip(sounds, chain, strict=True)
    ]

    def steps(values: list[float]) -> np.ndarray:
        return np.repeat(np.array(values, np.float64), lengths)

    opening = _smooth(steps([sound.opening * s for sound, s in zip(sounds, strengths, strict=True)]), _COARTICULATION_S)
    opening = np.clip(opening, 0.0, 1.0)
    jaw = _smooth(steps([sound.jaw * s for sound, s in zip(sounds, strengths, strict=True)]), 1.4 * _COARTICULATION_S)
    # Lips that are wide open need the jaw's help; a closed mouth lets it hang a little.
    jaw = np.clip(0.5 * jaw + 0.5 * opening, 0.0, 1.0)
    voice = _smooth(steps([sound.voice for sound in sounds]), 0.5 * _COARTICULATION_S)
    # The wider the mouth, the louder the vowel.
    voice = voice * (0.22 + 0.78 * opening**0.9)
    phrase = np.cumsum(np.array([sound.kind == "pause" for sound in sounds], int))
    fall = np.concatenate(
        [np.linspace(1.08, 0.92, n) for n in np.bincount(np.repeat(phrase, lengths)) if n] or [np.ones(count)]
    )
    drift = _smooth(rng.normal(0.0, 1.0, count), 0.25)
    drift *= 0.05 / max(float(drift.std()), 1e-9)
    bursts = tuple(
        (float(edges[i + 1]) / CONTROL_RATE, sound.burst, sound.noise_hz)
        for i, sound in enumerate(sounds)
        if sound.burst > 0 and edges[i + 1] < count
    )
    return Articulation(
        opening=opening,
        jaw=jaw,
        spread=np.clip(_smooth(steps([sound.spread for sound in sounds]), 1.5 * _COARTICULATION_S), 0.0, 1.0),
        rounding=np.clip(_smooth(steps([sound.rounding for sound in sounds]), 1.5 * _COARTICULATION_S), 0.0, 1.0),
        voice=voice,
        noise=_smooth(steps([sound.noise for sound in sounds]), 0.4 * _COARTICULATION_S),
        noise_hz=_smooth(steps([sound.noise_hz for sound in sounds]), 0.8 * _COARTICULATION_S),
        nasal=_smooth(steps([sound.nasal for sound in sounds]), 0.5 * _COARTICULATION_S),
        pitch=_smooth(fall[:count], 0.05) * (1.0 + drift),
        bursts=bursts,
        phonemes=tuple(
            (edges[i] / CONTROL_RATE, edges[i + 1] / CONTROL_RATE, name)
            for i, (name, _, _) in enumerate(chain)
            if lengths[i] > 0
        ),
        syllables=tuple("".join(name for name, _, _ in syllable if name != "_") for syllable in said),
    )
