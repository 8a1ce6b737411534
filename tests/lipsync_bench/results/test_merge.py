# SPDX-License-Identifier: Apache-2.0
"""Merging leaderboards: what is pooled, what is refused; on made rows and on real ones."""

import math
from pathlib import Path

import pandas as pd
import pytest
import torch

from lipsync_bench.cli.scoring_commands import leaderboard_merge
from lipsync_bench.evaluation.evaluate import evaluate_dataset
from lipsync_bench.evaluation.options import Inputs, Running
from lipsync_bench.metrics.registry import COLUMNS, column
from lipsync_bench.models import Wav2Lip
from lipsync_bench.models.core.checkpoints import save_module
from lipsync_bench.results.leaderboard import leaderboard, metric_columns, write_leaderboard
from lipsync_bench.results.manifest import Run, session
from lipsync_bench.results.merge import MergeInput, merge_leaderboards, read_input
from lipsync_bench.results.rows import ENTRY, NETWORK_HASHES, RowFile, read_rows
from tests.weight_files import make_official


def row(method: str, clip: str, **values: object) -> dict[str, object]:
    base = {"protocol": "p-v1", "method": method, "generator_sha256": "", "paste": "box", "clip": clip}
    base |= {"audio_clip": clip}
    known = {"speaker": "007", "status": "ok", "frames": 40, "frames_target": 40, "fallback_frames": 0, "psnr": 30.0}
    return {**base, **known, "seconds": 1.0, "lse_sha256": "", "package_version": "0.1.0", **values}


def results(folder: Path, *rows: dict[str, object], pooled: pd.DataFrame | None = None) -> Path:
    file = RowFile(folder / "clips.csv")
    for item in rows:
        file.append(item)
    file.close()
    write_leaderboard(read_rows(folder), folder / "leaderboard.csv", pooled)
    return folder


def two_clips(method: str, first: float, second: float, **values: object) -> list[dict[str, object]]:
    return [row(method, "s/1", psnr=first, **values), row(method, "s/2", psnr=second, **values)]


def many(method: str, level: float, clips: int = 12, **values: object) -> list[dict[str, object]]:
    """Clips whose values differ by more than any two methods do."""
    return [row(method, f"s/{k:02d}", psnr=level + 3 * (k % 5) + k / 100, **values) for k in range(clips)]


def fid(method: str, value: float, frames: int = 80) -> pd.DataFrame:
    line = {**dict.fromkeys(ENTRY, ""), "protocol": "p-v1", "method": method, "paste": "box"}
    return pd.DataFrame([{**line, "fid": value, "fid_n": frames}])


def without_ranks(board: pd.DataFrame) -> pd.DataFrame:
    return board[[name for name in board if not str(name).endswith(("_rank", "_group"))]]


def merged(*paths: Path) -> pd.DataFrame:
    return merge_leaderboards(*map(read_input, paths))


@pytest.fixture
def a(tmp_path) -> Path:
    return results(tmp_path / "a", *two_clips("ground_truth", math.inf, math.inf), *two_clips("wav2lip", 30, 32))


@pytest.fixture
def b(tmp_path) -> Path:
    return results(
        tmp_path / "b", *two_clips("ground_truth", math.inf, math.inf), *two_clips("hyperlips", 33, 35, lmd=1.5)
    )


def test_results_of_the_version_before_are_merged(tmp_path, a, monkeypatch):
    make_official(monkeypatch, "syncnet_v2", "5c" * 32)
    new = {"lse_sha256": "5c" * 32, "generator_sha256": "ab" * 32, "generator_weights": "official"}
    b = results(tmp_path / "b", *two_clips("hyperlips", 33, 35, **new))
    other = results(tmp_path / "c", *two_clips("lipformer", 30, 31, lse_sha256="5c" * 32))
    drop = ["generator_weights", *(n for n in pd.read_csv(other / "leaderboard.csv") if n.endswith("_weights"))]
    for name in ("clips.csv", "leaderboard.csv"):
        table = pd.read_csv(other / name, dtype=str)
        table.drop(columns=[n for n in dict.fromkeys(drop) if n in table]).to_csv(other / name, index=False)
    for parts in ((b, other), (b, other / "clips.csv"), (b, alone(other, "alone.csv"))):
        board = merged(*parts).set_index("method")
        assert board["generator_weights"].to_dict() == {"hyperlips": "official", "lipformer": ""}
        assert board["lse_weights"].to_dict() == {"hyperlips": "official", "lipformer": "official"}
        assert set(board["fid_weights"]) == {""}


def alone(folder: Path, name: str) -> Path:
    """The folder's leaderboard.csv, without its rows."""
    path = folder.parent / name
    path.write_bytes((folder / "leaderboard.csv").read_bytes())
    return path


def test_merged_folders_are_the_leaderboard_of_all_rows(a, b):
    rows = pd.concat([read_rows(a), read_rows(b)]).drop_duplicates(["method", "clip"])
    expected = leaderboard(rows)
    found = merged(a, b)
    assert found["method"].tolist() == ["ground_truth", "hyperlips", "wav2lip"]
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)
    pd.testing.assert_frame_equal(found, merged(b, a))
    pd.testing.assert_frame_equal(found, merged(a / "clips.csv", b / "leaderboard.csv"))


def test_leaderboards_without_rows_give_the_same_entries(a, b):
    with_rows = merged(a, b)
    for found in (
        merged(alone(a, "A.csv"), alone(b, "B.csv")),
        merged(alone(b, "B.csv"), alone(a, "A.csv")),
        merged(a, alone(b, "B.csv")),
    ):
        pd.testing.assert_frame_equal(without_ranks(found), without_ranks(with_rows), check_dtype=False)
        assert list(found.columns) == list(with_rows.columns)
        assert found["lmd_n"].tolist() == [0, 2, 0]


def test_ranks_are_computed_again_over_the_rows_of_all_parts(tmp_path):
    first = results(tmp_path / "a", *many("good", 32), *many("ground_truth", 90))
    second = results(tmp_path / "b", *many("even", 30), *many("ground_truth", 90))
    alone_in_it = pd.read_csv(first / "leaderboard.csv")
    assert alone_in_it["psnr_rank"].isna().all()
    found = merged(first, second).set_index("method")
    assert found["psnr_rank"].dropna().to_dict() == {"good": 1, "even": 2}
    assert found["psnr_group"].to_dict() == {"good": "a", "even": "b", "ground_truth": ""}


def test_an_entry_without_its_rows_leaves_all_entries_without_rank(tmp_path, caplog):
    first = results(tmp_path / "a", *many("good", 32), *many("even", 30))
    second = results(tmp_path / "b", *many("third", 28))
    assert merged(first)["psnr_rank"].tolist() == [2, 1]
    with caplog.at_level("INFO"):
        found = merged(first, alone(second, "B.csv"))
    assert found["psnr_rank"].isna().all()
    assert found["psnr_group"].tolist() == ["", "", ""]
    assert "1 entries came without their rows; ranks and groups are left empty" in caplog.text
    known = merged(first, alone(first, "A.csv"))  # the same entries again, with the rows of all
    assert known["psnr_rank"].tolist() == [2, 1]


def test_fid_comes_from_the_leaderboards_beside_the_rows(tmp_path, caplog):
    a = results(tmp_path / "a", *two_clips("x", 30, 31), pooled=fid("x", 12.5))
    b = results(tmp_path / "b", *two_clips("y", 30, 31), pooled=fid("y", 9.0))
    c = results(tmp_path / "c", *two_clips("z", 30, 31))
    for parts in ((a, b, c), (a / "clips.csv", alone(b, "B.csv"), alone(c, "C.csv"))):
        found = merged(*parts)
        assert found["fid"].tolist()[:2] == [12.5, 9.0]
        assert math.isnan(found["fid"][2])
        assert found["fid_n"].tolist() == [80, 80, 0]
        assert found["fid_low"].isna().all()
        assert "fid_rank" not in found
    again = results(tmp_path / "again", *two_clips("x", 30, 31), pooled=fid("x", 12.9))
    with pytest.raises(ValueError, match=r"x has fid 12.5 in .*a and 12.9 in .*again.*--out NEW"):
        merged(a, again)


def test_fid_of_other_clips_than_the_merged_entry_is_left_out_and_logged(tmp_path, caplog):
    first, second = two_clips("x", 30, 31)
    a = results(tmp_path / "a", first, pooled=fid("x", 12.5, 40))
    b = results(tmp_path / "b", second, pooled=fid("x", 9.0, 40))
    found = merged(a, b)
    assert found["clips"].tolist() == [2]
    assert "fid" not in found
    assert "fid of x in " in caplog.text


def test_unpaired_entries_have_the_same_pairs_and_the_ground_truth_the_same_videos(tmp_path):
    def pairs(method, *audio_clips):
        return [row(method, f"s/{k}", audio_clip=audio) for k, audio in enumerate(audio_clips, 1)]

    ground_truth = [row("ground_truth", "s/1"), row("ground_truth", "s/2")]
    a = results(tmp_path / "a", *ground_truth, *pairs("x", "s/2", "s/1"))
    b = results(tmp_path / "b", *ground_truth, *pairs("y", "s/2", "s/1"))
    assert merged(a, b)["clips"].tolist() == [2, 2, 2]
    other = results(tmp_path / "c", *ground_truth, *pairs("y", "s/2", "s/3"))
    with pytest.raises(ValueError, match=r"x .*has 2 of the 3 clips.*s/2 with the audio of s/3 is absent"):
        merged(a, other)
    fewer = results(tmp_path / "d", *ground_truth[:1])
    with pytest.raises(ValueError, match=r"ground_truth .*has 1 of the 2 clips"):
        merged(fewer, results(tmp_path / "e", *pairs("x", "s/2", "s/1")))
    twice = results(tmp_path / "f", row("x", "s/1", audio_clip="s/2", psnr=31), *pairs("x", "s/3", "s/1")[1:])
    with pytest.raises(ValueError, match=r"x on s/1 with the audio of s/2 has psnr 30.0 in"):
        merged(a, twice)


def test_halves_of_the_clips_are_pooled(tmp_path):
    whole = [*two_clips("x", 20, 30), *two_clips("y", 25, 27)]
    first = results(tmp_path / "first", whole[0], whole[2])
    second = results(tmp_path / "second", whole[1], whole[3])
    found = merged(first, second)
    pd.testing.assert_frame_equal(found, leaderboard(read_rows(results(tmp_path / "whole", *whole))))
    assert found["clips"].tolist() == [2, 2]


def test_merging_again_changes_nothing(a, b, tmp_path):
    assert leaderboard_merge([a, alone(b, "B.csv")], out=tmp_path / "all.csv") == 0
    assert leaderboard_merge([tmp_path / "all.csv", a], out=tmp_path / "again.csv") == 0
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "all.csv").read_bytes()
    assert leaderboard_merge([a, b], out=tmp_path / "ranked.csv") == 0
    assert leaderboard_merge([tmp_path / "ranked.csv", a, b], out=tmp_path / "again.csv") == 0
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "ranked.csv").read_bytes()


def test_another_protocol_is_refused_by_both_names(a, tmp_path):
    other = results(tmp_path / "b", *two_clips("hyperlips", 33, 35, protocol="q-v2"))
    for path in (other, alone(other, "B.csv")):
        with pytest.raises(ValueError, match=r"has (protocol )?q-v2.*bench evaluate") as caught:
            merged(a, path)
        assert f"{a} has" in str(caught.value)
        assert f"{path} has" in str(caught.value)
        assert "p-v1" in str(caught.value)


@pytest.mark.parametrize("column", NETWORK_HASHES)
def test_other_metric_network_weights_are_refused_by_both_hashes(column, tmp_path):
    a = results(tmp_path / "a", *two_clips("x", 1, 2, **{column: "aa" * 32}))
    b = results(tmp_path / "b", *two_clips("y", 1, 2, **{column: "bb" * 32}))
    none = results(tmp_path / "c", *two_clips("z", 1, 2))
    with pytest.raises(ValueError, match=rf"metric network weights {column} {'aa' * 32}.*{'bb' * 32}"):
        merged(a, b)
    with pytest.raises(ValueError, match=rf"metric network weights {column} {'aa' * 32}.*has none"):
        merged(a, none)


def test_another_data_set_is_refused_if_manifests_record_it(a, b):
    for folder, dataset in ((a, "lrs2"), (b, "mead")):
        identity = {"protocol": "p-v1", "dataset": dataset, "split": "test"}
        with session(folder, Run(identity, {}, {}, {}, {})):
            pass
    with pytest.raises(ValueError, match=r"a was measured on the dataset lrs2, .*b on mead.*--dataset NAME"):
        merged(a, b)
    assert len(merged(a, a)) == 2


def test_other_clips_are_refused(a, tmp_path):
    shorter = results(tmp_path / "b", row("hyperlips", "s/1"))
    with pytest.raises(ValueError, match=r"hyperlips .*has 1 of the 2 clips.*s/2 is absent.*--limit"):
        merged(a, shorter)
    with pytest.raises(ValueError, match=r"different numbers of clips: 2 in .*A.csv, 1 in .*B.csv"):
        merged(alone(a, "A.csv"), alone(shorter, "B.csv"))


def test_another_video_under_the_same_name_is_refused(a, tmp_path):
    other = results(tmp_path / "b", *two_clips("hyperlips", 33, 35, frames_target=41))
    with pytest.raises(ValueError, match=r"clip s/1 has 40 frames in .*a, 41 frames in .*b"):
        merged(a, other)


@pytest.mark.parametrize(
    ("field", "method", "what"), [("target_sha256", "other", "video"), ("prediction_sha256", "wav2lip", "prediction")]
)
def test_another_file_under_the_same_name_is_refused_even_with_similar_numbers(tmp_path, field, method, what):
    one, two = (
        results(tmp_path / name, *two_clips(maker, 30, 32, **{field: digit * 64}))
        for name, maker, digit in (("one", "wav2lip", "1"), ("two", method, "2"))
    )
    with pytest.raises(ValueError, match=rf"the {what} of clip s/1 in .*one is not the one in .*two \(1+ and 2+\)"):
        merged(one, two)
    failed = results(tmp_path / "failed", *two_clips(method, 1, 1, status="failed", **{field: "3" * 64}))
    assert merged(one, failed)["clips"].max() == 2


def test_a_row_that_occurs_twice_counts_once_if_equal(a, tmp_path):
    machine = results(tmp_path / "b", *two_clips("wav2lip", 30.001, 32, seconds=9.0))
    one, other = merged(a, machine), merged(machine, a)
    pd.testing.assert_frame_equal(one, other)
    assert one.set_index("method").loc["wav2lip", ["clips", "psnr"]].tolist() == [2, 31]
    wrong = results(tmp_path / "c", *two_clips("wav2lip", 30.5, 32))
    with pytest.raises(ValueError, match=r"wav2lip on s/1 has psnr 30.0 in .*a and 30.5 in .*c.*--out"):
        merged(a, wrong)


def test_a_scored_row_comes_before_a_failed_one(a, tmp_path):
    failed = two_clips("wav2lip", math.nan, math.nan, status="failed", reason="MediaError: x")
    other = results(tmp_path / "0", *failed)  # sorted first
    line = merged(other, a).set_index("method").loc["wav2lip"]
    assert (line["clips"], line["failures"], line["psnr"]) == (2, 0, 31)


def test_a_failed_clip_is_a_clip(a, tmp_path):
    other = results(tmp_path / "b", row("hyperlips", "s/1"), row("hyperlips", "s/2", status="failed", psnr=None))
    line = merged(a, other).set_index("method").loc["hyperlips"]
    assert (line["clips"], line["failures"]) == (1, 1)


def test_means_without_rows_are_not_pooled(a, tmp_path):
    other = results(tmp_path / "b", *two_clips("wav2lip", 20, 22))
    with pytest.raises(ValueError, match=r"wav2lip has different entries in .*A.csv and .*B.csv.*results folders"):
        merged(alone(a, "A.csv"), alone(other, "B.csv"))


def test_other_weights_of_a_method_are_another_entry(a, tmp_path):
    other = results(tmp_path / "b", *two_clips("wav2lip", 20, 22, generator_sha256="0123"))
    found = merged(a, alone(other, "B.csv"))
    assert found["generator_sha256"].tolist() == ["", "", "0123"]  # not the number 123


def test_a_method_may_be_called_like_a_missing_value(tmp_path):
    folder = results(tmp_path / "a", *two_clips("NA", 20, 22))
    assert merged(alone(folder, "A.csv"))["method"].tolist() == ["NA"]


def test_wrong_files_are_named(a, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing.csv.*bench evaluate"):
        read_input(tmp_path / "nothing.csv")
    with pytest.raises(FileNotFoundError, match="no clips"):
        read_input(tmp_path)
    (tmp_path / "other.csv").write_text("method,psrn\nx,1\n")
    with pytest.raises(ValueError, match=r"missing protocol.*unknown psrn"):
        read_input(tmp_path / "other.csv")
    half = [name for name in metric_columns(column("psnr")) if name != "psnr_n"]
    board = pd.read_csv(a / "leaderboard.csv")
    board.drop(columns="psnr_n").to_csv(tmp_path / "half.csv", index=False)
    assert set(half) <= set(board)
    with pytest.raises(ValueError, match=r"half.csv is neither.*missing psnr_n, unknown nothing"):
        read_input(tmp_path / "half.csv")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "clips.csv").write_text("method,clip\nx,1\n")
    with pytest.raises(ValueError, match=r"clips.csv was written by another version.*method, clip.*--out NEW"):
        read_input(tmp_path / "old")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(ValueError, match=r"empty\.csv: has no header"):
        read_input(tmp_path / "empty.csv")
    with pytest.raises(ValueError, match="no row"):
        merge_leaderboards()
    with pytest.raises(ValueError, match="neither rows nor entries"):
        merge_leaderboards(MergeInput("nothing"))
    for out in (a, a / "leaderboard.csv"):
        before = (a / "leaderboard.csv").read_bytes()
        with pytest.raises(ValueError, match="--out"):
            leaderboard_merge([a / "leaderboard.csv"], out=out)
        assert (a / "leaderboard.csv").read_bytes() == before


def test_the_written_table_is_shown_and_can_be_read_again(a, b, tmp_path, capsys):
    leaderboard_merge([a, b], out=tmp_path / "new" / "all.csv")
    assert "hyperlips" in capsys.readouterr().out
    again = merged(tmp_path / "new" / "all.csv")
    pd.testing.assert_frame_equal(without_ranks(again), without_ranks(merged(a, b)), check_dtype=False)


# Real evaluations


@pytest.fixture(scope="module")
def real(corpus, tmp_path_factory) -> dict[str, Path]:
    """The same two clips with two sets of weights, each in a folder of its own and both in one; one target broken."""
    folder = tmp_path_factory.mktemp("merge")
    methods = {}
    for seed, name in enumerate(("one", "two")):
        torch.manual_seed(seed)
        methods[name] = folder / f"{name}.ckpt"
        save_module(Wav2Lip(width=0.0625, recipe={"crop": "mesh"}), methods[name])
    out = {}
    for label, names in (("one", ["one"]), ("two", ["two"]), ("both", ["one", "two"])):
        chosen = {name: methods[name] for name in names}
        out[label] = folder / label
        evaluate_dataset(
            "synthetic",
            out[label],
            inputs=Inputs(root=corpus / "clips", methods=chosen),
            running=Running(device="cpu"),
            progress=False,
        )
    return out


@pytest.mark.slow
def test_merged_evaluations_are_the_evaluation_of_both(real):
    found = merged(real["one"], real["two"])
    together = pd.read_csv(real["both"] / "leaderboard.csv", keep_default_na=False, na_values=[""])
    assert found["method"].tolist() == together["method"].tolist() == ["ground_truth", "one", "repeated_frame", "two"]
    for name in (c.name for c in COLUMNS if c.name in together):
        assert found[name].to_numpy() == pytest.approx(together[name].to_numpy(), rel=1e-9, nan_ok=True), name
    sent = merged(alone(real["one"], "one.csv"), alone(real["two"], "two.csv"))
    assert sent["psnr_low"].to_numpy() == pytest.approx(found["psnr_low"].to_numpy(), rel=1e-9, nan_ok=True)
