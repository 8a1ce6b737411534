# SPDX-License-Identifier: Apache-2.0
"""The leaderboard of rows made by hand: intervals, ranks, FID, and the printed table."""

import io
import math
import re

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from lipsync_bench.metrics.registry import COLUMNS, column
from lipsync_bench.results.leaderboard import leaderboard, metric_columns, rich_table, write_leaderboard
from lipsync_bench.results.ranks import intervals
from lipsync_bench.results.rows import ENTRY, FIELDS, NETWORK_HASHES

EIGHT = (
    *("ground_truth", "repeated_frame", "wav2lip", "wav2lip_gan"),
    *("hyperlips_base", "hyperlips_hr", "lipformer", "videoretalking_lnet"),
)


def rows_of(methods: dict[str, dict[str, np.ndarray]], **shared: object) -> pd.DataFrame:
    """Rows of some methods, each with columns over the same clips."""
    out = []
    for method, columns in methods.items():
        for k in range(len(next(iter(columns.values())))):
            line = {"protocol": "p-v1", "method": method, "generator_sha256": "", "paste": "box"}
            clip = {"clip": f"s/{k:04d}", "audio_clip": f"s/{k:04d}", "status": "ok", "fallback_frames": 0}
            values = {name: column[k] for name, column in columns.items()}
            out.append({**line, **clip, "package_version": "0.1.0", **values, **shared})
    return pd.DataFrame(out).reindex(columns=list(FIELDS))


def three(clips: int = 40) -> pd.DataFrame:
    """`good` is better than `even` and `same`, which do not differ; the ground truth is identical."""
    generator, hard = np.random.default_rng(0), np.random.default_rng(1).normal(0, 3, clips)
    levels = {"good": 32, "even": 30, "same": 30}
    methods = {m: {"psnr": level + hard + generator.normal(0, 0.5, clips)} for m, level in levels.items()}
    for values in methods.values():
        values |= {"ssim": generator.normal(0.9, 0.01, clips), "expert_offset_frames": np.ones(clips)}
        values |= {"psnr_uint8": values["psnr"] + 1}
    ground_truth = {"psnr": np.full(clips, math.inf), "ssim": np.ones(clips)}
    return rows_of({**methods, "ground_truth": ground_truth}, lse_sha256="5c" * 32)


def pooled(**fid: float) -> pd.DataFrame:
    line = {**dict.fromkeys(ENTRY, ""), "protocol": "p-v1", "paste": "box"}
    return pd.DataFrame([{**line, "method": m, "fid": value, "fid_n": 800} for m, value in fid.items()])


def shown(board: pd.DataFrame, width: int = 120) -> str:
    buffer = io.StringIO()
    Console(file=buffer, width=width).print(rich_table(board, "results/x"))
    return buffer.getvalue()


def test_intervals_are_those_of_the_statistics():
    rows = three()
    board = leaderboard(rows).set_index("method")
    for line in intervals(rows).itertuples():
        found = board.loc[line.method, [line.metric + suffix for suffix in ("", "_low", "_high", "_n")]]
        assert found.astype(float).tolist() == pytest.approx([line.mean, line.low, line.high, line.n], nan_ok=True)


def test_speakers_are_resampled_where_known():
    rows = three(60)
    by_speaker = rows.assign(psnr=np.repeat(np.random.default_rng(3).normal(30, 2, 48), 5), speaker=None)
    by_speaker["speaker"] = [f"s{k // 5}" for k in range(60)] * 4
    speakers = leaderboard(by_speaker).set_index("method").loc["even"]
    clips = leaderboard(by_speaker.assign(speaker=None)).set_index("method").loc["even"]
    assert speakers["psnr"] == clips["psnr"]
    assert speakers["psnr_high"] - speakers["psnr_low"] > 1.5 * (clips["psnr_high"] - clips["psnr_low"])


def test_methods_are_ranked_and_the_ground_truth_is_not():
    board = leaderboard(three()).set_index("method")
    assert board["psnr_rank"].dropna().to_dict() == {"good": 1, "even": 2, "same": 2}
    assert board["psnr_group"].to_dict() == {"good": "a", "even": "b", "same": "b", "ground_truth": ""}
    assert set(board["ssim_rank"].dropna()) == {1}
    for name in ("expert_offset_frames", "psnr_uint8"):  # no better side
        assert board[f"{name}_rank"].isna().all()
        assert set(board[f"{name}_group"]) == {""}
    alone = leaderboard(three().query("method == 'good'"))
    assert alone["psnr_rank"].isna().all()
    trivial = leaderboard(three().replace({"method": {"same": "repeated_frame"}})).set_index("method")
    assert trivial.loc["repeated_frame", "psnr_rank"] == 2


def test_the_file_has_the_promised_columns_and_whole_ranks(tmp_path):
    board = write_leaderboard(three(), tmp_path / "leaderboard.csv", pooled(good=9.5, even=10.0))
    metrics = [c for c in COLUMNS if c.name in {"psnr", "ssim", "fid", "expert_offset_frames", "psnr_uint8"}]
    expected = ["protocol", "method", "clips", "failures", "fallback_frames"]
    expected += [name for c in metrics for name in metric_columns(c)]
    expected += ["generator_sha256", "paste", *NETWORK_HASHES, "split", "generator_weights"]
    expected += ["lse_weights", "lpips_alex_weights", "lpips_vgg_weights", "fid_weights"]
    expected += ["recipe", "recipe_text", "published", "trained_otherwise", "steps_left_out", "package_version"]
    assert list(board.columns) == expected
    assert metric_columns(column("psnr")) == tuple(f"psnr{s}" for s in ("", "_low", "_high", "_n", "_rank", "_group"))
    assert metric_columns(column("fid")) == ("fid", "fid_low", "fid_high", "fid_n")
    again = pd.read_csv(tmp_path / "leaderboard.csv", dtype=str, keep_default_na=False).set_index("method")
    assert again["psnr_rank"].to_dict() == {"good": "1", "even": "2", "same": "2", "ground_truth": ""}
    assert set(again["lse_sha256"]) == {"5c" * 32}
    assert shown(pd.read_csv(tmp_path / "leaderboard.csv")) == shown(board)


def test_fid_is_added():
    board = leaderboard(three(), pooled(good=9.5, even=10.0)).set_index("method")
    assert board.loc[["good", "even"], "fid"].tolist() == [9.5, 10.0]
    assert math.isnan(board.loc["same", "fid"])
    assert board["fid_n"].to_dict() == {"good": 800, "even": 800, "same": 0, "ground_truth": 0}
    assert board[["fid_low", "fid_high"]].isna().all(axis=None)
    assert "fid" not in leaderboard(three(), pooled(good=math.nan))
    assert "fid" not in leaderboard(three())


def test_fid_of_other_entries_is_refused():
    with pytest.raises(ValueError, match=r"without rows: \[\('p-v1', 'elsewhere', '', 'box', ''\)\].*--out NEW"):
        leaderboard(three(), pooled(elsewhere=1.0))
    with pytest.raises(ValueError, match="2 entries, 1 of them different"):
        leaderboard(three(), pd.concat([pooled(good=1.0), pooled(good=2.0)]))
    with pytest.raises(ValueError, match="no column fid_n"):
        leaderboard(three(), pooled(good=1.0).drop(columns="fid_n"))


def test_an_entry_that_failed_everywhere_and_no_rows_at_all_have_a_leaderboard():
    rows = three(5)
    rows.loc[rows["method"] == "good", ["status", "psnr", "ssim"]] = ["failed", math.nan, math.nan]
    line = leaderboard(rows).set_index("method").loc["good"]
    assert (line["clips"], line["failures"], line["psnr_n"], line["psnr_group"]) == (0, 5, 0, "")
    assert line["lse_sha256"] == "5c" * 32
    assert "0 of 5" in shown(leaderboard(rows))
    nothing = leaderboard(rows.iloc[:0])
    assert len(nothing) == 0
    assert {"protocol", "method", "clips", *NETWORK_HASHES} <= set(nothing.columns)


def test_missing_paste_and_weights_are_empty_texts():
    board = leaderboard(three(3).assign(paste=None, generator_sha256=None))
    assert board[["paste", "generator_sha256"]].to_numpy().tolist() == [["", ""]] * 4


def test_the_screen_shows_mean_half_interval_and_letter():
    table = rich_table(leaderboard(three(), pooled(good=9.5, even=10.0)), "title")
    columns = {str(c.header): list(c.cells) for c in table.columns}
    assert list(columns) == ["", "even", "good", "ground_truth", "same"]
    titles = ["clips", "PSNR (dB) ↑", "SSIM ↑", "FID ↓", "Expert offset (frames)"]
    assert columns[""] == titles  # nothing diagnostic
    assert re.fullmatch(r"\[bold\]31\.\d\d ±\d\.\d\d a\[/bold\]", columns["good"][1])
    assert re.fullmatch(r"30\.\d\d ±\d\.\d\d b", columns["even"][1])
    assert columns["ground_truth"][1] == "identical"  # and not the best: it is no competitor
    assert re.fullmatch(r"(\[bold\])?0\.\d{3} ±0\.\d{3}(\[/bold\])?", columns["even"][2])  # SSIM separates nothing
    assert (columns["good"][3], columns["even"][3], columns["same"][3]) == ("[bold]9.50[/bold]", "10.00", "–")
    assert "methods that share a letter do not differ" in str(table.caption)
    assert "No two methods differ significantly in SSIM" in str(table.caption)


def test_the_caption_says_when_nothing_at_all_is_separated_or_ranked():
    board = leaderboard(three(4))
    assert "significantly in any metric" in str(rich_table(board, "x").caption)
    unranked = board.assign(psnr_rank=pd.NA, psnr_group="", ssim_rank=pd.NA, ssim_group="")
    assert "No ranks" in str(rich_table(unranked, "x").caption)
    older = board[[name for name in board if not str(name).endswith(("_rank", "_group"))]]
    assert "No ranks" in str(rich_table(older, "x").caption)
    assert "No ranks" not in str(rich_table(leaderboard(three().query("method == 'good'")), "x").caption)


def test_the_best_of_one_protocol_is_not_measured_against_another():
    rows = pd.concat([three(), three().assign(protocol="q-v1", psnr=three()["psnr"] - 9)], ignore_index=True)
    table = rich_table(leaderboard(rows), "x")
    columns = {str(c.header): list(c.cells) for c in table.columns}
    assert columns["good\np-v1"][1].startswith("[bold]31.98 a\n")
    assert columns["good\nq-v1"][1].startswith("[bold]22.98 a\n")


def test_entries_of_one_name_are_distinguished_and_names_are_not_markup():
    rows = pd.concat([three().assign(generator_sha256="ab" * 32), three().assign(generator_sha256="cd" * 32)])
    headers = [str(c.header) for c in rich_table(leaderboard(rows.reset_index(drop=True)), "x").columns]
    assert "good\nabababababab\nbox" in headers
    assert "[red]x" in shown(leaderboard(three().replace({"method": {"good": "[red]x"}})))


def test_eight_methods_are_readable_at_120_columns():
    generator = np.random.default_rng(0)
    metrics = [c for c in COLUMNS if c.kind == "clip"]
    scales = {c.name: 30 if c.unit == "dB" else 9 for c in metrics}
    methods = {m: {n: generator.normal(s, s / 10, 30) for n, s in scales.items()} for m in EIGHT}
    board = leaderboard(rows_of(methods))
    text = shown(board)
    assert max(map(len, text.splitlines())) <= 120
    assert "…" not in text
    for line in board.itertuples():
        for c in metrics:
            assert f" {getattr(line, c.name):.{c.digits}f} " in text, (line.method, c.name)
    assert re.search(r"│ +±\d", text)
    for word in ("ground_", "lipformer", "hyperlips_", "repeated_", "wav2lip_", "clips"):
        assert f" {word} " in text
