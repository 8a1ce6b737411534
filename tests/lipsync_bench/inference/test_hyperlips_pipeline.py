# SPDX-License-Identifier: Apache-2.0
"""The first stage of HyperLips at inference, from frames and audio to frames, against the released script.

Keys of the golden arrays: `mel_in`, `face_in`, `pred`, what goes into the network and comes out of it; `parser_in`,
what the face parser is shown of the last frame; `frames_s4`, `frames_mean`, the frames written; `changed`, how many
pixels of each frame differ from the source.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from lipsync_bench.datamodules.faces.crops import smooth_boxes_ahead
from lipsync_bench.datamodules.media.audio import frame_mels, mel_spectrogram
from lipsync_bench.inference.face_mask import paste_parsed
from lipsync_bench.inference.lip_sync import to_batch
from lipsync_bench.models.hyperlips.base.network import HyperLipsBaseGenerator
from lipsync_bench.models.pretrained.face_parsing import parse_face
from tests import golden

PAD_BOTTOM_PX = 10
FRAMES = 7


class LabelMap(nn.Module):
    """In place of the parser: always the given labels; records its inputs."""

    def __init__(self, labels: np.ndarray) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.ones(()))  # tells `parse_face` device and type
        self.labels = torch.from_numpy(labels)
        self.shown = torch.empty(0)

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        self.shown = images
        return nn.functional.one_hot(self.labels.long(), 19).permute(2, 0, 1)[None].float()


@dataclass
class Run:
    mels: np.ndarray
    faces: np.ndarray
    predicted: np.ndarray
    shown: np.ndarray
    source: np.ndarray
    written: np.ndarray


def video() -> np.ndarray:
    """uint8 BGR (7, 192, 240, 3)."""
    small = np.floor(256 * golden.uniform("hyperlips.pipe.video", (FRAMES, 24, 30, 3))).astype(np.uint8)
    return small.repeat(8, axis=1).repeat(8, axis=2)


def label_map() -> np.ndarray:
    """A face as the parser might label it: an ellipse of skin with a nose, an eye and a mouth."""
    row, column = np.mgrid[:512, :512]
    labels = np.zeros((512, 512), np.uint8)
    labels[((row - 256) / 220) ** 2 + ((column - 256) / 180) ** 2 < 1] = 1
    labels[(abs(row - 250) < 40) & (abs(column - 256) < 40)] = 10
    labels[(row >= 150) & (row < 190) & (abs(column - 180) < 40)] = 4
    middle = abs(column - 256) < 70
    for label, first, end in ((12, 330, 345), (11, 345, 360), (13, 360, 380)):
        labels[(row >= first) & (row < end) & middle] = label
    return labels


def boxes(height: int) -> np.ndarray:
    """Rectangles of the detector, padded at the bottom and smoothed in place, as Wav2Lip's."""
    i = np.arange(FRAMES)
    raw = np.stack([60 + i, 40 + i % 3, 180 + 2 * i, np.minimum(height, 165 - i + PAD_BOTTOM_PX)], axis=1)
    return smooth_boxes_ahead(raw)


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray]:
    arrays = golden.arrays("hyperlips_pipeline")
    return {key.removeprefix("pipe."): value for key, value in arrays.items() if key.startswith("pipe.")}


@pytest.fixture(scope="module")
def run() -> Run:
    frames = np.ascontiguousarray(video()[..., ::-1])  # ours are RGB
    mel = mel_spectrogram(golden.uniform("hyperlips.pipe.wav", (6400,), -0.5, 0.5), pad_mode="constant")
    mels = frame_mels(mel, FRAMES)

    places = boxes(frames.shape[1])
    crops = [frame[y1:y2, x1:x2] for frame, (x1, y1, x2, y2) in zip(frames, places, strict=True)]
    bgr = to_batch(crops, 128).flip(1)
    masked = bgr.clone()
    masked[:, :, 64:] = 0
    faces = torch.cat([masked, bgr[:1].expand_as(bgr)], dim=1)  # the first frame serves all as reference

    network = HyperLipsBaseGenerator()
    network.load_state_dict(golden.filled(golden.names_and_shapes("hyperlips_base")))
    network.eval()
    with torch.inference_mode():
        predicted = torch.cat([network(torch.from_numpy(mels[k : k + 4]), faces[k : k + 4]) for k in (0, 4)])

    parser = LabelMap(label_map())
    written = []
    for frame, crop, image, box in zip(frames, crops, predicted.flip(1).numpy(), places, strict=True):
        written.append(paste_parsed(frame, box, image, parse_face(parser, crop)))  # type: ignore[arg-type]
    return Run(mels, faces.numpy(), predicted.numpy(), parser.shown.numpy(), frames, np.stack(written))


def test_network_inputs(run: Run, expected: dict[str, np.ndarray]) -> None:
    np.testing.assert_allclose(run.mels[:, :, ::8], expected["mel_in"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(run.faces[:, :, ::8, ::8], expected["face_in"], atol=1e-5, rtol=0)


def test_network_outputs(run: Run, expected: dict[str, np.ndarray]) -> None:
    np.testing.assert_allclose(run.predicted[:, :, ::8, ::8], expected["pred"], atol=1e-5, rtol=0)


def test_parser_inputs(run: Run, expected: dict[str, np.ndarray]) -> None:
    np.testing.assert_allclose(run.shown[:, :, ::16, ::16], expected["parser_in"], atol=1e-5, rtol=0)


def test_written_frames(run: Run, expected: dict[str, np.ndarray]) -> None:
    bgr = run.written[..., ::-1]
    difference = abs(bgr[:, ::4, ::4].astype(int) - expected["frames_s4"])
    # A faithful version is exact; float32 networks may put a value on the other side of a truncation. The nearest wrong
    # version, without the shifted argument of the blur and the like, differs in 102 values.
    assert difference.max() <= 1
    assert np.count_nonzero(difference) <= 50
    assert bgr.mean() == pytest.approx(float(expected["frames_mean"]), abs=1e-3)


def test_size_of_the_change(run: Run, expected: dict[str, np.ndarray]) -> None:
    changed = (run.written != run.source).any(axis=-1).sum(axis=(1, 2))
    np.testing.assert_allclose(changed, expected["changed"], rtol=0.01)


def test_the_intended_blur_differs(run: Run, expected: dict[str, np.ndarray]) -> None:
    frame, image, box = run.source[-1], run.predicted[-1, ::-1], boxes(run.source.shape[1])[-1]
    meant = paste_parsed(frame, box, image, label_map(), released=False)[::4, ::4, ::-1].astype(int)
    assert np.count_nonzero(meant != expected["frames_s4"][-1]) > 100


def test_frames_are_resized_as_the_script_does(run: Run) -> None:
    x1, y1, x2, y2 = boxes(run.source.shape[1])[0]
    crop = cv2.resize(run.source[0, y1:y2, x1:x2], (128, 128))
    np.testing.assert_array_equal(np.rint(run.faces[0, 5:2:-1] * 255).astype(np.uint8), crop.transpose(2, 0, 1))
