# SPDX-License-Identifier: Apache-2.0
"""Windows of 3DMM coefficients against stored facts of VideoReTalking's released inference (`crop_ratio`, `window_0`
whole, `window_20` and `window_38` every fifth column, of videoretalking_pipeline.golden.npz).
"""

import numpy as np
import pytest

from lipsync_bench.models.videoretalking.dnet.coefficients import coefficient_window, scale_ratio
from tests import golden

STORED = golden.arrays("videoretalking_pipeline")
ROWS = golden.uniform("vrt/pipe/coeffs", (40, 262), 0.5, 1.5)
SOURCE = golden.uniform("vrt/pipe/source", (1, 262), 0.5, 1.5)[0]


@pytest.mark.parametrize("frame", [0, 20, 38])
def test_windows_are_the_released_ones(frame: int) -> None:
    ratio = scale_ratio(SOURCE, ROWS)
    assert ratio == pytest.approx(float(STORED["crop_ratio"][0]), rel=1e-6)
    window = coefficient_window(ROWS, frame, ratio=ratio)
    assert window.shape == (73, 26)
    stored = STORED[f"window_{frame}"]
    np.testing.assert_allclose(window if frame == 0 else window[:, ::5], stored, rtol=1e-6)


def test_an_expression_takes_the_place_of_all_frames() -> None:
    expression = np.arange(64, dtype=np.float32)
    window = coefficient_window(ROWS, 5, after=13, expression=expression)
    assert window.shape == (73, 27)
    assert (window[:64] == expression[:, None]).all()
    np.testing.assert_array_equal(window[64:], coefficient_window(ROWS, 5, after=13)[64:])
    np.testing.assert_array_equal(window[64:67, 13], ROWS[5, 224:227])
