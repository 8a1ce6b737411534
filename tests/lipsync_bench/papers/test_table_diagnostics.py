# SPDX-License-Identifier: Apache-2.0
"""Columns beside a paper's that are not means over clips, are diagnostic, or depend on a network's weights."""

import io
import json
import re
from pathlib import Path

import pandas as pd
import pytest

from lipsync_bench.datamodules.weights.registry import official_file
from lipsync_bench.papers import LeaderboardSource, compare, load_table, read_sources
from lipsync_bench.papers.render import to_csv, to_latex, to_markdown, to_text
from lipsync_bench.results.leaderboard import leaderboard
from lipsync_bench.results.rows import FIELDS

INCEPTION, ALEXNET = (official_file(id).sha256 for id in ("inception_fid", "alexnet"))


def rows_of(method: str, protocol: str, clips: int = 80, **values: object) -> list[dict]:
    base = {
        "protocol": protocol,
        "method": method,
        "paste": "box",
        "recipe": "",
        "status": "ok",
        "package_version": "0.1.0",
    }
    base["generator_sha256"] = f"{method}-weights"
    rows = [{**base, "clip": f"s/{i}", "audio_clip": f"s/{i}", "cpbd": 0.2 + i / 1000, **values} for i in range(clips)]
    return [{name: row.get(name) for name in FIELDS} for row in rows]


def source_of(
    rows: list[dict], dataset: str = "lrs2", fid: dict[str, tuple[float, int]] | None = None, split: str = "test"
):
    frame = pd.DataFrame(rows)
    pooled = None
    if fid is not None:
        entry = ["protocol", "method", "generator_sha256", "paste", "recipe"]
        pooled = frame[entry].drop_duplicates()
        pooled = pooled.assign(
            fid=[fid[name][0] for name in pooled["method"]], fid_n=[fid[name][1] for name in pooled["method"]]
        )
    return LeaderboardSource(leaderboard(frame, pooled), "here", dataset, split)


def row_of(joined, name: str, dataset: str = "lrs2"):
    return next(x for x in joined.rows if (x.row.name, x.row.dataset) == (name, dataset))


# PSNR uint8


@pytest.fixture(scope="module")
def with_uint8():
    values = {"psnr": 27.25, "ssim": 0.7, "lmd": 1.0}
    rows = rows_of("wav2lip", "hyperlips-v2", **values, psnr_uint8=31.4567)
    rows += rows_of("ip_lap", "hyperlips-v2", **values)
    return compare(load_table("hyperlips-1"), [source_of(rows)])


def test_psnr_uint8_is_printed_beside_ours_in_every_format(with_uint8):
    assert with_uint8.diagnosed("psnr") == (0,)
    text = to_text(with_uint8, 80)
    assert max(map(len, text.splitlines())) <= 80
    assert re.search(r"wav2lip +│ 31\.794 │ 27\.250 \[27\.250, 27\.250\], 80 of 80 a │ +31\.457 b", text)
    assert re.search(r"┃ PSNR uint8, ┃\n.*┃ +ours ┃\n", text)
    assert re.search(r"^b  PSNR uint8 is not a PSNR and does not compare methods", text, re.MULTILINE)
    markdown = to_markdown(with_uint8).splitlines()
    heads, _, wav2lip = [row.split(" | ") for row in markdown if row.startswith("|")][:3]
    assert heads[1:4] == [
        "PSNR (dB) ↑, paper",
        "PSNR (dB) ↑, ours: hyperlips-v2, lrs2",
        "PSNR (dB) ↑, PSNR uint8, ours",
    ]
    assert wav2lip[3] == "31.457 <sup>b</sup>"
    assert len(heads) == len(wav2lip) == 10
    latex = to_latex(with_uint8)
    assert r"\multicolumn{3}{c}{PSNR (dB) $\uparrow$}" in latex
    assert re.search(r"^wav2lip & 31\.794 & 27\.250 .* & 31\.457\\textsuperscript\{b\} & 0\.894 ", latex, re.MULTILINE)


def test_psnr_uint8_is_a_metric_of_its_own_in_csv(with_uint8):
    frame = pd.read_csv(io.StringIO(to_csv(with_uint8)), dtype={"paper": str})
    (ours,) = frame[frame["metric"] == "psnr_uint8"].iloc
    assert (ours["method"], ours["n"], ours["tried"]) == ("wav2lip", 80, 80)
    assert ours["ours"] == pytest.approx(31.4567)
    assert pd.isna(ours["better"])
    assert pd.isna(ours["paper"])
    assert not ours["comparable"]
    assert "may explain the paper's PSNR" in ours["why"]


def test_without_ours_uint8_is_not_mentioned():
    paper = compare(load_table("hyperlips-1"))
    other = compare(load_table("hyperlips-1"), [source_of(rows_of("wav2lip", "hyperlips-v2", psnr=27.25))])
    for joined in (paper, other):
        assert joined.diagnosed("psnr") == ()
        assert "uint8" not in to_text(joined) + to_markdown(joined) + to_latex(joined) + to_csv(joined)


# FID


def fid_table(sha256: str = INCEPTION, dataset: str = "hdtf"):
    rows = rows_of("wav2lip", "videoretalking-v2", 100, fid_sha256=sha256)
    rows += rows_of("ground_truth", "videoretalking-v2", 100, fid_sha256=sha256)
    fid = {"wav2lip": (7.3456, 50000), "ground_truth": (0.5, 25000)}
    return compare(load_table("videoretalking-1"), [source_of(rows, dataset, fid)])


def test_fid_counts_frames_and_explains_the_ground_truths_value():
    joined = fid_table()
    score = row_of(joined, "wav2lip", "hdtf").cells["fid"].ours[0]
    assert (score.n, score.count_text) == (50000, "50000 frames")
    text = to_text(joined, 100)
    assert re.search(r"wav2lip, without GAN +│ +7\.358 │ +7\.346, 50000 frames a ", text)
    assert "50000 of" not in text
    flat = " ".join(text.split())
    assert "FID is one value of all frames together: it has no interval and counts frames." in flat
    assert "FID of ground_truth compares two halves of the real videos" in flat
    frame = pd.read_csv(io.StringIO(to_csv(joined)))
    (ours,) = frame[(frame["metric"] == "fid") & (frame["method"] == "wav2lip") & (frame["dataset"] == "hdtf")].iloc
    assert (ours["counts"], ours["n"], ours["fid_sha256"]) == ("frames", 50000, INCEPTION)
    assert pd.isna(ours["tried"])
    cpbd = frame[(frame["metric"] == "cpbd") & (frame["method"] == "wav2lip") & (frame["dataset"] == "hdtf")].iloc[0]
    assert (cpbd["counts"], cpbd["n"], cpbd["tried"]) == ("clips", 100, 100)


def test_fid_may_be_compared_on_the_papers_clips_with_the_published_network():
    score = row_of(fid_table(), "wav2lip", "hdtf").cells["fid"].ours[0]
    assert score.verdict.comparable
    assert "as far as the paper states" in score.verdict.why
    assert any(f"Inception {INCEPTION[:12]}" in note for note in fid_table().notes)
    other = row_of(fid_table("ab" * 32), "wav2lip", "hdtf").cells["fid"].ours[0].verdict
    assert not other.comparable
    assert "metric network weights (ours: abababababab; not those of pt_inception-2015-12-05-6726825d.pth)" in other.why
    assert row_of(fid_table("ab" * 32), "wav2lip", "hdtf").cells["cpbd"].ours[0].verdict.comparable


def test_a_table_without_our_fid_notes_what_it_needs():
    joined = compare(load_table("videoretalking-1"), [source_of(rows_of("wav2lip", "videoretalking-v2"))])
    notes = "\n".join(joined.notes)
    assert "not measured: FID, LSE-D, LSE-C (run: bench weights fetch inception_fid syncnet_v2)." in notes
    assert "FID is one value" not in notes


# Other metric networks, other files


def test_lpips_needs_the_published_trunk():
    values = {"psnr": 28.0, "lpips_alex": 0.1}
    rows = rows_of("wav2lip", "g4g-v2", 45, **values, lpips_alex_sha256=ALEXNET)
    joined = compare(load_table("g4g-1"), [source_of(rows, split="test of g4g")])
    assert row_of(joined, "wav2lip").cells["lpips"].ours[0].verdict.comparable
    assert any(f"AlexNet {ALEXNET[:12]}" in note for note in joined.notes)
    rows = rows_of("wav2lip", "g4g-v2", 45, **values, lpips_alex_sha256="ab" * 32)
    cells = row_of(compare(load_table("g4g-1"), [source_of(rows, split="test of g4g")]), "wav2lip").cells
    assert "not those of alexnet-owt-7be5be79.pth" in cells["lpips"].ours[0].verdict.why
    assert cells["psnr"].ours[0].verdict.comparable


def test_two_inceptions_are_refused():
    rows = rows_of("wav2lip", "videoretalking-v2", 2, fid_sha256="aa")
    rows += rows_of("lipgan", "videoretalking-v2", 2, fid_sha256="bb")
    with pytest.raises(ValueError, match=r"several Inceptions: aa bb\. Expected one"):
        source_of(rows)


def results(folder: Path, rows: list[dict]) -> Path:
    folder.mkdir()
    pd.DataFrame(rows).to_csv(folder / "clips.csv", index=False)
    leaderboard(pd.DataFrame(rows)).to_csv(folder / "leaderboard.csv", index=False)
    (folder / "manifest.json").write_text(json.dumps({"identity": {"dataset": "lrs2", "split": "test"}}))
    return folder


def test_a_leaderboard_merged_without_rows_reads_without_ranks(tmp_path):
    from lipsync_bench.cli.scoring_commands import leaderboard_merge

    alone = []
    for name, more in (("wav2lip", {"psnr_uint8": 31.0}), ("ip_lap", {"lmd": 1.0})):
        made = results(tmp_path / name, rows_of(name, "hyperlips-v2", 3, psnr=30.0, ssim=0.9, **more))
        alone.append(tmp_path / f"{name}.csv")
        alone[-1].write_bytes((made / "leaderboard.csv").read_bytes())
    assert leaderboard_merge(alone, out=tmp_path / "all.csv") == 0
    merged = pd.read_csv(tmp_path / "all.csv")
    assert merged["psnr_rank"].isna().all()
    assert merged["psnr_group"].isna().all()
    joined = compare(load_table("hyperlips-1"), read_sources(tmp_path / "all.csv"))
    assert row_of(joined, "wav2lip").cells["psnr"].ours[0].value == 30
    assert row_of(joined, "ip_lap").cells["lmd"].ours[0].n == 3
    assert row_of(joined, "wav2lip").cells["lmd"].ours == (None,)
    assert row_of(joined, "ip_lap").cells["psnr"].diagnostics == (None,)
    assert "30.000 [30.000, 30.000], 3 of 3" in to_text(joined, 120)


def test_an_older_leaderboard_without_the_newer_metric_networks_is_read(tmp_path):
    folder = results(tmp_path / "old", rows_of("wav2lip", "hyperlips-v2", 3, psnr=30.0))
    (folder / "clips.csv").unlink()
    board = pd.read_csv(folder / "leaderboard.csv")
    board.drop(columns=["fid_sha256", "lpips_alex_sha256", "lpips_vgg_sha256"]).to_csv(folder / "leaderboard.csv")
    (source,) = read_sources(folder)
    assert source.score(load_table("hyperlips-1"), load_table("hyperlips-1").rows[0], "psnr").value == 30
