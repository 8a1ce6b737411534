# SPDX-License-Identifier: Apache-2.0
"""Boxes and tracks beside prepared clips: what they hold, that only what is missing is made, and what fails alone."""

import dataclasses
import errno
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lipsync_bench.datamodules.clips.boxes import Boxes, boxes_path, clip_geometry
from lipsync_bench.datamodules.clips.clip import Clip
from lipsync_bench.datamodules.clips.track import Track, encode_face, track_path
from lipsync_bench.datamodules.faces.crop_rules.boxes import DetectorBox, FaceMeshBox
from lipsync_bench.datamodules.faces.crop_rules.rule import Cut
from lipsync_bench.datamodules.faces.detectors import DlibDetector, MediaPipeDetector
from lipsync_bench.datamodules.faces.geometry import Geometry
from lipsync_bench.datamodules.faces.options import FaceOptions
from lipsync_bench.datamodules.files.disk import sha256
from lipsync_bench.datamodules.media.video import read_frames
from lipsync_bench.datamodules.prepare import beside, make_clip
from lipsync_bench.datamodules.prepare import prepare as prepare_module
from lipsync_bench.datamodules.prepare.make_clip import Job, Outcome
from lipsync_bench.datamodules.prepare.options import PrepareOptions
from lipsync_bench.datamodules.prepare.pool import WorkerDied
from lipsync_bench.datamodules.prepare.prepare import PrepareReport, prepare
from lipsync_bench.datamodules.recipes.recipe import Recipe, References
from lipsync_bench.datamodules.splitting import Splitting
from tests.datamodules.preparation import contents, failures, manifest, write_video

DLIB = Recipe(DetectorBox("dlib", (0, 10, 0, 0), 5), (96, 96), DetectorBox("dlib"), references=References("same"))
WIDE = Recipe(FaceMeshBox(), (48, 64), resize="area")
CLIPS = ("anna/1", "bob/1", "zoë/клип_7")
FRAMES = 6


class _Refuses(FaceMeshBox):
    """Cannot cut the faces of longer clips."""

    def cuts(self, geometry: Geometry) -> Sequence[Cut | None]:
        if len(geometry) > FRAMES:
            raise ValueError("frame 3: the quad leaves the frame")
        return super().cuts(geometry)


@dataclasses.dataclass(frozen=True)
class _Bursts(FaceMeshBox):
    """Fails at its fourth frame."""

    def cuts(self, geometry: Geometry) -> Sequence[Cut | None]:
        return [*super().cuts(geometry)[:3], *[None] * (len(geometry) - 3)]


def run(source: Path, *recipes: Recipe, part: str | None = None, faces: Any = FaceOptions(), **options: Any) -> Any:
    """Prepare into the folder `out` beside the source."""
    chosen = PrepareOptions(**{"workers": 1, **options})
    out = source.parent / "out"
    return prepare(source, out, chosen, faces, splitting=Splitting(part), recipes=recipes, progress=False)


def counts(report: PrepareReport) -> dict[str, tuple[int, int, int]]:
    return {what: (made, there, failed) for what, made, there, failed in report.parts}


def tracks(out: Path, recipe: Recipe) -> list[Path]:
    return [track_path(out / f"{name}.safetensors", recipe.track_digest) for name in CLIPS]


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("short") / "short.mp4", FRAMES)


@pytest.fixture
def source(tmp_path: Path, short: Path) -> Path:
    """Three short videos of three speakers."""
    for name in ("anna/1.mp4", "bob/1.mp4", "zoë/клип 7.mp4"):
        (tmp_path / "in" / name).parent.mkdir(parents=True)
        shutil.copy(short, tmp_path / "in" / name)
    return tmp_path / "in"


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was decoded, by which module."""
    found: list[str] = []
    for module in (make_clip, beside):

        def counting(path: Path, damage: Any = None, name: str = module.__name__) -> Iterator[np.ndarray]:
            found.append(f"{path.parent.name} {name.rpartition('.')[2]}")
            return read_frames(path, damage=damage)

        monkeypatch.setattr(module, "read_frames", counting)
    return found


def test_a_track_holds_what_its_rule_cuts_out_of_the_frames(source: Path) -> None:
    report = run(source, DLIB, WIDE)
    made = {"boxes of dlib": (3, 0, 0), "tracks dlib 96x96": (3, 0, 0), "tracks mesh 64x48 area": (3, 0, 0)}
    assert counts(report) == made
    assert "; 3 tracks dlib 96x96 prepared, 0 already there, 0 failed; " in report.summary()
    out, frames = source.parent / "out", list(read_frames(source / "anna" / "1.mp4"))
    with Clip(out / "anna" / "1.safetensors") as clip:
        geometry = clip_geometry(clip)
        for recipe in (DLIB, WIDE):
            with Track(track_path(clip.path, recipe.track_digest)) as track:
                assert track.header.belongs_to(clip.header)
                assert track.header.track == recipe.track_key()
                cuts = recipe.fed_crop.cuts(geometry)
                for stored, cut, frame in zip(track.stored(), cuts, frames, strict=True):
                    assert cut is not None
                    assert stored == encode_face(cut.face(frame, recipe.size_hw, recipe.resize), "jpeg")
        with Boxes(boxes_path(clip.path, "dlib")) as boxes, DlibDetector() as dlib:
            assert boxes.seen().all()
            np.testing.assert_array_equal(boxes.boxes(), [dlib.detect(frame)[0].box for frame in frames])
            assert track.header.versions == ""  # cut by the clip's own geometry
    with Track(tracks(out, DLIB)[0]) as track:
        assert json.loads(track.header.versions) == {"dlib": DlibDetector.version}


def test_the_raw_codec_keeps_every_pixel(source: Path) -> None:
    run(source, WIDE)
    assert counts(run(source, WIDE, track_codec="raw")) == {"tracks mesh 64x48 area": (3, 0, 0)}  # anew
    out = source.parent / "out"
    with Clip(out / "bob" / "1.safetensors") as clip, Track(tracks(out, WIDE)[1]) as track:
        cuts = WIDE.crop.cuts(clip.geometry())
        for face, cut, frame in zip(track.faces(), cuts, read_frames(source / "bob" / "1.mp4"), strict=True):
            assert cut is not None
            np.testing.assert_array_equal(face, cut.face(frame, (48, 64), "area"))


def test_recipes_that_cut_alike_share_a_track(source: Path) -> None:
    other = dataclasses.replace(WIDE, references=References("same"), paste="feather", mel_padding="constant")
    assert counts(run(source, WIDE, other)) == {"tracks mesh 64x48 area": (3, 0, 0)}
    assert manifest(source.parent / "out")["wanted"]["recipes"] == {WIDE.track_digest: [WIDE.text(), other.text()]}
    assert counts(run(source, other)) == {"tracks mesh 64x48 area": (0, 3, 0)}
    assert len(list((source.parent / "out").rglob("*.track"))) == 3


def test_a_track_is_added_to_a_clip_without_touching_it(
    source: Path, decodes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(source, WIDE)
    out, before = source.parent / "out", contents(source.parent / "out")
    assert decodes == [f"{name} {by}" for name in ("anna", "bob", "zoë") for by in ("make_clip", "beside")]
    decodes.clear()

    def never(*_: object) -> list[Any]:
        raise AssertionError("the clip's faces were found already")

    monkeypatch.setattr(MediaPipeDetector, "detect", never)
    assert counts(run(source, DLIB)) == {"boxes of dlib": (3, 0, 0), "tracks dlib 96x96": (3, 0, 0)}
    assert decodes == [f"{name} beside" for name in ("anna", "anna", "bob", "bob", "zoë", "zoë")]  # boxes, then tracks
    decodes.clear()
    assert counts(run(source, DLIB, WIDE))["tracks mesh 64x48 area"] == (0, 3, 0)
    assert not decodes
    after = contents(out)
    assert {name: after[name] for name in before if name != "manifest.json"} == {
        name: content for name, content in before.items() if name != "manifest.json"
    }
    run(source)  # a run that wants nothing beside the clips leaves what is there, in the manifest too
    assert [entry["tracks"] for entry in manifest(out)["clips"]] == [entry["tracks"] for entry in _entries(after)]
    assert not decodes
    for path in (*tracks(out, DLIB), *out.rglob("*.boxes")):
        path.unlink()
    run(source, DLIB)
    assert {k: v for k, v in contents(out).items() if k != "manifest.json"} == {
        k: v for k, v in after.items() if k != "manifest.json"
    }


def _entries(files: dict[str, bytes]) -> list[dict[str, Any]]:
    return json.loads(files["manifest.json"])["clips"]


def test_the_manifest_lists_what_lies_beside_the_clips(source: Path) -> None:
    run(source, DLIB, WIDE)
    out = source.parent / "out"
    content = manifest(out)
    assert content["wanted"] == {
        "recipes": {DLIB.track_digest: [DLIB.text()], WIDE.track_digest: [WIDE.text()]},
        "boxes": {"dlib": DlibDetector.version},
        "codec": "jpeg",
    }
    assert content["tracks"] == {
        DLIB.track_digest: {"cut": "dlib 96x96", "clips": 3, "failed": 0},
        WIDE.track_digest: {"cut": "mesh 64x48 area", "clips": 3, "failed": 0},
    }
    assert content["boxes"] == {"dlib": {"clips": 3, "failed": 0}}
    entry = content["clips"][0]
    digest = sha256(tracks(out, WIDE)[0])
    assert entry["tracks"][WIDE.track_digest] == {"cut": "mesh 64x48 area", "codec": "jpeg", "sha256": digest}
    assert entry["boxes"]["dlib"]["sha256"] == sha256(out / "anna" / "1.dlib.boxes")


def test_a_changed_source_makes_all_of_its_clip_anew(source: Path) -> None:
    run(source, DLIB, WIDE)
    out, before = source.parent / "out", contents(source.parent / "out")
    write_video(source / "bob" / "1.mp4", FRAMES + 1)
    report = run(source, DLIB)
    assert (report.done, report.skipped) == (1, 2)
    assert counts(report) == {"boxes of dlib": (1, 2, 0), "tracks dlib 96x96": (1, 2, 0)}
    after = contents(out)
    assert before.keys() - after.keys() == {tracks(out, WIDE)[1].relative_to(out).as_posix()}  # was of the old video
    with Clip(out / "bob" / "1.safetensors") as clip:
        assert len(clip) == FRAMES + 1
        with Track(tracks(out, DLIB)[1]) as track, Boxes(boxes_path(clip.path, "dlib")) as boxes:
            assert len(track) == len(boxes) == FRAMES + 1
            assert track.header.belongs_to(clip.header)
            assert boxes.header.belongs_to(clip.header)
    unchanged = [name for name in before if name in after and not name.startswith(("bob", "manifest"))]
    assert all(before[name] == after[name] for name in unchanged)
    # Other settings may have found another face: everything of all clips.
    assert counts(run(source, DLIB, max_crop_px=64))["tracks dlib 96x96"] == (3, 0, 0)
    write_video(source / "bob" / "1.mp4", face=False)
    run(source, max_crop_px=64)
    assert not list((out / "bob").iterdir())


def test_broken_and_outdated_files_are_made_anew(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(source, DLIB, WIDE)
    out, before = source.parent / "out", contents(source.parent / "out")
    track, boxes = tracks(out, DLIB)[0], out / "bob" / "1.dlib.boxes"
    track.write_bytes(track.read_bytes()[:-10])
    boxes.write_bytes(b"none")
    assert counts(run(source, DLIB)) == {"boxes of dlib": (1, 2, 0), "tracks dlib 96x96": (1, 2, 0)}
    assert contents(out) == {**before, "manifest.json": (out / "manifest.json").read_bytes()}
    shutil.copy(tracks(out, DLIB)[0], tracks(out, DLIB)[2])  # another clip's
    assert counts(run(source, DLIB))["tracks dlib 96x96"] == (1, 2, 0)
    assert contents(out) == {**before, "manifest.json": (out / "manifest.json").read_bytes()}
    assert counts(run(source, DLIB, overwrite=True))["tracks dlib 96x96"] == (3, 0, 0)
    assert contents(out) == {**before, "manifest.json": (out / "manifest.json").read_bytes()}
    # Boxes of another version of the detector: the tracks that were cut by them go, also where only boxes are wanted.
    monkeypatch.setattr(DlibDetector, "version", "dlib 99")
    assert counts(run(source, boxes=["dlib"])) == {"boxes of dlib": (3, 0, 0)}
    assert not any(path.exists() for path in tracks(out, DLIB))
    assert all(path.exists() for path in tracks(out, WIDE))
    assert counts(run(source, DLIB)) == {"boxes of dlib": (0, 3, 0), "tracks dlib 96x96": (3, 0, 0)}


def test_a_track_that_fails_costs_neither_the_clip_nor_another_track(source: Path) -> None:
    write_video(source / "bob" / "1.mp4", FRAMES + 1)
    refuses, bursts = dataclasses.replace(WIDE, crop=_Refuses(), size_hw=(32, 32)), Recipe(_Bursts(), (40, 40))
    report = run(source, refuses, WIDE, bursts)
    assert (report.done, report.failed) == (3, 0)
    assert list(counts(report).values()) == [(2, 0, 1), (3, 0, 0), (0, 0, 3)]
    out = source.parent / "out"
    assert f"reasons in {out / 'failures.csv'}" in report.summary()
    rows = failures(out)
    assert [row["part"] for row in rows if row["error"] == "ValueError"] == [f"track {refuses.track_digest}"]
    assert [(row["id"], row["reason"]) for row in rows if row["error"] == "ValueError"] == [
        ("bob/1", "frame 3: the quad leaves the frame")
    ]
    assert [row["id"] for row in rows if row["part"] == f"track {bursts.track_digest}"] == list(CLIPS)
    content = manifest(out)
    assert (content["complete"], content["failed"]) == (True, 0)
    assert [entry["id"] for entry in content["clips"]] == list(CLIPS)
    assert content["tracks"][refuses.track_digest] == {"cut": "mesh 32x32 area", "clips": 2, "failed": 1}
    assert content["tracks"][bursts.track_digest] == {"clips": 0, "failed": 3}
    assert sorted(out.rglob("*.track")) == sorted([*tracks(out, WIDE), *(tracks(out, refuses)[k] for k in (0, 2))])
    # Failures are tried again, and count where too many are an error.
    assert counts(run(source, refuses))["tracks mesh 32x32 area"] == (0, 2, 1)
    with pytest.raises(RuntimeError, match=r"1 failed.*at most 20% failures \(--max-failures\)"):
        run(source, refuses, max_failures=0.2)
    assert run(source, WIDE).failed == 0
    assert failures(out) == []


def test_boxes_that_are_not_found_fail_their_tracks_alone(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DlibDetector, "boxes", lambda self, frame: [np.array([0, 0, 20, 20], np.float32)])
    report = run(source, DLIB, WIDE)
    assert (report.done, report.failed) == (3, 0)
    assert list(counts(report).values()) == [(0, 0, 3), (0, 0, 3), (3, 0, 0)]
    rows = [row for row in failures(source.parent / "out") if row["id"] == "anna/1"]
    assert [row["part"] for row in rows] == ["boxes dlib", f"track {DLIB.track_digest}"]
    assert all("dlib sees the clip's face in 0 of 6 frames" in row["reason"] for row in rows)


def test_a_full_disk_stops_the_run_and_leaves_whole_files(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(source)
    out, before = source.parent / "out", contents(source.parent / "out")

    def full(face: np.ndarray, codec: str) -> bytes:
        raise OSError(errno.ENOSPC, "No space left on device", "somewhere")

    monkeypatch.setattr("lipsync_bench.datamodules.clips.track.encode_face", full)
    with pytest.raises(OSError, match="No space left"):
        run(source, WIDE)
    assert contents(out).keys() == before.keys()
    assert manifest(out)["complete"] is False
    monkeypatch.undo()
    assert counts(run(source, WIDE)) == {"tracks mesh 64x48 area": (3, 0, 0)}
    assert manifest(out)["complete"] is True


def test_a_killed_run_is_resumed(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = prepare_module.prepare_one
    run(source, DLIB)
    out, expected = source.parent / "out", contents(source.parent / "out")
    shutil.rmtree(out)

    def killed(job: Job) -> Outcome:
        if job.source.id == "bob/1":
            raise KeyboardInterrupt
        return whole(job)

    run(source)
    clips = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    monkeypatch.setattr(prepare_module, "prepare_one", killed)
    with pytest.raises(KeyboardInterrupt):
        run(source, DLIB)
    assert [path.exists() for path in tracks(out, DLIB)] == [True, False, False]
    (out / "manifest.json").unlink()  # as after a kill of the whole run
    monkeypatch.undo()
    assert counts(run(source, DLIB)) == {"boxes of dlib": (2, 1, 0), "tracks dlib 96x96": (2, 1, 0)}
    assert contents(out) == expected
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")} == clips


def test_a_worker_that_dies_on_a_track_does_not_cost_the_clip(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(source, WIDE)
    (source / "bob" / "2.mp4").write_bytes((source / "bob" / "1.mp4").read_bytes())

    def died(function: Any, jobs: Any, *_: Any) -> Iterator[Any]:
        for job in jobs:
            yield job, (WorkerDied("status -9") if job.source.id.startswith("bob") else function(job))

    monkeypatch.setattr(prepare_module, "run_jobs", died)
    report = run(source, WIDE, DLIB)
    assert (report.done, report.skipped, report.failed) == (0, 3, 1)
    assert counts(report) == {
        "boxes of dlib": (2, 0, 1),
        "tracks mesh 64x48 area": (0, 3, 0),
        "tracks dlib 96x96": (2, 0, 1),
    }
    rows = failures(source.parent / "out")
    assert [(row["id"], row["part"]) for row in rows] == [
        ("bob/1", "boxes dlib"),
        ("bob/1", f"track {DLIB.track_digest}"),
        ("bob/2", ""),
    ]
    assert {row["error"] for row in rows} == {"WorkerDied"}


def test_slices_and_processes_leave_what_one_process_leaves(source: Path) -> None:
    write_video(source / "bob" / "1.mp4", FRAMES + 1)
    recipes = (dataclasses.replace(WIDE, crop=_Refuses()), DLIB)
    run(source, *recipes)
    out, whole = source.parent / "out", contents(source.parent / "out")
    shutil.rmtree(out)
    run(source, *recipes, workers=2)
    assert contents(out) == whole
    for path in (*out.rglob("*.track"), *out.rglob("*.boxes"), out / "manifest.json"):
        path.unlink()
    for part in ("2/3", "1/3", "3/3"):
        run(source, *recipes, part=part)
    assert contents(out) == whole
    run(source, *recipes, part="2/3")
    assert contents(out) == whole
    report = run(source, *recipes, join=True)
    assert (report.skipped, report.failed) == (3, 0)
    assert list(counts(report).values()) == [(0, 3, 0), (0, 2, 1), (0, 3, 0)]


def test_slices_that_want_other_recipes_are_not_joined(source: Path) -> None:
    run(source, WIDE, part="1/2")
    run(source, DLIB, part="2/2")
    assert manifest(source.parent / "out")["complete"] is False


def test_damage_stays_in_the_manifest(source: Path) -> None:
    run(source)
    path = source.parent / "out" / "manifest.json"
    content = json.loads(path.read_text())
    content["clips"][0]["damaged_frames"] = 3
    path.write_text(json.dumps(content))
    run(source, WIDE)
    assert [entry.get("damaged_frames") for entry in manifest(path.parent)["clips"]] == [3, None, None]


def test_weights_that_are_not_here_are_one_error(source: Path) -> None:
    published = Recipe(DetectorBox("s3fd"), (96, 96))
    with pytest.raises(FileNotFoundError, match=r"weights s3fd: not in .*weights fetch s3fd.* --recipe\.crop mesh"):
        run(source, published)
    with pytest.raises(FileNotFoundError, match=r"weights s3fd: not in .*weights fetch s3fd"):
        run(source, boxes=["s3fd"])
    assert not (source.parent / "out").exists()
