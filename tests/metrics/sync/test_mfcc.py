# SPDX-License-Identifier: Apache-2.0
"""The cepstral coefficients against those of python_speech_features 0.6."""

import numpy as np
import pytest

from lipsync_bench.metrics.sync import mfcc as module
from lipsync_bench.metrics.sync.mfcc import mfcc
from tests import golden

TOLERANCE = 1e-9  # all float64; different FFT libraries


def triangle(n: np.ndarray, p: int) -> np.ndarray:
    """Triangle wave 0..p."""
    return np.abs(n % (2 * p) - p)


def inputs(name: str) -> np.ndarray:
    n = np.arange(16000)
    if name == "tone":
        return 60 * (triangle(5 * n, 200) - 100) + 20 * (triangle(61 * n, 300) - 150)
    if name == "impulse":
        return np.where(n[:1600] == 800, 10000, 0)
    if name == "short":
        return 60 * (triangle(5 * n[:300], 200) - 100)
    return np.rint(golden.uniform("syncnet_mfcc_noise", (8005,), -20000, 20000))


@pytest.mark.parametrize("name", ["tone", "impulse", "short", "noise"])
def test_golden(name):
    expected = golden.arrays("syncnet_v2")[f"mfcc_{name}"]
    np.testing.assert_allclose(mfcc(inputs(name).astype(np.int16)), expected, rtol=0, atol=TOLERANCE)


def test_blocks_change_nothing(monkeypatch):
    samples = inputs("noise").astype(np.int16)
    whole = mfcc(samples)
    monkeypatch.setattr(module, "BLOCK_COLUMNS", 7)
    np.testing.assert_allclose(mfcc(samples), whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("samples", "columns"), [(1, 1), (400, 1), (401, 2), (560, 2), (561, 3), (6 * 640, 23)])
def test_number_of_columns(samples, columns):
    assert mfcc(np.ones(samples, np.int16)).shape == (columns, 13)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (
            np.linspace(-0.5, 0.5, 100, dtype=np.float32),
            r"float32, values from -0\.5 to 0\.5\. Expected .* int16 at 16 kHz.*to_int16",
        ),
        (np.zeros((2, 100), np.int16), r"shape \(2, 100\)"),
        (np.zeros(0, np.int16), "non-empty"),
    ],
)
def test_wrong_input(samples, message):
    with pytest.raises(ValueError, match=message):
        mfcc(samples)
