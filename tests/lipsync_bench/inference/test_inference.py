# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch

from lipsync_bench.datamodules.errors import MediaError
from lipsync_bench.datamodules.faces.crops import smooth_boxes_ahead
from lipsync_bench.datamodules.media.audio import frame_mels, mel_spectrogram
from lipsync_bench.inference.lip_sync import generate_faces, lip_sync, paste, to_batch
from lipsync_bench.models import Wav2Lip
from tests import golden


class Echo:
    """A method that returns the faces it is given, darker by the mel's mean."""

    image_size = 32
    device = torch.device("cpu")

    def generate(self, frame_mels, faces, references):
        return (faces - frame_mels.mean(dim=(1, 2, 3))[:, None, None, None]).clamp(0, 1)


def frames(count: int, height: int = 100, width: int = 90) -> list[np.ndarray]:
    j, r, c, k = np.ogrid[:count, :height, :width, :3]
    return list(((2 * r + 3 * c + 17 * j + 64 * k) % 256).astype(np.uint8))


def test_the_whole_published_inference_gives_the_official_frames():
    """Six BGR frames at 30 fps, padded and smoothed boxes, chunks with the extra last one, frames repeated from the
    start.
    """
    expected = golden.arrays("wav2lip")
    t = np.arange(19999) / 16000
    samples = 0.3 * np.sin(2 * np.pi * 220 * t) + 0.2 * np.sin(2 * np.pi * 3000 * t)
    samples[8000:14400] = 0
    mel = mel_spectrogram(samples.astype(np.float32))
    assert expected["inf_n_frames"] == 33
    chunks = frame_mels(mel, 33, 30.0)

    video = [frame[..., ::-1] for frame in frames(6)]  # the golden video is BGR, ours is RGB
    padded = np.array([[10 + j, 12 + 2 * j, 70 + 3 * j, 80 + j + 10] for j in range(6)])  # 10 px below, as by default
    boxes = smooth_boxes_ahead(padded)
    index = np.arange(33) % 6

    module = Wav2Lip().eval()
    module.generator.load_state_dict(golden.filled(golden.names_and_shapes("wav2lip")))
    out = [frame[..., ::-1] for frame in lip_sync(module, [video[i] for i in index], boxes[index], chunks)]
    assert len(out) == 33
    difference = np.abs(np.stack([out[0], out[7], out[32]]).astype(int) - expected["inf_frames"])
    assert difference.max() <= 1
    assert (difference > 0).mean() <= 1e-3  # a truncation may flip


def test_the_batch_size_does_not_change_the_frames():
    video = frames(7)
    boxes = np.tile([10, 10, 60, 70], (7, 1)).astype(np.float32)
    mels = np.random.default_rng(0).uniform(0, 0.2, (7, 1, 80, 16)).astype(np.float32)
    first, second = (np.stack(list(lip_sync(Echo(), video, boxes, mels, batch_frames=n))) for n in (2, 7))
    np.testing.assert_array_equal(first, second)
    assert len(first) == 7


def test_pixels_outside_the_box_are_untouched_and_the_input_is_not_written_to():
    frame = frames(1)[0]
    before = frame.copy()
    out = paste(frame, np.ones((3, 8, 8), np.float32), np.array([20, 30, 50, 80]))
    np.testing.assert_array_equal(frame, before)
    assert (out[30:80, 20:50] == 255).all()
    out[30:80, 20:50] = frame[30:80, 20:50]
    np.testing.assert_array_equal(out, frame)


def test_too_few_frames_are_an_error():
    mels = np.zeros((4, 1, 80, 16), np.float32)
    boxes = np.tile([10, 10, 60, 70], (4, 1))
    with pytest.raises(ValueError, match="3 frames, expected 4"):
        list(lip_sync(Echo(), frames(3), boxes, mels))


def test_generated_faces_that_are_not_finite_are_an_error():
    mels = np.zeros((3, 1, 80, 16), np.float32)
    mels[1] = np.nan
    with pytest.raises(MediaError, match=r"Echo: 1 of 3 generated faces have values that are not finite"):
        generate_faces(Echo(), frames(3), mels)


def test_crops_become_a_batch_in_unit_range():
    batch = to_batch([np.full((20, 30, 3), 255, np.uint8), np.zeros((50, 40, 3), np.uint8)], 16)
    assert batch.shape == (2, 3, 16, 16)
    assert batch[0].min() == 1
    assert batch[1].max() == 0
