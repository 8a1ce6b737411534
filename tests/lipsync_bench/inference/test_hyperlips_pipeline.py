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
from torch import Tensor, nn

from lipsync_bench.datamodules.faces.crop_rules.boxes import smooth_boxes_ahead
from lipsync_bench.datamodules.media.audio import mel_spectrogram
from lipsync_bench.inference.face_mask import FaceMaskPaste, paste_parsed
from lipsync_bench.models.hyperlips.base.module import HyperLipsBase
from tests import golden
from tests.sessions import video_of

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


def raw_boxes() -> np.ndarray:
    """Rectangles of the detector."""
    i = np.arange(FRAMES)
    return np.stack([60 + i, 40 + i % 3, 180 + 2 * i, 165 - i], axis=1)


def boxes(height: int) -> np.ndarray:
    """The rectangles, padded at the bottom and smoothed in place, as Wav2Lip's."""
    padded = raw_boxes() + np.array([0, 0, 0, PAD_BOTTOM_PX])
    return smooth_boxes_ahead(np.minimum(padded, [[10**6, 10**6, 10**6, height]]))


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray]:
    arrays = golden.arrays("hyperlips_pipeline")
    return {key.removeprefix("pipe."): value for key, value in arrays.items() if key.startswith("pipe.")}


@pytest.fixture(scope="module")
def run() -> Run:
    frames = np.ascontiguousarray(video()[..., ::-1])  # ours are RGB
    module = HyperLipsBase(variant="released", adversarial_weight=0.0, lpips_weight=0.0, sync_weight=0.0).eval()
    module.generator.load_state_dict(golden.filled(golden.names_and_shapes("hyperlips_base")))
    recipe = module.published()
    assert recipe.text() == "s3fd+0,10,0,0~5 128x128 / first / constant / parser_released"
    mel = mel_spectrogram(golden.uniform("hyperlips.pipe.wav", (6400,), -0.5, 0.5), recipe.mel_padding)

    paste = FaceMaskPaste(released=True)
    parser = LabelMap(label_map())
    paste._parser = parser  # type: ignore[assignment]
    given: list[tuple[Tensor, Tensor]] = []
    made: list[Tensor] = []

    def record(network: nn.Module, inputs: tuple[Tensor, Tensor], out: Tensor) -> None:
        given.append(inputs)
        made.append(out)

    module.generator.register_forward_hook(record)
    session = module.session(video_of(list(frames), raw_boxes(), mel), recipe, paste)
    written = np.stack([*session.frames(0, frames[:4]), *session.frames(4, frames[4:])])
    mels, faces = (torch.cat(parts).numpy() for parts in zip(*given, strict=True))
    return Run(mels, faces, torch.cat(made).numpy(), parser.shown.numpy(), frames, written)


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
