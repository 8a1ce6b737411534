# SPDX-License-Identifier: Apache-2.0
"""The sync expert's cosine, confidence and offset."""

import math

import pytest
import torch

from lipsync_bench.metrics.sync.expert import METRIC, ExpertClip, ExpertSync, expert_curve
from lipsync_bench.models.wav2lip.sync_expert import SyncExpert


class TinyExpert(SyncExpert):
    """Compares the blue of the first lower half with the mean of the mel window; fast, and checks its input."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.calls = 0

    def forward(self, audio: torch.Tensor, faces: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        assert audio.shape[1:] == (1, 80, 16)
        assert faces.shape[1:] == (15, 48, 96)
        assert len(audio) == len(faces)
        self.calls += 1
        angles = audio.mean(dim=(1, 2, 3)), faces[:, 0].mean(dim=(1, 2)) * math.pi
        audio, video = (torch.stack([torch.cos(angle), torch.sin(angle)], dim=1) * self.weight for angle in angles)
        return audio, video


def clip(frames: int, late_frames: int = 0, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """The blue of each lower half follows the mel window that starts at its frame."""
    random = torch.Generator().manual_seed(seed)
    level = torch.rand(frames + 16, generator=random)
    mel = torch.empty(80, int(3.2 * (frames + 16)))
    for column in range(mel.shape[1]):
        mel[:, column] = level[int(column / 3.2)] * math.pi
    faces = torch.rand(frames, 3, 96, 96, generator=random)
    for t in range(frames):
        start = int(t * 3.2)
        faces[t, 2, 48:] = mel[0, start : start + 16].mean() / math.pi
    shift = int(late_frames * 3.2)
    return faces, (mel.roll(shift, dims=1))[:, : int(3.2 * frames)]


def test_lower_halves_of_frames_are_compared_with_their_mel_columns():
    faces, mel = clip(40)
    curve, means = expert_curve(TinyExpert(), faces, mel)
    assert curve.shape == (36, 31)
    torch.testing.assert_close(curve[:, 15], torch.ones(36, dtype=torch.float64), rtol=0, atol=1e-4)
    assert means.argmax() == 15


def test_windows_beyond_the_audio_are_left_out():
    faces, mel = clip(20)
    curve, means = expert_curve(TinyExpert(), faces, mel)
    audio_windows = sum(int(3.2 * v) + 16 <= mel.shape[1] for v in range(mel.shape[1]))
    for v in range(16):
        for j in range(31):
            assert bool(curve[v, j].isnan()) == (not 0 <= v + j - 15 < audio_windows)
    assert means.isfinite().all()
    short, shift_means = expert_curve(TinyExpert(), faces[:5], mel[:, :16])
    assert short.isfinite().sum() == 1
    assert shift_means.isfinite().sum() == 1


def test_every_window_is_embedded_once():
    expert = TinyExpert()
    expert_curve(expert, *clip(140))
    assert expert.calls == 17  # 136 windows of the video, 8 at a time


@pytest.mark.parametrize("chunks", [[140], [1] * 140, [70, 0, 3, 67], [2, 138]])
@pytest.mark.parametrize("columns", [1000, 300, 16])
def test_chunks_change_nothing(chunks, columns):
    faces, mel = clip(140)
    mel = torch.cat([mel] * 3, dim=1)[:, :columns]
    scorer = ExpertClip(TinyExpert(), mel)
    for part in faces.split(chunks):
        scorer.add(part)
    curve, _ = scorer.curve()
    torch.testing.assert_close(curve, expert_curve(TinyExpert(), faces, mel)[0], equal_nan=True)
    audio_windows = sum(int(3.2 * v) + 16 <= columns for v in range(columns))
    assert int(curve.isfinite().sum()) == sum(0 <= v + s < audio_windows for v in range(136) for s in range(-15, 16))


@pytest.mark.parametrize("late_frames", [-5, 0, 5])
def test_offset_is_positive_when_the_audio_is_early(late_frames):
    score = ExpertSync(TinyExpert(), "test").score(*clip(60, late_frames))
    assert score["expert_offset_frames"] == -late_frames
    assert score["expert_confidence"] > 0.05


def test_equals_the_expert_called_window_by_window():
    torch.manual_seed(0)
    expert = SyncExpert(width=0.125).eval()
    faces, mel = torch.rand(9, 3, 96, 96), torch.randn(80, 40)
    curve, _ = expert_curve(expert, faces, mel, max_shift_frames=2)
    for v, shift in ((0, 0), (1, 2), (4, -2)):
        frames = torch.cat([faces[v + t].flip(0)[:, 48:] for t in range(5)])[None]
        start = int((v + shift) * 3.2)
        with torch.no_grad():
            audio, video = expert(mel[None, None, :, start : start + 16], frames)
        assert float(curve[v, shift + 2]) == pytest.approx(float((audio * video).sum()), abs=1e-5)


def test_scores_fall_as_image_noise_grows():
    faces, mel = clip(80)
    step = torch.randn(80, 1, 1, 1, generator=torch.Generator().manual_seed(1))
    scores = [
        ExpertSync(TinyExpert(), "test").score((faces + sigma * step).clamp(0, 1), mel)
        for sigma in (0, 0.05, 0.15, 0.5)
    ]
    for name in ("expert_cosine", "expert_confidence"):
        values = [score[name] for score in scores]
        assert values == sorted(values, reverse=True), name


def test_expert_is_not_part_of_an_enclosing_module():
    expert = TinyExpert().eval()
    outer = torch.nn.Module()
    outer.metric = ExpertSync(expert, "test")
    outer.train()
    assert not expert.training
    assert list(outer.parameters()) == []


def test_column_names_differ_from_lse():
    metric = ExpertSync(TinyExpert(), "test")
    assert not any(name.startswith("lse") for name in metric.directions)
    assert set(metric.directions) == {column.name for column in METRIC.columns}


@pytest.mark.parametrize(
    ("faces", "mel", "message"),
    [
        (
            torch.zeros(6, 3, 64, 64),
            torch.zeros(80, 30),
            r"faces has shape \(6, 3, 64, 64\).* Expected \(T, 3, 96, 96\)",
        ),
        (
            torch.full((6, 3, 96, 96), 200.0),
            torch.zeros(80, 30),
            r"faces has values from 200 to 200. Expected RGB in \[0, 1\]",
        ),
        (torch.zeros(6, 3, 96, 96), torch.zeros(30, 80), r"mel has shape \(30, 80\).*mel_spectrogram"),
        (
            torch.zeros(4, 3, 96, 96),
            torch.zeros(80, 30),
            "clip too short for the sync expert: 4 frames, 30 mel columns",
        ),
        (
            torch.zeros(5, 3, 96, 96),
            torch.zeros(80, 15),
            "clip too short for the sync expert: 5 frames, 15 mel columns",
        ),
    ],
)
def test_wrong_input_is_refused(faces, mel, message):
    with pytest.raises(ValueError, match=message):
        expert_curve(TinyExpert(), faces, mel)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="max_shift_frames is 0"):
        expert_curve(TinyExpert(), *clip(10), max_shift_frames=0)
    with pytest.raises(ValueError, match="weights is empty"):
        ExpertSync(TinyExpert(), "")
