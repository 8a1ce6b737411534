# SPDX-License-Identifier: Apache-2.0
"""The synthetic corpus: same seed, same files; detectors find the faces; mouths open as the truth says, in sync."""

import json
from pathlib import Path

import numpy as np
import pytest

from lipsync_bench.datamodules.datasets.synthetic import Synthetic, make_corpus
from lipsync_bench.datamodules.datasets.synthetic.articulation import PHONEMES, make_articulation
from lipsync_bench.datamodules.datasets.synthetic.corpus import Take, make_take
from lipsync_bench.datamodules.datasets.synthetic.face import FRAME_PX, DrawnFace, Pose
from lipsync_bench.datamodules.datasets.synthetic.person import make_person
from lipsync_bench.datamodules.datasets.synthetic.voice import formants, synthesise
from lipsync_bench.datamodules.faces.detectors import MediaPipeDetector, detect_landmarks68
from lipsync_bench.datamodules.media.audio import SAMPLE_RATE, load_audio
from lipsync_bench.datamodules.media.video import probe, read_frames

CAST = 6
PER_FRAME = SAMPLE_RATE // 25


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("corpus")
    report = make_corpus(out, speakers=2, clips_per_speaker=3, seconds=1.2, seed=3, workers=1, progress=False)
    assert (report.done, report.skipped) == (6, 0)
    return out


@pytest.fixture(scope="module")
def take() -> tuple[Take, list[np.ndarray]]:
    utterance = make_take(speaker=0, clip=0, seconds=3.0)
    return utterance, list(utterance.frames())


def shift_of_best_match(a: np.ndarray, b: np.ndarray, reach: int = 4) -> int:
    """By how many steps b comes later than a."""
    inner = slice(reach, len(a) - reach)
    scores = [np.corrcoef(a[inner], np.roll(b, -shift)[inner])[0, 1] for shift in range(-reach, reach + 1)]
    return int(np.argmax(scores)) - reach


def loudness(wave: np.ndarray, frames: int) -> np.ndarray:
    return np.sqrt(np.square(wave[: frames * PER_FRAME].reshape(frames, PER_FRAME)).mean(axis=1))


def mouth(face: DrawnFace, **articulation: float) -> np.ndarray:
    values = {"opening": 0.0, "jaw": 0.0, "spread": 0.1, "rounding": 0.0, **articulation}
    return face.render(**values, pose=Pose.still(1), frame=0)


# ---- what is said ----


def test_articulation_is_bounded_smooth_and_of_the_length_asked_for() -> None:
    spoken = make_articulation(4.0, np.random.default_rng(0))
    assert spoken.seconds == 4.0
    for track in (spoken.opening, spoken.jaw, spoken.spread, spoken.rounding):
        assert track.shape == (4000,)
        assert track.min() >= 0.0
        assert track.max() <= 1.0
        # No jump: a mouth needs at least 30 ms from closed to open.
        assert np.abs(np.diff(track)).max() < 0.04
    assert spoken.opening.max() > 0.8
    assert set(spoken.text) <= set("AEIOUMBPFSHTDKN ")


def test_speech_has_the_pace_of_speech() -> None:
    spoken = make_articulation(20.0, np.random.default_rng(1))
    speaking = sum(end - start for start, end, name in spoken.phonemes if name != "_")
    assert 4.0 < len(spoken.text.split()) / speaking < 6.5


@pytest.mark.parametrize("seed", range(4))
def test_bilabials_close_the_lips(seed: int) -> None:
    spoken = make_articulation(10.0, np.random.default_rng(seed))
    bilabials = [(start, end) for start, end, name in spoken.phonemes if name in ("M", "B", "P") and end - start > 0.04]
    closed = [spoken.opening[round(start * 1000) : round(end * 1000)].min() for start, end in bilabials]
    assert len(closed) > 5
    assert max(closed) == 0.0
    assert all(PHONEMES[name].opening < 0 for name in ("M", "B", "P"))


def test_windows_of_a_fifth_of_a_second_differ() -> None:
    take = make_take(1, 0, seconds=6.0)
    tracks = np.stack([take.opening, take.spread, take.rounding], axis=1)
    windows = np.stack([tracks[k : k + 5].ravel() for k in range(0, len(tracks) - 5, 5)])
    moving = windows[windows[:, ::3].max(axis=1) > 0.1]
    distances = np.linalg.norm(moving[:, None] - moving[None], axis=2)[~np.eye(len(moving), dtype=bool)]
    assert len(moving) > 15
    assert np.median(distances) > 1.0
    assert (distances < 0.1).mean() < 0.01


def test_too_short_an_utterance_is_refused() -> None:
    with pytest.raises(ValueError, match=r"0\.1 s.*at least 0\.5 s"):
        make_articulation(0.1, np.random.default_rng(0))


# ---- the voice ----


def test_voice_is_sound_without_clicks() -> None:
    spoken = make_articulation(3.0, np.random.default_rng(2))
    wave = synthesise(spoken, make_person(2), np.random.default_rng(2))
    assert (wave.dtype, wave.shape) == (np.float32, (48000,))
    assert 0.5 < np.abs(wave).max() < 0.9
    assert 0.03 < wave.std() < 0.3
    assert np.abs(wave[[0, -1]]).max() < 1e-3
    assert np.abs(np.diff(wave)).max() < 0.5


def test_resonances_follow_the_mouth() -> None:
    opening, spread, rounding = np.eye(3)
    wide, smile, pout = formants(opening, spread, rounding).T
    assert wide[0] > smile[0]
    assert smile[1] > wide[1] > pout[1]
    assert np.all(np.diff(formants(opening, spread, rounding, 0.86), axis=0) > 0)


# ---- the picture ----


def test_the_same_numbers_give_the_same_take() -> None:
    first, second = make_take(1, 4, 0.6, seed=5), make_take(1, 4, 0.6, seed=5)
    other = make_take(1, 4, 0.6, seed=6)
    np.testing.assert_array_equal(first.samples, second.samples)
    articulation = [float(track[0]) for track in (second.opening, second.jaw, second.spread, second.rounding)]
    anew = DrawnFace(second.identity).render(*articulation, second.pose, 0)
    np.testing.assert_array_equal(next(first.frames()), anew)
    assert not np.array_equal(first.opening, other.opening)


def test_speakers_look_and_sound_different() -> None:
    faces = [mouth(DrawnFace(make_person(index))).astype(np.float64) for index in range(CAST)]
    # Mean colours of skin (a cheek on the side that mirroring keeps), hair and background.
    patches = (np.s_[135:150, 105:150], np.s_[30:60, 105:150], np.s_[10:60, 5:35])
    colours = [np.concatenate([face[patch].mean(axis=(0, 1)) for patch in patches]) for face in faces]
    for i in range(CAST):
        for j in range(i):
            assert np.linalg.norm(colours[i] - colours[j]) > 40, f"speakers {i} and {j} look alike"
    voices = [(make_person(index).pitch_hz, make_person(index).tract) for index in range(CAST)]
    assert len(set(voices)) == CAST


def test_speakers_have_different_shapes() -> None:
    shapes = []
    with MediaPipeDetector() as detector:
        for index in range(CAST):
            mesh = detector.detect(mouth(DrawnFace(make_person(index))))[0].mesh[:, :2]
            width, height = np.linalg.norm(mesh[234] - mesh[454]), np.linalg.norm(mesh[10] - mesh[152])
            eyes, lips = np.linalg.norm(mesh[33] - mesh[263]), np.linalg.norm(mesh[61] - mesh[291])
            shapes.append([width / height, eyes / width, lips / width])
    distances = [np.linalg.norm(np.subtract(shapes[i], shapes[j])) for i in range(CAST) for j in range(i)]
    assert min(distances) > 0.005
    assert np.ptp([shape[0] for shape in shapes]) > 0.04


def test_more_speakers_than_the_cast_are_drawn_by_seed() -> None:
    assert make_person(CAST, seed=1) == make_person(CAST, seed=1)
    assert make_person(CAST, seed=1) != make_person(CAST, seed=2)
    assert make_person(CAST + 1, seed=1).name == "s08"


@pytest.mark.parametrize("index", [0, 1, CAST])
def test_every_mouth_shape_is_found_by_both_detectors(index: int) -> None:
    face = DrawnFace(make_person(index))
    shapes = [
        {},
        {"opening": 0.35, "jaw": 0.3, "spread": 1.0},
        {"opening": 1.0, "jaw": 1.0},
        {"opening": 0.25, "jaw": 0.2, "rounding": 1.0},
    ]
    pictures = [mouth(face, **shape) for shape in shapes]
    with MediaPipeDetector() as detector:
        meshes = [detector.detect(picture)[0].mesh[:, :2] for picture in pictures]
    assert all(detect_landmarks68(picture) is not None for picture in pictures)
    gaps = [np.linalg.norm(mesh[13] - mesh[14]) for mesh in meshes]
    widths = [np.linalg.norm(mesh[61] - mesh[291]) for mesh in meshes]
    assert gaps[0] < 1.0 < gaps[1] < gaps[2]
    assert widths[3] < 0.85 * widths[0] < widths[1]


def test_eyes_close() -> None:
    face, pose = DrawnFace(make_person(0)), Pose.still(2)
    pose.blink[1] = 1.0
    open_eyes, closed_eyes = (face.render(0.0, 0.0, 0.1, 0.0, pose, k).astype(int) for k in range(2))
    changed = np.abs(open_eyes - closed_eyes).max(axis=2) > 20
    rows, _ = np.nonzero(changed)
    assert changed.sum() > 150
    assert rows.min() > 90
    assert rows.max() < 125
    np.testing.assert_array_equal(face.render(0.0, 0.0, 0.1, 0.0, pose, 0), open_eyes)


def test_detectors_measure_the_opening_that_is_stored(take: tuple[Take, list[np.ndarray]]) -> None:
    utterance, frames = take
    by_mesh, by_dlib, found = [], [], []
    with MediaPipeDetector() as detector:
        for k, frame in enumerate(frames):
            faces, landmarks = detector.detect(frame), detect_landmarks68(frame)
            if not faces or landmarks is None:
                continue
            mesh, points = faces[0].mesh[:, :2], landmarks[1]
            by_mesh.append(np.linalg.norm(mesh[13] - mesh[14]) / np.linalg.norm(mesh[10] - mesh[152]))
            by_dlib.append(np.linalg.norm(points[62] - points[66]) / np.linalg.norm(points[27] - points[8]))
            found.append(k)
    assert len(found) >= 0.99 * len(frames)
    truth = utterance.opening[found]
    assert np.corrcoef(by_mesh, truth)[0, 1] > 0.95
    assert np.corrcoef(by_dlib, truth)[0, 1] > 0.9
    # Bilabials close the lips that are seen, too.
    assert max(np.array(by_mesh)[truth == 0.0]) < 0.02
    assert min(np.array(by_mesh)[truth > 0.8]) > 0.08


@pytest.mark.parametrize("speaker", range(CAST))
def test_sound_and_mouth_are_in_sync(speaker: int) -> None:
    utterance = make_take(speaker, 1, seconds=3.0)
    energy = loudness(utterance.samples, len(utterance.opening))
    assert shift_of_best_match(utterance.opening, energy) == 0
    assert np.corrcoef(utterance.opening, energy)[0, 1] > 0.7


# ---- the files ----


def test_files_are_laid_out_like_lrs2(corpus: Path) -> None:
    names = [f"{speaker}/{clip:05d}" for speaker in ("s01", "s02") for clip in (1, 2, 3)]
    lists = {split: (corpus / f"{split}.txt").read_text().split() for split in ("train", "val", "test")}
    assert lists == {"train": names[0::3], "val": names[1::3], "test": names[2::3]}
    for name in names:
        info = probe(corpus / "main" / f"{name}.mp4")
        assert (info.width, info.height, info.fps, info.frames, info.has_audio) == (FRAME_PX, FRAME_PX, 25.0, 30, True)
        assert (corpus / "main" / f"{name}.txt").read_text().startswith("Text:  ")
        with np.load(corpus / "truth" / f"{name}.npz") as truth:
            assert set(truth) == {"opening", "jaw", "spread", "round", "seed"}
            assert all(truth[key].shape == (30,) for key in ("opening", "jaw", "spread", "round"))
            assert 0.0 <= truth["opening"].min() <= truth["opening"].max() <= 1.0
    record = json.loads((corpus / "corpus.json").read_text())
    assert record["settings"]["seed"] == 3
    assert "public domain" in record["licence"]
    assert [speaker["name"] for speaker in record["speakers"]] == ["s01", "s02"]


def test_files_show_what_was_rendered_in_sync(corpus: Path) -> None:
    path, take = corpus / "main/s01/00001.mp4", make_take(0, 0, 1.2, seed=3)
    frames = list(read_frames(path))
    assert len(frames) == 30
    for frame, rendered in zip(frames[::10], list(take.frames())[::10], strict=True):
        assert np.abs(frame.astype(int) - rendered).mean() < 3.0  # what the codec loses
    wave = load_audio(path)
    energy = loudness(wave, 30)
    assert np.corrcoef(energy, loudness(take.samples, 30))[0, 1] > 0.98
    with np.load(corpus / "truth/s01/00001.npz") as truth:
        assert shift_of_best_match(truth["opening"], energy) == 0


def test_same_seed_gives_the_same_files_on_any_number_of_workers(corpus: Path, tmp_path: Path) -> None:
    make_corpus(tmp_path, speakers=2, clips_per_speaker=3, seconds=1.2, seed=3, workers=2, progress=False)
    files = sorted(path.relative_to(corpus) for path in corpus.rglob("*") if path.is_file())
    assert len(files) == 4 + 3 * 6
    for file in files:
        assert (tmp_path / file).read_bytes() == (corpus / file).read_bytes(), file


def test_a_run_that_was_stopped_goes_on(corpus: Path) -> None:
    settings = {"speakers": 2, "clips_per_speaker": 3, "seconds": 1.2, "seed": 3}
    kept, lost = corpus / "main/s01/00002.mp4", corpus / "main/s02/00001.mp4"
    before, content = kept.stat().st_mtime_ns, lost.read_bytes()
    lost.unlink()
    (corpus / "truth/s02/00002.npz").unlink()
    report = make_corpus(corpus, **settings, workers=1, progress=False)
    assert (report.done, report.skipped) == (2, 4)
    assert lost.read_bytes() == content
    assert kept.stat().st_mtime_ns == before
    again = make_corpus(corpus, **settings, workers=1, progress=False)
    assert (again.done, again.skipped) == (0, 6)


def test_other_settings_need_another_folder(corpus: Path) -> None:
    with pytest.raises(ValueError, match=r"seed 3 instead of 4.*another folder with --out, or delete this one"):
        make_corpus(corpus, speakers=2, clips_per_speaker=3, seconds=1.2, seed=4, progress=False)


def test_a_folder_of_other_videos_is_left_alone(tmp_path: Path) -> None:
    video = tmp_path / "main/5535415699068794046/00001.mp4"
    video.parent.mkdir(parents=True)
    video.write_bytes(b"mine")
    with pytest.raises(ValueError, match=r"no corpus\.json.*--out"):
        make_corpus(tmp_path, progress=False)
    assert video.read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"speakers": 0}, "speakers is 0"),
        ({"clips_per_speaker": 2}, "at least one more"),
        ({"seconds": 0.1}, r"seconds is 0\.1"),
    ],
)
def test_numbers_that_make_no_corpus_are_refused(tmp_path: Path, arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_corpus(tmp_path, **arguments, progress=False)
    assert not any(tmp_path.iterdir())


def test_datamodule_names_the_commands_that_make_its_clips(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"bench synthetic --out DIR.*bench prepare --dataset synthetic"):
        Synthetic(root=tmp_path).prepare_data()
