# SPDX-License-Identifier: Apache-2.0
"""Protocols: their files, the clips and pairs they draw, and what they cut out of real videos of the corpus."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lipsync_bench.datamodules import Synthetic
from lipsync_bench.datamodules.clips.clip import Clip, read_header
from lipsync_bench.datamodules.faces.crop_rules.atvg import atvg_squares
from lipsync_bench.datamodules.faces.crop_rules.boxes import BoxCut
from lipsync_bench.datamodules.media.video import read_frames
from lipsync_bench.evaluation import evaluate_dataset, list_protocols, load_protocol
from lipsync_bench.evaluation.options import Inputs, Rules, Running, Selection
from lipsync_bench.evaluation.target import regions as regions_module
from lipsync_bench.evaluation.target.regions import Regions, compare_crops, in_crop
from lipsync_bench.evaluation.task import listing
from lipsync_bench.evaluation.task.pairs import draw_pairs, read_pairs
from lipsync_bench.evaluation.task.protocol import Protocol, fields_sha256, recorded_versions, rules_sha256
from lipsync_bench.evaluation.videos import through_h264, video_path
from lipsync_bench.experiment_files import installed_experiments
from lipsync_bench.metrics.face.lmd import detect_lip_frames, lmd
from lipsync_bench.metrics.image import fid as fid_module
from lipsync_bench.metrics.image.fid import fid
from tests.commands import run_bench
from tests.weight_files import given

TARGETS = {"psnr", "ssim", "psnr_mouth", "ssim_mouth", "mse", "lmd", "lmd_centred", "psnr_uint8"}


@pytest.fixture
def clips(corpus):
    data = Synthetic(root=corpus / "clips")
    data.prepare_data()
    return sorted((corpus / "clips").glob("*/*.safetensors"))


def run(corpus, out, protocol, split=None, **more):
    more = {"inputs": Inputs(corpus / "clips"), "select": Selection(limit=1), **more}
    return evaluate_dataset("synthetic", out, rules=Rules(protocol, split=split), progress=False, **more)


@pytest.fixture(scope="module")
def usual(corpus, tmp_path_factory):
    """The rows of one clip under the usual protocol, by method."""
    return run(corpus, tmp_path_factory.mktemp("usual"), "paired_face_box").rows.set_index("method")


def written(folder, name, text):
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return str(path)


def test_the_protocols_of_the_four_papers_exist_by_name_and_version():
    assert {"hyperlips", "videoretalking", "g4g", "lipformer", "paired_face_box"} <= set(list_protocols())
    hyperlips = load_protocol("hyperlips")
    assert (hyperlips.key, hyperlips.boxes, hyperlips.own_boxes) == ("hyperlips-v2", "s3fd", True)
    assert hyperlips.size_hw == (160, 160)
    assert hyperlips.pairs["lrs2"] == 80
    assert load_protocol("hyperlips_unpaired").pairing == "unpaired"
    assert load_protocol("videoretalking").cut == "full frames"
    assert load_protocol("videoretalking").pairs == {"lrs2": 14000, "hdtf": 100}
    assert load_protocol("g4g").size_hw == (416, 320)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "version: 1\ncrop: big\n",
            r"mine\.yaml: has the unknown key crop\. Expected a protocol.*experiments/protocols/",
        ),
        ("version: one\n", r"mine\.yaml: version is 'one' \(Input should be a valid integer\)"),
        ("version: true\n", "version is True"),
        ("boxes: mesh\n", "has no version"),
        ("version: 1\nfps: 30\n", "fps is 30"),
        ("version: 1\nname: other\n", "holds .*multiple values for keyword argument 'name'"),
        ("version: 1\n1: 2\n", "holds .*keywords must be strings"),
        ("- version: 1\n", "holds .*must be a mapping"),
        ("version: 1\nsize_hw: [160]\n", r"size_hw\.1"),
        ("version: 1\nsize_hw: [160, 160.5]\n", r"size_hw\.1 is 160\.5"),
        ("version: 1\nsize_hw: null\n", r"size_hw is none with boxes mesh.*size_hw: \[160, 160\]"),
        ("version: 1\nown_boxes: true\n", r"own_boxes with boxes mesh"),
        ("version: 1\ncrf: 99\n", r"crf is 99 \(.* 51\)"),
        ("version: 1\npairs: {lrs2: 0}\n", r"pairs\.lrs2 is 0 \(.* 1\)"),
    ],
)
def test_a_faulty_protocol_is_refused_with_the_fault(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        load_protocol(written(tmp_path, "mine", text))


def test_every_protocol_of_the_package_is_recorded_with_its_version():
    recorded = recorded_versions()
    for path in sorted((installed_experiments() / "protocols").glob("*.yaml")):
        protocol = load_protocol(str(path))
        line = f"{protocol.name},{protocol.version},{fields_sha256(protocol)}"
        assert protocol.key in recorded, f"raised or new: add to experiments/protocols/versions.csv: {line}"


def test_a_field_changed_without_a_new_version_is_refused(tmp_path):
    for name in ("hyperlips", "paired_face_box", "videoretalking"):
        text = (installed_experiments() / "protocols" / f"{name}.yaml").read_text()
        version = load_protocol(name).version
        assert load_protocol(written(tmp_path, name, text)) == load_protocol(name)
        assert load_protocol(written(tmp_path, name, text.replace("about:", "about: changed,"))).version == version
        for changed in ("seed: 3", "mouth_margin: 0.3", "crf: 20"):
            path = written(tmp_path, name, f"{text}\n{changed}\n")
            with pytest.raises(ValueError, match=rf"{name}\.yaml: it is called {name}-v{version}.*Raise version in it"):
                load_protocol(path)
            assert load_protocol(written(tmp_path, f"my_{name}", f"{text}\n{changed}\n")).name == f"my_{name}"
            raised = f"{text}\n{changed}\n".replace(f"\nversion: {version}", "\nversion: 99")
            assert load_protocol(written(tmp_path, name, raised)).version == 99


def test_a_field_that_earlier_versions_lacked_changes_no_hash_at_what_they_did():
    """The SHA-256 in manifests of results of version 1, made before protocols said where landmarks are found."""
    protocol = replace(load_protocol("paired_face_box"), version=1, reference="first")
    assert rules_sha256(protocol, "lrs2") == "da50389d050c143ca74ebc92f17d8855775e94354c5a006d938f525698180bd2"
    assert rules_sha256(replace(protocol, landmarks="crop"), "lrs2") != rules_sha256(protocol, "lrs2")
    assert fields_sha256(replace(protocol, landmarks="crop")) != fields_sha256(protocol)


def test_an_unknown_protocol_lists_those_there_are():
    with pytest.raises(FileNotFoundError, match=r"no protocol 'hyper'.*hyperlips.*--protocol FILE.yaml"):
        load_protocol("hyper")


def test_clips_are_drawn_by_seed_whatever_their_order(clips):
    protocol = Protocol(1, "p", pairs={"synthetic": 4})
    drawn = draw_pairs(clips, protocol, "synthetic")
    assert len(drawn) == 4
    assert drawn == draw_pairs(clips[::-1], protocol, "synthetic")
    assert all(pair.video == pair.audio for pair in drawn)
    others = [draw_pairs(clips, Protocol(1, "p", pairs={"synthetic": 4}, seed=k), "synthetic") for k in range(1, 6)]
    assert any(other != drawn for other in others)
    assert len(draw_pairs(clips, protocol, "lrs2")) == len(clips)


def test_a_clip_that_is_listed_twice_is_used_once(clips):
    assert len(draw_pairs([*clips, clips[0]], Protocol(1, "p"), "synthetic")) == len(clips)


def test_asking_for_more_clips_than_exist_is_logged(clips, caplog):
    assert len(draw_pairs(clips, Protocol(1, "p", pairs={"x": 999}), "x")) == len(clips)
    assert f"there are only {len(clips)}" in caplog.text


@pytest.mark.parametrize("count", [None, 3, 20])
def test_unpaired_clips_never_get_their_own_audio_and_no_pair_comes_twice(clips, count):
    protocol = Protocol(1, "p", pairing="unpaired", pairs={} if count is None else {"x": count})
    pairs = draw_pairs(clips, protocol, "x")
    assert len(pairs) == (count or len(clips))
    assert len({(p.video, p.audio) for p in pairs}) == len(pairs)
    assert all(p.video != p.audio for p in pairs)
    assert sum(p.first for p in pairs) == len({p.video for p in pairs}) == min(len(clips), len(pairs))
    assert pairs == draw_pairs(clips, protocol, "x")


def test_a_published_list_names_the_audio_first(clips, tmp_path, caplog):
    a, b = (read_header(clip).id for clip in clips[:2])
    path = tmp_path / "pairs.txt"
    path.write_text(f"{a} {b}\n\n{b}.mp4   {a}\n{a} {b}\n", encoding="utf-8")
    pairs = read_pairs(path, clips)
    assert [(p.audio, p.video) for p in pairs] == [(clips[0], clips[1]), (clips[1], clips[0])]
    assert "1 pairs stand in it twice" in caplog.text
    for text, message in (
        (f"{a}\n", r"line 1: 1 names.*'audio video'"),
        (f"{a} nobody/00001\n", r"line 1: no prepared clip 'nobody/00001'"),
        ("\n", r"has no line"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_pairs(path, clips)
    with pytest.raises(FileNotFoundError, match="--pairs FILE"):
        read_pairs(tmp_path / "none.txt", clips)
    with pytest.raises(ValueError, match="keep their own audio"):
        draw_pairs(clips, Protocol(1, "p"), "x", path)


def test_unpaired_rows_have_no_metric_with_a_target_and_the_ground_truth_keeps_its_audio(corpus, tmp_path):
    rows = run(corpus, tmp_path, "videoretalking", select=Selection()).rows
    assert rows[sorted(TARGETS)].isna().all(axis=None)
    assert rows[["cpbd", "jitter", "detection_failure"]].notna().all(axis=None)
    ground_truth, dubbed = (rows[rows["method"] == name] for name in ("ground_truth", "repeated_frame"))
    assert (ground_truth["audio_clip"] == ground_truth["clip"]).all()
    assert (dubbed["audio_clip"] != dubbed["clip"]).all()
    assert len(ground_truth) == len(dubbed) == 2
    before = (tmp_path / "clips.csv").read_bytes()
    run(corpus, tmp_path, "videoretalking", select=Selection())
    assert (tmp_path / "clips.csv").read_bytes() == before


def test_whole_frames_are_compared_as_they_are(corpus, tmp_path, clips):
    with Clip(clips[0]) as clip:
        boxes = clip.boxes()[:3]
        frames = list(read_frames(corpus / "videos" / clip.header.source))[:3]
    regions = Regions(load_protocol("videoretalking"))
    whole = regions.boxes(frames, boxes)
    assert whole.tolist() == [[0, 0, frames[0].shape[1], frames[0].shape[0]]] * 3
    assert compare_crops(frames, whole, None)[0] is frames[0]
    points = np.ones((3, 68, 2))
    assert in_crop(points, whole, None) is points


def test_g4g_compares_faces_of_its_size(corpus, usual, tmp_path):
    rows = run(corpus, tmp_path, "g4g").rows.set_index("method")
    assert rows.loc["repeated_frame", "protocol"] == "g4g-v2"
    assert 10 < rows.loc["repeated_frame", "psnr"] < 40
    # The same frames and landmarks, in a crop that is 320 / 160 times as wide and 416 / 160 times as high.
    assert 2 < rows.loc["repeated_frame", "lmd"] / usual.loc["repeated_frame", "lmd"] < 2.6


def test_lipformer_cuts_both_by_dlibs_box_of_the_target(corpus, tmp_path):
    rows = run(corpus, tmp_path, "lipformer").rows.set_index("method")
    assert (rows["status"] == "ok").all()
    assert rows.loc["ground_truth", "psnr"] == np.inf
    assert 10 < rows.loc["repeated_frame", "psnr"] < 40


def test_atvgs_square_is_centred_on_dlibs_rectangle():
    """Of 60 x 50 pixels at (100, 80): centre (130, 105), half a side int(0.64 * 50) = 32."""
    assert atvg_squares(np.array([100, 80, 160, 130], np.float32)[None])[0].tolist() == [98, 73, 162, 137]
    assert atvg_squares(np.array([0, 0, 61, 61], np.float32)[None])[0].tolist() == [-9, -9, 69, 69]


def test_a_box_of_atvg_is_dlibs_square_inside_the_frame(corpus, clips):
    with Clip(clips[0]) as clip:
        frame = next(iter(read_frames(corpus / "videos" / clip.header.source)))
    boxes = [Regions(Protocol(1, boxes=kind)).boxes([frame], np.zeros((1, 4)))[0] for kind in ("dlib", "atvg")]
    size = np.array([frame.shape[1], frame.shape[0]] * 2)
    assert boxes[1].tolist() == np.clip(atvg_squares(boxes[0][None])[0], 0, size).tolist()


def test_landmarks_of_the_crops_are_found_in_both_crops(corpus, usual, tmp_path, clips):
    text = "version: 1\nboxes: mesh\nlandmarks: crop\nsize_hw: [160, 160]\n"
    path = written(tmp_path, "crop", text)
    rows = run(corpus, tmp_path / "out", path).rows.set_index("method")
    assert rows.loc["ground_truth", "lmd"] == 0
    (clip,) = [p for p in clips if read_header(p).id == rows["clip"].iloc[0]]
    with Clip(clip) as it:
        boxes, frames = it.boxes(), list(read_frames(corpus / "videos" / it.header.source))
    crops = compare_crops(frames, boxes, (160, 160))
    cuts = [BoxCut((x1, y1, x2, y2)) for x1, y1, x2, y2 in boxes.astype(int).tolist()]
    pasted = [it.paste(frame, cuts[0].crop(frames[0])) for frame, it in zip(frames, cuts, strict=True)]
    found = detect_lip_frames(compare_crops(pasted, boxes, (160, 160))), detect_lip_frames(crops)
    distance = lmd(*found, centred=False).numpy()
    assert rows.loc["repeated_frame", "lmd"] == pytest.approx(np.nanmean(distance))
    assert rows.loc["repeated_frame", "lmd_skipped_frames"] == np.isnan(distance).sum() < len(frames)
    assert usual.loc["repeated_frame", "lmd"] != rows.loc["repeated_frame", "lmd"]
    assert (usual["psnr"] == rows["psnr"]).all()
    assert (usual["faces_sha256"] != rows["faces_sha256"]).all()


def test_a_crop_without_a_face_has_no_landmarks_and_the_next_run_knows(corpus, tmp_path, monkeypatch):
    path = written(tmp_path, "crop", "version: 1\nlandmarks: crop\n")
    searched = []

    def find(crops):
        searched.extend(crops)
        points = np.random.default_rng(0).uniform(0, 160, (len(crops), 68, 2))
        points[0] = np.nan
        return points

    monkeypatch.setattr(regions_module, "detect_lip_frames", find)
    rows = run(corpus, tmp_path / "out", path).rows.set_index("method")
    skipped = rows.loc["repeated_frame", "lmd_skipped_frames"]
    assert (rows["status"] == "ok").all()
    assert 0 < skipped == rows.loc["ground_truth", "lmd_skipped_frames"] < 40
    assert len(searched) == 2 * 40
    (tmp_path / "out" / "clips.csv").unlink()
    again = run(corpus, tmp_path / "out", path).rows.set_index("method")
    assert len(searched) == 3 * 40  # those of the target are stored
    assert again.loc["repeated_frame", "lmd"] == rows.loc["repeated_frame", "lmd"]


def test_hyperlips_without_the_detectors_weights_says_where_they_come_from(corpus, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"weights s3fd: not in .*s3fd-619a316812\.pth.*weights fetch s3fd"):
        run(corpus, tmp_path / "out", "hyperlips")
    assert not (tmp_path / "out").exists()


def test_the_detectors_weights_are_not_read_for_a_protocol_without_its_boxes(corpus, tmp_path):
    (tmp_path / "s3fd.pth").write_bytes(b"no weights")
    here = given(s3fd=tmp_path / "s3fd.pth")
    assert (run(corpus, tmp_path / "out", "paired_face_box", weights=here).rows["status"] == "ok").all()
    with pytest.raises(ValueError, match=r"s3fd\.pth"):
        run(corpus, tmp_path / "other", "hyperlips", weights=here)


def test_with_own_boxes_each_video_is_cut_by_boxes_detected_in_it(corpus, tmp_path, monkeypatch):
    """A stand-in for S3FD finds the target's box, and one moved by 4 pixels in the prediction; in one frame none."""
    seen = []

    def found(network, images):
        seen.append(images)
        frame = images[0]
        first = next(k for k, image in enumerate(unique) if (image == frame).all()) if in_target(frame) else None
        if first == 2:
            return [None]
        return [(60, 60, 200, 220) if first is not None else (64, 60, 204, 220)]

    (path, *_) = sorted((corpus / "clips").glob("*/*.safetensors"))
    ids = [read_header(p).id for p in sorted((corpus / "clips").glob("*/*.safetensors"))]
    with Clip(path) as clip:
        unique = list(read_frames(corpus / "videos" / clip.header.source))

    def in_target(frame):
        return any((image == frame).all() for image in unique)

    weights = tmp_path / "s3fd-619a316812.pth"
    weights.write_bytes(b"stands for the weights")
    monkeypatch.setattr(regions_module, "load_s3fd", lambda path, device: None)
    monkeypatch.setattr(regions_module, "rectangles", found)
    result = run(
        corpus,
        tmp_path / "out",
        "hyperlips",
        split="train",
        weights=given(s3fd=weights),
        select=Selection(clips=[ids[0]]),
    )
    rows = result.rows.set_index("method")
    assert (rows["boxless_frames"] == 1).all()
    assert rows.loc["ground_truth", "detection_failure"] == pytest.approx(1 / 40)
    assert rows.loc["ground_truth", "psnr"] == np.inf
    assert rows.loc["repeated_frame", "lmd"] > 3  # the moved box moves every landmark of its crop
    assert len(seen) >= 80


def test_frames_through_h264_keep_their_size_and_lose_with_the_quality(clips, corpus):
    with Clip(clips[0]) as clip:
        frames = list(read_frames(corpus / "videos" / clip.header.source))[:5]
    odd = [np.ascontiguousarray(frame[:-1, :-1]) for frame in frames]
    errors = []
    for crf in (10, 30, 45):
        out = through_h264(odd, crf)
        assert [frame.shape for frame in out] == [frame.shape for frame in odd]
        errors.append(np.mean([np.abs(a.astype(int) - b).mean() for a, b in zip(out, odd, strict=True)]))
    assert errors == sorted(errors)
    assert errors[0] < 3
    assert through_h264([], 20) == []


def test_a_codec_in_the_protocol_applies_to_generated_frames_only(corpus, usual, tmp_path):
    text = "version: 3\ncodec: h264\ncrf: 40\n"
    coarse = run(corpus, tmp_path / "a", written(tmp_path, "coarse", text)).rows.set_index("method")
    assert coarse.loc["repeated_frame", "protocol"] == "coarse-v3"
    assert coarse.loc["repeated_frame", "ssim"] < usual.loc["repeated_frame", "ssim"]
    assert coarse.loc["ground_truth", "psnr"] == np.inf


def test_a_protocol_can_take_the_first_seconds_only(corpus, tmp_path):
    rows = run(corpus, tmp_path, written(tmp_path, "short", "version: 1\nseconds: {synthetic: 0.8}\n")).rows
    assert set(rows["frames"]) == set(rows["frames_target"]) == {20}


def test_clips_shorter_than_the_protocols_seconds_are_left_out_by_name(clips, corpus, tmp_path, monkeypatch, caplog):
    data = Synthetic(root=corpus / "clips")
    benchmark = SimpleNamespace(name="synthetic", data=data, split="train")
    protocol = load_protocol(written(tmp_path, "long", "version: 1\nseconds: {synthetic: 1.6}\n"))
    inside = data.clips("train")
    short = inside[0]
    monkeypatch.setattr(
        listing, "read_header", lambda clip: replace(read_header(clip), **({"frames": 39} if clip == short else {}))
    )
    found = listing.list_pairs(benchmark, protocol, Rules(), Selection()).everything
    assert [pair.video for pair in found] == inside[1:]
    assert f"compares 1.6 s of each clip; 1 of {len(inside)} clips are shorter and are left out: " in caplog.text
    assert read_header(short).id in caplog.text
    protocol = load_protocol(written(tmp_path, "longer", "version: 1\nseconds: {synthetic: 60}\n"))
    with pytest.raises(ValueError, match=r"longer-v1 compares 60 s of each clip, and all .* are shorter"):
        listing.list_pairs(benchmark, protocol, Rules(), Selection())


class Colours(torch.nn.Module):
    """In place of Inception: 8 numbers that depend on the mean colours of the image."""

    weights = "c0" * 32
    recipe = "pytorch_fid"
    size = 8

    def __init__(self, **_):
        super().__init__()
        self.register_buffer("factor", torch.linspace(0, 1, 8))

    def forward(self, images):
        return images.double().mean(dim=(1, 2, 3))[:, None].float() * self.factor


def test_fid_is_one_number_of_all_frames_and_survives_an_interruption(corpus, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(fid_module, "InceptionFeatures", Colours)
    weights = tmp_path / "inception"
    weights.write_bytes(b"stands for the weights")
    here = given(inception_fid=weights)
    few = run(corpus, tmp_path / "few", "paired_face_box", weights=here, select=Selection()).leaderboard
    assert "fid" not in few
    assert "no FID" in caplog.text
    monkeypatch.setattr(fid_module, "MIN_FRAMES", 2)
    run(corpus, tmp_path / "out", "paired_face_box", weights=here)
    board = run(corpus, tmp_path / "out", "paired_face_box", weights=here, select=Selection()).leaderboard
    board = board.set_index("method")
    assert board["fid_n"].to_dict() == {"ground_truth": 40, "repeated_frame": 80}
    rows = board.reset_index().itertuples()
    stored = {
        row.method: torch.cat(
            [
                torch.from_numpy(np.fromfile(path, "<f4").reshape(-1, 8))
                for path in sorted((tmp_path / "out" / "features").rglob("*.f32"))
                if row.method in str(path)
            ]
        )
        for row in rows
    }
    assert stored["repeated_frame"].shape == (80, 8)
    expected = fid(stored["repeated_frame"].double(), stored["ground_truth"].double())
    assert board.loc["repeated_frame", "fid"] == pytest.approx(float(expected), rel=1e-4)
    halves = stored["ground_truth"].double().split(40)
    assert board.loc["ground_truth", "fid"] == pytest.approx(float(fid(*halves)), rel=1e-4)
    assert board["fid_sha256"].unique().tolist() == [Colours.weights]
    sorted((tmp_path / "out" / "features").rglob("*.f32"))[0].unlink()  # its row does not hold without it
    again = run(corpus, tmp_path / "out", "paired_face_box", weights=here, select=Selection()).leaderboard
    assert again["fid"].tolist() == board["fid"].tolist()


@pytest.mark.slow
def test_lpips_of_both_nets_with_given_weights(corpus, tmp_path):
    """Random trunks under the published names: the value means nothing, the columns and hashes do."""
    import torchvision

    from lipsync_bench.datamodules.files.disk import sha256

    folder = tmp_path / "weights"
    folder.mkdir()
    torch.manual_seed(0)
    path = folder / "alexnet-owt-7be5be79.pth"
    torch.save(torchvision.models.alexnet().state_dict(), path)
    text = written(tmp_path, "short", "version: 1\nseconds: {synthetic: 0.2}\n")
    rows = run(corpus, tmp_path / "out", text, weights=given(alexnet=path)).rows.set_index("method")
    assert rows.loc["ground_truth", "lpips_alex"] == 0
    assert rows.loc["repeated_frame", "lpips_alex"] > 0
    assert set(rows["lpips_alex_sha256"]) == {sha256(path)}
    assert rows["lpips_vgg"].isna().all()
    with pytest.raises(FileNotFoundError, match=r"none\.pth: no such file.*alexnet-owt-7be5be79\.pth"):
        run(corpus, tmp_path / "other", text, weights=given(alexnet=tmp_path / "none.pth"))


def test_saved_videos_are_complete_and_have_audio(corpus, tmp_path):
    from lipsync_bench.datamodules.media.video import probe

    result = run(corpus, tmp_path / "out", "paired_face_box", running=Running(save_videos=True))
    for row in result.rows.itertuples():
        entry = row.method, row.generator_sha256, row.paste, ""
        path = video_path(result.folder, entry, row.clip, row.audio_clip)
        info = probe(path)
        assert info.has_audio
        assert len(list(read_frames(path))) == 40
    assert len(list((result.folder / "videos").rglob("*"))) == 2 * 3  # a folder of a method and of a speaker each


def test_some_clips_and_methods_first_and_the_rest_later(corpus, tmp_path):
    out = tmp_path / "out"
    one = run(corpus, out, "paired_face_box", select=Selection(only=["ground_truth"], limit=1))
    assert one.rows["method"].tolist() == ["ground_truth"]
    both = run(corpus, out, "paired_face_box", select=Selection())
    assert len(both.rows) == 4
    ids = sorted(both.rows["clip"].unique())
    last = run(corpus, tmp_path / "b", "paired_face_box", select=Selection(clips=[f"{ids[1][:-2]}*{ids[1][-2:]}"]))
    assert set(last.rows["clip"]) == {ids[1]}
    with pytest.raises(ValueError, match=r"--clips nobody: none of the 2 clips"):
        run(corpus, out, "paired_face_box", select=Selection(clips=["nobody"]))
    with pytest.raises(ValueError, match=r"--only: no nobody.*--pred nobody=DIR"):
        run(corpus, out, "paired_face_box", select=Selection(only=["nobody"]))


def test_videos_of_another_method_are_scored_on_a_data_set(corpus, tmp_path, caplog):
    import shutil

    ids = sorted(read_header(clip).source for clip in (corpus / "clips").glob("*/*.safetensors"))
    theirs = tmp_path / "dinet"
    for source in ids:
        (theirs / source).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(corpus / "videos" / source, theirs / source)
    code = []
    for folder in (theirs, tmp_path):
        out = tmp_path / f"out_{folder.name}"
        arguments = ["evaluate", "--dataset", "synthetic", "--root", corpus / "clips", "--out", out, "--limit", 1]
        code.append(run_bench(*arguments, "--pred", f"dinet={folder}", "--pred", f"again={theirs}", "--only", "dinet"))
    assert code == [0, 1]
    assert "every clip failed for dinet" in caplog.text
    rows = evaluate_dataset(
        "synthetic",
        tmp_path / "api",
        inputs=Inputs(root=corpus / "clips", methods={}, pred={"dinet": theirs}),
        select=Selection(limit=1),
        progress=False,
    ).rows.set_index("method")
    assert (rows.loc["dinet", "psnr"], rows.loc["dinet", "lmd"]) == (np.inf, 0)
