# SPDX-License-Identifier: Apache-2.0
"""Results follow the files: rows of files that changed, were added or are missing are replaced."""

import json
import shutil
import unicodedata

import av
import numpy as np
import pytest

from lipsync_bench.datamodules.errors import MediaError
from lipsync_bench.datamodules.faces.options import FaceOptions
from lipsync_bench.datamodules.files.disk import sha256
from lipsync_bench.datamodules.media.audio import load_audio
from lipsync_bench.datamodules.media.video import VideoWriter, read_frames
from lipsync_bench.datamodules.prepare.options import PrepareOptions
from lipsync_bench.datamodules.prepare.prepare import prepare
from lipsync_bench.evaluation import Selection, evaluate_dataset, evaluate_videos
from lipsync_bench.evaluation.candidates import VideoFolder
from lipsync_bench.evaluation.options import Inputs, Rules, Running
from lipsync_bench.evaluation.videos import entry_folder, row_path
from lipsync_bench.report.contents import read_results
from lipsync_bench.report.players import has_videos
from lipsync_bench.results.rows import read_rows


@pytest.fixture(scope="module")
def short(corpus, tmp_path_factory):
    """Videos of 15 frames, too short for a window of training: three people's, and the first one's blackened."""
    folder = tmp_path_factory.mktemp("short")
    for k, source in enumerate(sorted((corpus / "videos" / "main").glob("*/*.mp4"))[::2]):
        frames, audio = list(read_frames(source))[:15], load_audio(source)[:9600]
        for name, images in ((f"{k}.mp4", frames), (f"dark{k}.mp4", [frame // 2 for frame in frames])):
            with VideoWriter(folder / name, 25.0, frames[0].shape[:2], audio=audio, crf=1, preset="ultrafast") as out:
                for image in images:
                    out.write(np.ascontiguousarray(image))
    return folder


def score(folder, **more):
    """Rows by method and clip."""
    more = {"select": Selection(only=["mine"]), **more}
    result = evaluate_videos(
        {"mine": folder / "pred"}, folder / "target", folder / "out", workers=1, progress=False, **more
    )
    return result.rows.set_index(["method", "clip"])


def test_predictions_and_targets_that_change_or_come_late_or_disappear(short, tmp_path, caplog):
    target, pred, out = tmp_path / "target", tmp_path / "pred", tmp_path / "out"
    target.mkdir()
    pred.mkdir()
    shutil.copy(short / "0.mp4", target / "a.mp4")
    shutil.copy(short / "1.mp4", target / "b.mp4")
    shutil.copy(short / "dark0.mp4", pred / "a.mp4")
    first = score(tmp_path, running=Running(save_videos=True))
    assert "window" not in caplog.text  # of training, which an evaluation has none of
    assert first.loc[("mine", "clips/a"), "psnr"] < 30
    assert first.loc[("mine", "clips/a"), "frames"] == 15
    assert first.loc[("mine", "clips/a"), "prediction_sha256"] == sha256(pred / "a.mp4")
    assert first.loc[("mine", "clips/b"), "status"] == "failed"
    again = score(tmp_path, running=Running(save_videos=True))
    assert again.loc[("mine", "clips/a"), "seconds"] == first.loc[("mine", "clips/a"), "seconds"]  # not measured again
    assert len(again) == 4

    for name in "ab":  # exchanged, and supplied at last
        shutil.copy(target / f"{name}.mp4", pred)
    (out / "ground_truth" / "clips" / "b.npz").write_bytes(b"damaged")
    rows = score(tmp_path)
    assert (rows.loc["mine", "psnr"] == np.inf).all()
    assert not (out / "videos" / "mine" / "clips" / "a.mp4").exists()  # it showed the other one
    assert (out / "videos" / "ground_truth" / "clips" / "a.mp4").exists()
    assert (out / "superseded.csv").read_text().count("\n") == 2

    shutil.copy(short / "2.mp4", target / "a.mp4")
    (target / "b.mp4").unlink()
    rows = score(tmp_path)
    assert sorted(rows.index) == [("ground_truth", "clips/a"), ("mine", "clips/a")]
    assert set(rows["target_sha256"]) == {sha256(target / "a.mp4")}
    assert rows.loc[("mine", "clips/a"), "psnr"] < 30
    assert not read_rows(out)["clip"].eq("clips/b").any()
    results = read_results(out)
    assert results.board.set_index("method")["clips"].to_dict() == {"ground_truth": 1, "mine": 1}
    assert list(results.clips) == ["clips/a"]
    assert has_videos(results)  # of b, which no page shows

    (pred / "a.mp4").rename(pred / "gone.mp4")
    rows = score(tmp_path)
    assert rows.loc[("mine", "clips/a"), "status"] == "failed"
    assert rows.loc[("ground_truth", "clips/a"), "psnr"] == np.inf


def test_results_and_predictions_below_the_target_are_not_targets(short, tmp_path):
    folder = tmp_path / "videos"
    (folder / "pred").mkdir(parents=True)
    (folder / "pred" / "0.txt").write_text("Text:  HELLO\nConf:  4\n" * 100)
    (folder / "pred" / "0.wav").write_bytes(b"RIFF")
    for name in ("0.mp4", "pred/0.mp4"):
        shutil.copy(short / "0.mp4", folder / name)
    for _ in range(2):
        result = evaluate_videos(
            {"mine": folder / "pred"},
            folder,
            folder / "out",
            running=Running(save_videos=True),
            workers=1,
            progress=False,
        )
        assert result.leaderboard.set_index("method")["clips"].to_dict() == {
            "ground_truth": 1,
            "mine": 1,
            "repeated_frame": 1,
        }
        assert result.failures == 0
    assert prepare(folder, folder / "clips", PrepareOptions(workers=1), progress=False).clips == ("clips/0", "pred/0")


def test_a_clip_that_was_prepared_otherwise_is_scored_again(corpus, tmp_path):
    shutil.copytree(corpus, tmp_path / "corpus")
    videos, clips = tmp_path / "corpus" / "videos", tmp_path / "corpus" / "clips"

    def rows():
        out = tmp_path / "out"
        select = Selection(limit=1)
        return evaluate_dataset(
            "synthetic", out, inputs=Inputs(root=clips, methods={}), select=select, progress=False
        ).rows

    prepare(videos, clips, PrepareOptions("synthetic", workers=1), progress=False)
    first, same = rows(), rows()
    assert (first["seconds"] == same["seconds"]).all()
    prepare(videos, clips, PrepareOptions("synthetic", workers=1), faces=FaceOptions(crop="detector"), progress=False)
    other = rows()
    assert len(other) == len(first) == 2
    assert set(other["target_sha256"]) == set(first["target_sha256"])
    assert not set(other["faces_sha256"]) & set(first["faces_sha256"])
    assert (
        other.set_index("method").loc["repeated_frame", "psnr"]
        != first.set_index("method").loc["repeated_frame", "psnr"]
    )


def test_a_protocol_changed_under_its_name_is_refused(corpus, tmp_path):
    own = tmp_path / "own.yaml"
    select = Selection(limit=1, only=["ground_truth"])
    for crf in (18, 30):
        own.write_text(f"version: 1\ncodec: h264\ncrf: {crf}\n")
        arguments = ("synthetic", tmp_path / "out")
        options = {"inputs": Inputs(corpus / "clips"), "rules": Rules(str(own)), "select": select, "progress": False}
        if crf == 18:
            evaluate_dataset(*arguments, **options)
        else:
            with pytest.raises(ValueError, match=r"another rules.*--out"):
                evaluate_dataset(*arguments, **options)


@pytest.mark.parametrize(
    "name", ["ground_truth", "repeated_frame", "Ground_Truth", "a,b", "a=b", "a/b", "..", "a\nb", ""]
)
def test_names_that_are_taken_or_that_flags_cannot_hold_are_refused(corpus, tmp_path, name):
    (tmp_path / "pred").mkdir()
    with pytest.raises(ValueError, match=r"a method is called .*Give it one with --pred NAME=DIR"):
        evaluate_videos({name: tmp_path / "pred"}, tmp_path, tmp_path / "out")
    for option in ("pred", "methods"):
        with pytest.raises(ValueError, match="a method is called"):
            evaluate_dataset(
                "synthetic",
                tmp_path / "out",
                inputs=Inputs(corpus / "clips", **{option: {name: tmp_path / "pred"}}),
            )
    assert not (tmp_path / "out").exists()


def test_names_match_in_either_form_of_accents(tmp_path):
    composed, apart = (unicodedata.normalize(form, "né/é.mp4") for form in ("NFC", "NFD"))
    (tmp_path / apart).parent.mkdir()
    (tmp_path / apart).touch()
    assert VideoFolder("mine", tmp_path, {"né/é": composed}).file("né/é", "né/é") == tmp_path / apart


def test_a_prediction_that_matches_two_targets_is_not_used(tmp_path):
    (tmp_path / "a.mp4").touch()
    videos = VideoFolder("mine", tmp_path, {"clips/a-mp4": "a.mp4", "clips/a-mkv": "a.mkv", "clips/b": "b.mp4"})
    for clip in ("clips/a-mp4", "clips/a-mkv"):
        with pytest.raises(MediaError, match=r"2 targets have the name a \(a\.mkv, a\.mp4\)"):
            videos.file(clip, clip)
    with pytest.raises(MediaError, match="no prediction"):
        videos.file("clips/b", "clips/b")


def test_a_prediction_of_a_target_that_is_not_evaluated_matches_no_other(tmp_path):
    """For example if that target could not be prepared, or was not drawn."""
    (tmp_path / "s1").mkdir()
    (tmp_path / "s1" / "1.mp4").touch()
    alone = VideoFolder("mine", tmp_path, {"s2/1": "s2/1.mp4"})
    assert alone.file("s2/1", "s2/1") == tmp_path / "s1" / "1.mp4"
    with pytest.raises(MediaError, match="no prediction"):
        VideoFolder("mine", tmp_path, {"s2/1": "s2/1.mp4"}, others=["s1/1.mp4"]).file("s2/1", "s2/1")


def test_a_gif_preview_beside_a_prediction_is_not_a_second_one(tmp_path):
    (tmp_path / "a.mp4").touch()
    with av.open(str(tmp_path / "a.gif"), "w") as out:
        stream = out.add_stream("gif", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "rgb8"
        for k in range(3):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 60 * k, np.uint8), format="rgb24")
            out.mux(stream.encode(frame.reformat(format="rgb8")))
        out.mux(stream.encode(None))
    assert VideoFolder("mine", tmp_path, {"a": "a.mp4"}).file("a", "a") == tmp_path / "a.mp4"
    (tmp_path / "a.mp4").unlink()
    assert VideoFolder("mine", tmp_path, {"a": "a.mp4"}).file("a", "a") == tmp_path / "a.gif"


def test_no_two_rows_share_a_file(tmp_path):
    names = ["my-method", "my_method", "my method", "my.method", "мой"]
    assert len({entry_folder(name, "", "", "") for name in names}) == len(names)
    assert entry_folder("wav2lip", "ab" * 32, "box", "0123") == "wav2lip-abababababab-box-0123"
    pairs = [("S1/a", "S2/b_c"), ("S1/a", "S2_b/c"), ("S1/a", "S1/a")]
    assert len({row_path(tmp_path, ("m", "", "", ""), *pair, ".mp4") for pair in pairs}) == 3


def test_a_manifest_records_that_only_a_share_is_done(corpus, tmp_path, monkeypatch):
    def evaluate(rank):
        monkeypatch.setenv("RANK", rank)
        return evaluate_dataset("synthetic", tmp_path, inputs=Inputs(root=corpus / "clips", methods={}), progress=False)

    def outcome():
        return json.loads((tmp_path / "manifest.json").read_text())["sessions"][-1]["outcome"]

    monkeypatch.setenv("WORLD_SIZE", "2")
    first = evaluate("0")
    assert (first.missing, len(first.leaderboard), outcome()) == (2, 0, "share done")
    assert not (tmp_path / "leaderboard.csv").exists()  # half a leaderboard would pass for a whole one
    last = evaluate("1")
    assert (last.missing, last.leaderboard["clips"].tolist(), outcome()) == (0, [2, 2], "done")
    assert (tmp_path / "leaderboard.csv").exists()
