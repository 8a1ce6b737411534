# SPDX-License-Identifier: Apache-2.0
"""From a video and audio to dubbed frames, as evaluation and dubbing make them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lipsync_bench.datamodules.errors import MediaError
from lipsync_bench.datamodules.faces.crop_rules.boxes import BoxCut
from lipsync_bench.datamodules.media.audio import frame_mels, mel_spectrogram
from lipsync_bench.datamodules.weights.store import Store
from lipsync_bench.inference.dub import dub_frames
from lipsync_bench.inference.pasting import make_paste
from lipsync_bench.models import Wav2Lip
from lipsync_bench.models.core.session import FaceMaker, Video, images_to_batch
from tests import golden
from tests.sessions import StandIn, geometry_with, recipe_of, session_of, video_of

MEL = np.random.default_rng(2).uniform(-4, 4, (80, 60)).astype(np.float32)


def frames(count: int, height: int = 100, width: int = 90) -> list[np.ndarray]:
    j, r, c, k = np.ogrid[:count, :height, :width, :3]
    return list(((2 * r + 3 * c + 17 * j + 64 * k) % 256).astype(np.uint8))


def boxes(count: int) -> np.ndarray:
    return np.tile([10, 10, 60, 70], (count, 1))


def test_the_whole_published_inference_gives_the_official_frames():
    """Six BGR frames at 30 fps, the recipe's pads, smoothing, references and mel padding, chunks with the extra last
    one, frames repeated from the start.
    """
    expected = golden.arrays("wav2lip")
    t = np.arange(19999) / 16000
    samples = 0.3 * np.sin(2 * np.pi * 220 * t) + 0.2 * np.sin(2 * np.pi * 3000 * t)
    samples[8000:14400] = 0
    assert expected["inf_n_frames"] == 33

    images = [np.ascontiguousarray(frame[..., ::-1]) for frame in frames(6)]  # the golden video is BGR, ours is RGB
    raw = np.array([[10 + j, 12 + 2 * j, 70 + 3 * j, 80 + j] for j in range(6)])  # what S3FD would find
    module = Wav2Lip().eval()
    module.generator.load_state_dict(golden.filled(golden.names_and_shapes("wav2lip")))
    recipe = module.published()
    assert recipe.text() == "s3fd+0,10,0,0~5 96x96 / same / reflect / box"
    mel = mel_spectrogram(samples.astype(np.float32), recipe.mel_padding)
    video = video_of(images, raw, mel, 30.0)
    session = module.session(video, recipe, make_paste(recipe, Store()))
    out = [frame[..., ::-1] for frame in dub_frames(session, (images[i % 6] for i in range(33)))]
    assert len(out) == 33
    difference = np.abs(np.stack([out[0], out[7], out[32]]).astype(int) - expected["inf_frames"])
    assert difference.max() <= 1
    assert (difference > 0).mean() <= 1e-3  # a truncation may flip


def test_the_chunks_do_not_change_the_frames():
    darker = StandIn(lambda x: (x.faces - x.frame_mels.mean(dim=(1, 2, 3))[:, None, None, None] / 20).clamp(0, 1))
    video = video_of(frames(7), boxes(7), MEL)
    for recipe in (recipe_of("same"), recipe_of("first"), recipe_of("random", count=2)):
        made = [
            np.stack(list(dub_frames(session_of(darker, video, recipe), frames(7), batch_frames=n))) for n in (2, 7)
        ]
        np.testing.assert_array_equal(*made)
        assert len(made[0]) == 7


def test_pixels_outside_the_box_are_untouched_and_the_input_is_not_written_to():
    frame = frames(1)[0]
    before = frame.copy()
    paste = make_paste(recipe_of(), Store())
    out = paste(frame, BoxCut((20, 30, 50, 80)), np.ones((3, 8, 8), np.float32), np.zeros((30, 2)))
    np.testing.assert_array_equal(frame, before)
    assert (out[30:80, 20:50] == 255).all()
    out[30:80, 20:50] = frame[30:80, 20:50]
    np.testing.assert_array_equal(out, frame)


def test_hidden_faces_pass_through_and_are_counted():
    video = video_of(frames(6), boxes(6), MEL, hidden=(0, 3))
    session = session_of(StandIn(lambda x: 1 - x.faces), video, recipe_of("first"))
    images = frames(6)
    out = [*session.frames(0, images[:4]), *session.frames(4, images[4:])]
    assert [a is b for a, b in zip(out, images, strict=True)] == [True, False, False, True, False, False]
    assert session.passed_through == 2
    assert session.fallback_frames == 0


def test_references():
    seen = []

    def listen(x):
        seen.append(x)
        return x.faces

    video = video_of(frames(6), boxes(6), MEL, hidden=(0,))
    for kind, count in (("same", 1), ("first", 1), ("random", 3)):
        list(dub_frames(session_of(StandIn(listen), video, recipe_of(kind, count=count)), frames(6), batch_frames=3))
    same, first, drawn = seen[:2], seen[2:4], seen[4:]
    assert all(torch.equal(x.faces, x.reference) for x in same)
    for x in first:  # the first face that is visible
        assert torch.equal(x.reference, first[0].faces[:1].expand_as(x.faces))
    for x in drawn:
        assert x.references.shape == (len(x.faces), 3, 3, 32, 32)
        assert torch.equal(x.references, drawn[0].references[:1].expand_as(x.references))
    again = []
    session = session_of(StandIn(lambda x: again.append(x) or x.faces), video, recipe_of("random", count=3))
    list(session.frames(0, frames(6)))
    assert torch.equal(again[0].references[0], drawn[0].references[0])


def test_generated_faces_that_are_not_finite_are_an_error():
    mel = MEL.copy()
    mel[:, 4] = np.nan
    video = video_of(frames(3), boxes(3), mel)
    module = StandIn(lambda x: x.faces * x.frame_mels.mean(dim=(1, 2, 3))[:, None, None, None])
    with pytest.raises(MediaError, match=r"StandIn: 2 of 3 generated faces have values that are not finite"):
        list(session_of(module, video, recipe_of()).frames(0, frames(3)))


def test_a_recipe_with_further_inputs_needs_a_session_of_its_own():
    recipe = replace(recipe_of(), inputs=("landmark_image",))
    with pytest.raises(ValueError, match=r"landmark_image.*Override its method session"):
        FaceMaker(StandIn(lambda x: x.faces), recipe)


def test_a_missing_detector_is_an_error_that_says_what_to_do():
    whole = geometry_with(boxes(3), (100, 90))
    video = Video(replace(whole, boxes={}), lambda first, count: frame_mels(MEL, count, 25.0, first), lambda: iter([]))
    recipe = Wav2Lip(width=0.125).published()
    with pytest.raises(
        ValueError, match=r"no boxes of the detector s3fd.*bench prepare --boxes s3fd.*--recipe.crop mesh"
    ):
        session_of(StandIn(lambda x: x.faces), video, recipe)


def test_images_become_a_batch_in_unit_range():
    batch = images_to_batch([np.full((16, 12, 3), 255, np.uint8), np.zeros((16, 12, 3), np.uint8)])
    assert batch.shape == (2, 3, 16, 12)
    assert batch[0].min() == 1
    assert batch[1].max() == 0
