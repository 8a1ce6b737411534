# SPDX-License-Identifier: Apache-2.0
"""A paper's table with our results: which number is in which cell, what may be compared, and every format."""

import io
import json
import math
import os
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from lipsync_bench.datamodules.weights.registry import official_file
from lipsync_bench.papers import LeaderboardSource, TableOptions, compare, load_table, read_sources, table
from lipsync_bench.papers.comparison import NOT_RUN, PAPER_ONLY
from lipsync_bench.papers.printed.paper_metrics import PAPER_METRICS
from lipsync_bench.papers.render import latex_escape, to_csv, to_latex, to_markdown, to_text
from lipsync_bench.results.leaderboard import leaderboard
from lipsync_bench.results.rows import FIELDS
from tests.weight_files import make_official

SYNCNET = "5c" * 32


def row(method: str, clip: str, **values: object) -> dict[str, object]:
    base = {
        "protocol": "paired_face_box-v2",
        "generator_sha256": f"{method}-weights",
        "paste": "box",
        "recipe": "",
        "status": "ok",
    }
    return {**base, "method": method, "clip": clip, "package_version": "0.1.0", **values}


def rows_of(method: str, clips: int = 80, protocol: str = "paired_face_box-v2", **values: object) -> list[dict]:
    """Clips that score 30, 31, 30, 31, ... dB."""
    return [
        row(method, f"s/{i}", protocol=protocol, psnr=30.0 + i % 2, ssim=0.9, lmd=1.5, **values) for i in range(clips)
    ]


def results(folder: Path, rows: list[dict], dataset: str = "lrs2", split: str = "test") -> Path:
    """A results folder as an evaluation leaves it."""
    folder.mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame([{name: r.get(name) for name in FIELDS} for r in rows])
    frame.to_csv(folder / "clips.csv", index=False)
    frame[["generator_sha256", "paste"]] = frame[["generator_sha256", "paste"]].fillna("")
    leaderboard(frame).to_csv(folder / "leaderboard.csv", index=False)
    (folder / "manifest.json").write_text(json.dumps({"identity": {"dataset": dataset, "split": split}}))
    return folder


def ground_truth(clips: int = 80, protocol: str = "paired_face_box-v2", **values: object) -> list[dict]:
    return [
        row(
            "ground_truth", f"s/{i}", protocol=protocol, psnr=math.inf, ssim=1.0, lmd=0.0, generator_sha256="", **values
        )
        for i in range(clips)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80 clips of LRS2: ground truth, Wav2Lip with one failure and one clip without landmarks, IP-LAP's videos."""
    wav2lip = rows_of("wav2lip")
    wav2lip[0] |= {"status": "failed", "psnr": None, "ssim": None, "lmd": None}
    wav2lip[1] |= {"lmd": None}
    others = rows_of("ip_lap") + rows_of("repeated_frame")
    return results(tmp_path_factory.mktemp("results") / "lrs2", ground_truth() + wav2lip + others)


@pytest.fixture(scope="module")
def joined(folder):
    return compare(load_table("hyperlips-1"), read_sources(folder))


def row_of(joined, name: str, dataset: str | None = None):
    return next(x for x in joined.rows if x.row.name == name and dataset in (None, x.row.dataset))


def test_ours_is_in_the_row_of_its_name_with_interval_and_count(joined):
    psnr = row_of(joined, "wav2lip").cells["psnr"]
    assert psnr.paper.text == "31.794"
    (ours,) = psnr.ours
    assert ours.value == pytest.approx((39 * 30 + 40 * 31) / 79)
    assert ours.low < ours.value < ours.high
    assert (ours.n, ours.tried) == (79, 80)
    assert row_of(joined, "wav2lip").cells["lmd"].ours[0].n == 78
    assert row_of(joined, "ip_lap").cells["psnr"].ours[0].n == 80


def test_rows_without_ours_have_a_reason(joined):
    assert row_of(joined, "atvgnet").marks == (PAPER_ONLY,)
    assert row_of(joined, "synctalkface").marks == (PAPER_ONLY,)
    assert row_of(joined, "hyperlips_hr").marks == (NOT_RUN,)
    assert row_of(joined, "wav2lip").marks == row_of(joined, "ip_lap").marks == ("",)


def test_the_ground_truth_is_the_reference(joined):
    cells = row_of(joined, "ground_truth").cells
    assert math.isinf(cells["psnr"].ours[0].value)
    assert (cells["ssim"].ours[0].value, cells["lmd"].ours[0].value) == (1.0, 0.0)
    assert any("the reference of each metric" in note for note in joined.notes)


def test_a_table_without_the_ground_truth_gets_ours(tmp_path):
    joined = compare(load_table("g4g-1"), read_sources(results(tmp_path, ground_truth(45))))
    assert [x.row.name for x in joined.rows if not x.in_paper] == ["ground_truth"]
    assert [x.row.dataset for x in joined.rows] == ["hdtf"] * 5 + ["lrs2"] * 6
    assert joined.rows[-1].row.label == "ground_truth, not in the paper"


def test_missing_and_unmatched_methods_are_noted(joined):
    notes = "\n".join(joined.notes)
    assert re.search(r"not measured: LSE-C, LSE-D \(run: bench weights fetch syncnet_v2\)", notes)
    assert "methods without a row in this table: repeated_frame" in notes
    assert "very likely a misprint" in notes
    assert "LMD's lips are centred" in notes
    assert "lipsync_bench 0.1.0" in notes


def test_a_part_of_the_table_is_filled_from_its_own_data_set(tmp_path):
    results(tmp_path / "a", rows_of("hyperlips_base", 3))
    results(tmp_path / "b", rows_of("hyperlips_base", 2), dataset="mead")
    joined = compare(load_table("hyperlips-3"), read_sources(tmp_path))
    assert [source.heading for source in joined.sources] == ["paired_face_box-v2, lrs2", "paired_face_box-v2, mead"]
    lrs2, mead = (row_of(joined, "hyperlips_base", dataset) for dataset in ("lrs2", "mead_neutral"))
    assert [score and score.tried for score in lrs2.cells["psnr"].ours] == [3, None]
    assert [score and score.tried for score in mead.cells["psnr"].ours] == [None, 2]
    assert (lrs2.marks, mead.marks) == (("", ""), ("", ""))
    assert row_of(joined, "hyperlips_hr", "lrs2").marks == (NOT_RUN, "")


def test_two_protocols_are_two_columns_and_two_folders_too(tmp_path):
    mixed = rows_of("wav2lip", 2) + rows_of("wav2lip", 2, protocol="hyperlips-v2")
    results(tmp_path / "a", mixed)
    results(tmp_path / "b", rows_of("wav2lip", 3))
    headings = [source.heading for source in read_sources(tmp_path)]
    assert len(set(headings)) == 3
    assert headings[0] == "hyperlips-v2, lrs2"
    assert [heading.endswith(f"{name})") for heading, name in zip(headings[1:], "ab", strict=True)] == [True, True]


def why(table: str, metric: str, source: LeaderboardSource, name: str = "wav2lip", dataset: str | None = None):
    return row_of(compare(load_table(table), [source]), name, dataset).cells[metric].ours[0].verdict


def board_of(rows: list[dict]) -> pd.DataFrame:
    return leaderboard(pd.DataFrame([{name: r.get(name) for name in FIELDS} for r in rows]))


S3FD = f"s3fd, mediapipe 0.10.21 face_mesh refine, weights sha256 {official_file('s3fd').sha256}"


def source_of(
    clips: int = 80,
    dataset: str = "lrs2",
    split: str = "test",
    protocol: str = "hyperlips-v2",
    boxes: str = S3FD,
    **values,
):
    return LeaderboardSource(board_of(rows_of("wav2lip", clips, protocol, **values)), "here", dataset, split, boxes)


@pytest.mark.parametrize("boxes", ["", S3FD[:-1] + "0", "s3fd, weights sha256 unknown"])
def test_faces_cut_with_other_weights_than_the_official_detectors_are_not_compared(boxes):
    for metric in ("psnr", "lmd"):
        verdict = why("hyperlips-1", metric, source_of(boxes=boxes))
        assert not verdict.comparable
        assert "detector weights" in verdict.why
        assert "s3fd-619a316812.pth" in verdict.why


def test_the_papers_own_protocol_on_its_clips_may_be_compared():
    verdict = why("hyperlips-1", "psnr", source_of())
    assert verdict.comparable
    assert why("hyperlips-1", "lmd", source_of()).comparable
    assert "as far as the paper states" not in verdict.why
    assert "as far as the paper states" in why("hyperlips-1", "lmd", source_of()).why


@pytest.mark.parametrize(
    ("changed", "table", "message"),
    [
        ({"dataset": "synthetic"}, "hyperlips-1", r"other clips \(ours: 80 of synthetic; the paper's: 80 random"),
        ({"dataset": ""}, "hyperlips-1", r"other clips \(ours: 80 of an unnamed set"),
        ({"split": "val"}, "hyperlips-1", r"other clips \(ours: the split val"),
        ({"clips": 3}, "hyperlips-1", r"another number of clips in the mean \(the paper's: 80\)"),
        ({}, "lipformer-1", r"number of clips not stated"),
        (
            {"protocol": "lipformer-v2"},
            "hyperlips-1",
            r"other crop \(ours: the target's ATVGnet box.*the paper's: .*S3FD",
        ),
        ({"protocol": "mine-v1"}, "hyperlips-1", r"another protocol \(mine-v1"),
        ({"protocol": "hyperlips-v99"}, "hyperlips-1", r"another protocol \(hyperlips-v99"),
        ({"protocol": "hyperlips_unpaired-v2"}, "hyperlips-1", r"other pairs \(ours: unpaired"),
        ({"protocol": "paired_face_box-v2"}, "hyperlips-1", r"other crop \(ours: .*Face Mesh.*the paper's: .*S3FD"),
        ({"protocol": "lipformer-v2"}, "hyperlips-1", r"reference frame \(ours: first.*the paper's: not stated"),
        (
            {"published": "no: crop: mesh (published: s3fd)"},
            "hyperlips-1",
            r"the method was not fed as published \(crop: m",
        ),
        ({"protocol": "video_pairs_face_box-v2"}, "lipformer-1", r"reference frame \(ours: of videos made elsewhere"),
    ],
)
def test_what_differs_is_named_in_one_sentence(changed, table, message):
    dataset = load_table(table).datasets[0]
    verdict = why(table, "psnr", source_of(**changed), dataset=dataset)
    assert not verdict.comparable
    assert re.search(f"^Not to be compared: .*{message}", verdict.why)
    assert verdict.why.endswith(".")


def test_a_mean_over_fewer_clips_than_the_papers_is_not_comparable():
    rows = rows_of("wav2lip", 80, "hyperlips-v2")
    rows[0] |= {"lmd": None}
    source = LeaderboardSource(board_of(rows), "here", "lrs2", "test", S3FD)
    assert why("hyperlips-1", "psnr", source).comparable
    assert "another number of clips in the mean (the paper's: 80)" in why("hyperlips-1", "lmd", source).why


def test_clips_that_were_never_released_are_always_others():
    board = board_of(rows_of("lipformer", 80, "lipformer-v2"))
    source = LeaderboardSource(board, "here", "custom", "test")
    assert "other clips" in why("lipformer-2", "psnr", source, "lipformer").why


def test_lse_is_compared_only_with_the_official_weights_and_pairs(monkeypatch):
    lse = {"lse_c_wav2lip_lrs": 6.0, "lse_d_wav2lip_lrs": 7.0, "lse_sha256": SYNCNET}
    lse["protocol"] = "hyperlips_unpaired-v2"
    unknown = why("hyperlips-1", "lse_c", source_of(**lse))
    assert re.search(
        r"^Not to be compared: metric network weights \(ours: 5c5c5c5c5c5c; not those of syncnet_v2\.model", unknown.why
    )
    make_official(monkeypatch, "syncnet_v2", SYNCNET)
    assert why("hyperlips-1", "lse_c", source_of(**lse)).comparable
    pairs = why("hyperlips-1", "lse_d", source_of(**{**lse, "protocol": "hyperlips-v2"})).why
    assert pairs == "Not to be compared: other pairs (ours: paired; the paper's: unpaired)."


@pytest.mark.parametrize(
    ("table", "dataset", "in_papers", "script"),
    [
        ("hyperlips-1", "lrs2", "lrs2", "lrs"),
        ("hyperlips-2", "mead", "mead_neutral", "real"),
        ("videoretalking-1", "hdtf", "hdtf", "real"),
        ("g4g-1", "hdtf", "hdtf", "real"),
        ("g4g-1", "lrs2", "lrs2", "lrs"),
        ("hyperlips-5", "one_speaker", "custom", "real"),
    ],
)
def test_lse_of_large_frames_is_that_of_face_tracks(table, dataset, in_papers, script):
    values = {f"lse_{x}_wav2lip_{s}": n for n, (x, s) in enumerate((x, s) for x in "cd" for s in ("lrs", "real"))}
    joined = compare(load_table(table), [source_of(2, dataset, **values)])
    row = replace(next(x.row for x in joined.rows if x.row.dataset == in_papers), name="wav2lip")
    for metric in ("lse_c", "lse_d"):
        assert joined.sources[0].score(joined.table, row, metric).value == values[f"{metric}_wav2lip_{script}"]
    assert "face tracks (real) on hdtf, mead_neutral, custom" in PAPER_METRICS["lse_c"].unstated


def test_lmd_is_centred_in_lipformers_tables_alone():
    source = source_of(2, lmd_centred=0.5)
    for name, value in (("lipformer-1", 0.5), ("hyperlips-1", 1.5)):
        joined = compare(load_table(name), [source])
        assert row_of(joined, "wav2lip", "lrs2").cells["lmd"].ours[0].value == value


def test_only_g4gs_own_split_of_lrs2_has_g4gs_clips_and_no_other_paper_has_them():
    g4g = {"clips": 45, "protocol": "g4g-v2", "dataset": "lrs2_g4g", "split": "test of g4g, leaking into the official"}
    assert why("g4g-1", "psnr", source_of(**g4g), dataset="lrs2").comparable
    official = source_of(**{**g4g, "dataset": "lrs2", "split": "test"})
    assert (
        "other clips (ours: the split test; the paper's: test of g4g)"
        in why("g4g-1", "psnr", official, dataset="lrs2").why
    )
    assert "other clips (ours: the split test of g4g, leaking" in why("hyperlips-1", "psnr", source_of(**g4g)).why


def test_lpips_says_that_its_net_is_not_stated():
    board = board_of(rows_of("wav2lip", protocol="g4g-v2"))
    board[["lpips_alex", "lpips_alex_low", "lpips_alex_high", "lpips_alex_n"]] = [0.1, 0.09, 0.11, 80]
    joined = compare(load_table("g4g-1"), [LeaderboardSource(board, "here", "lrs2", "test")])
    assert row_of(joined, "wav2lip", "lrs2").cells["lpips"].ours[0].value == 0.1
    assert "The papers do not state the net of LPIPS; ours is alex." in joined.notes


def test_an_experts_score_is_never_lse(tmp_path):
    joined = compare(
        load_table("hyperlips-1"), read_sources(results(tmp_path, rows_of("wav2lip", 2, expert_confidence=5.0)))
    )
    assert row_of(joined, "wav2lip").cells["lse_c"].ours == (None,)


# What cannot be read


def test_one_method_with_two_weights_is_refused(tmp_path):
    two = rows_of("wav2lip", 2) + rows_of("wav2lip", 2, generator_sha256="other")
    with pytest.raises(ValueError, match=r"2 entries for wav2lip .*weights other.*--out DIR"):
        read_sources(results(tmp_path, two))


def test_two_syncnets_are_refused(tmp_path):
    two = rows_of("wav2lip", 2, lse_sha256="aa") + rows_of("ip_lap", 2, lse_sha256="bb")
    with pytest.raises(ValueError, match=r"several SyncNets: aa bb"):
        read_sources(results(tmp_path, two))


def test_a_folder_without_results_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no results.*bench evaluate --out DIR"):
        read_sources(tmp_path)
    with pytest.raises(FileNotFoundError, match="holds no results"):
        read_sources(tmp_path / "none")


def test_files_that_are_something_else_are_refused(tmp_path):
    (tmp_path / "leaderboard.csv").write_text("method,psnr\nwav2lip,30\n")
    with pytest.raises(ValueError, match=r"has no column protocol, clips, failures.*bench evaluate"):
        read_sources(tmp_path)
    results(tmp_path, rows_of("wav2lip", 2))
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(ValueError, match=r"manifest\.json: holds a list.*bench evaluate"):
        read_sources(tmp_path)


def test_rows_newer_than_the_leaderboard_count(tmp_path):
    results(tmp_path, rows_of("wav2lip", 2))
    board = tmp_path / "leaderboard.csv"
    os.utime(board, (1, 1))
    text = (tmp_path / "clips.csv").read_text()
    (tmp_path / "clips.csv").write_text(text.replace("31.0", "41.0"))
    (source,) = read_sources(tmp_path)
    assert source.score(load_table("hyperlips-1"), load_table("hyperlips-1").rows[0], "psnr").value == 35.5


def test_a_leaderboard_file_knows_its_data_set_only_beside_its_manifest(folder, tmp_path):
    assert read_sources(folder / "leaderboard.csv")[0].heading == "paired_face_box-v2, lrs2"
    merged = tmp_path / "merged.csv"
    merged.write_bytes((folder / "leaderboard.csv").read_bytes())
    (source,) = read_sources(merged)
    assert "other clips (ours: 80 of an unnamed set" in why("hyperlips-1", "ssim", source).why


# Formats


def test_the_screen_shows_paper_ours_interval_count_and_sentence(joined):
    text = to_text(joined, 80)
    assert max(map(len, text.splitlines())) <= 80
    assert re.search(r"wav2lip +│ +31\.794 │ +30\.506 \[30\.\d{3}, 30\.\d{3}\], 79 of 80 a ", text)
    assert re.search(r"atvgnet +│ +32\.812 │ +paper only ", text)
    assert re.search(r"hyperlips_base +│ +33\.953 │ +not run ", text)
    assert re.search(r"ground_truth +│ +– │ +identical, 80 of 80 b ", text)
    assert "ours: paired_face_box-v2, lrs2" in text
    assert re.search(r"^a  Not to be compared: another number of clips", text, re.MULTILINE)
    assert re.search(r"^b  Not to be compared: other crop", text, re.MULTILINE)
    assert text.index("PSNR (dB) ↑") < text.index("SSIM ↑") < text.index("LMD (px) ↓")


def test_the_papers_values_alone_are_one_table():
    text = to_text(compare(load_table("hyperlips-1")), 90)
    assert re.search(r"wav2lip +│ +31\.794 │ +0\.894 │ +1\.471 │ +6\.841 │ +7\.202 ", text)
    assert "ours" not in text
    assert "paired: PSNR, SSIM, LMD; unpaired: LSE-C, LSE-D" in " ".join(text.split())


def test_the_csv_is_tidy_and_complete(joined):
    frame = pd.read_csv(io.StringIO(to_csv(joined)), dtype={"paper": str})
    assert len(frame) == 7 * 5
    line = frame[(frame["method"] == "wav2lip") & (frame["metric"] == "psnr")].iloc[0]
    assert (line["paper"], line["n"], line["tried"], line["protocol"]) == ("31.794", 79, 80, "paired_face_box-v2")
    assert line["generator_sha256"] == "wav2lip-weights"
    assert line["comparable"] == False  # noqa: E712 - a NumPy value
    assert line["low"] < line["ours"] < line["high"]
    assert frame.loc[(frame["method"] == "atvgnet"), "why"].eq(PAPER_ONLY).all()
    alone = pd.read_csv(io.StringIO(to_csv(compare(load_table("g4g-1")))), dtype={"paper": str})
    assert len(alone) == 60
    assert "23.8450" in set(alone["paper"])


def test_the_csv_has_no_lines_of_another_data_set_s_results(tmp_path):
    """G4G's Table 1 is of two data sets, whose results lie in two folders."""
    folders = [results(tmp_path / name, rows_of("wav2lip", 45), dataset=name) for name in ("lrs2", "hdtf")]
    joined = compare(load_table("g4g-1"), [source for folder in folders for source in read_sources(folder)])
    frame = pd.read_csv(io.StringIO(to_csv(joined)), dtype={"paper": str})
    assert len(frame) == 60
    for dataset in ("lrs2", "hdtf"):
        assert set(frame.loc[frame["dataset"] == dataset, "source"]) == {f"paired_face_box-v2, {dataset}"}
    assert (
        frame.loc[(frame["method"] == "wav2lip") & (frame["metric"] == "psnr"), "ours"].notna().tolist() == [True] * 2
    )


def cells(markdown_line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", markdown_line)[1:-1]]


def test_markdown_rows_have_equal_cells(joined):
    lines = [line for line in to_markdown(joined).splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 7
    assert {len(cells(line)) for line in lines} == {1 + 5 + 3}
    assert cells(lines[0])[1:3] == ["PSNR (dB) ↑, paper", "PSNR (dB) ↑, ours: paired_face_box-v2, lrs2"]
    wav2lip = cells(lines[2])
    assert wav2lip[:2] == ["wav2lip", "31.794"]
    assert re.fullmatch(r"30\.506 \\\[30\.\d+, 30\.\d+\\\], 79 of 80 <sup>a</sup>", wav2lip[2])
    assert "- <sup>a</sup> Not to be compared" in to_markdown(joined)


def check_latex(text: str) -> None:
    """Balanced, and no character that LaTeX would take for a command is unescaped."""
    bare = re.sub(r"\\([&%$#_{}\\])", "", text)  # escaped signs and line ends
    depth = 0
    for sign in bare:
        depth += {"{": 1, "}": -1}.get(sign, 0)
        assert depth >= 0
    assert depth == 0
    assert sorted(re.findall(r"\\begin\{(\w+\*?)\}", text)) == sorted(re.findall(r"\\end\{(\w+\*?)\}", text))
    body = text[text.index(r"\begin{table*}") :].replace("{!}{%", "")
    body = re.sub(r"\\label\{[^}]*\}", "", body)
    assert not re.search(r"(?<!\\)[%#_^~]", body)
    assert bare.count("$") % 2 == 0
    assert text.isascii()


def test_latex_is_balanced_and_escaped(joined):
    text = to_latex(joined)
    check_latex(text)
    rules_ = [text.index(rule) for rule in (r"\toprule", r"\cmidrule", r"\midrule", r"\bottomrule")]
    assert rules_ == sorted(rules_)
    assert r"\multicolumn{2}{c}{PSNR (dB) $\uparrow$}" in text
    assert r"ours: paired\_face\_box-v2, lrs2" in text
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    rows = [line for line in body.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {8}
    assert re.search(r"^wav2lip & 31\.794 & 30\.506 \[.*79 of 80\\textsuperscript\{a\}", body, re.MULTILINE)


@pytest.mark.parametrize("id", ["g4g-1", "hyperlips-5", "videoretalking-2", "lipformer-1"])
def test_latex_of_the_papers_values(id):
    check_latex(to_latex(compare(load_table(id))))


def test_latex_escapes_every_special_sign():
    assert latex_escape(r"a_b & 5% #1 {x} $ \y ~ ^") == (
        r"a\_b \& 5\% \#1 \{x\} \$ \textbackslash{}y \textasciitilde{} \textasciicircum{}"
    )
    check_latex(r"\begin{table*}" + latex_escape('<>|"–±×↑↓\\_^~{}') + r"\end{table*}")


# The command


def test_the_command_prints_and_writes(folder, tmp_path, capsys):
    assert table("hyperlips-1", TableOptions(folder)) == 0
    assert "paired_face_box-v2" in capsys.readouterr().out
    for format, start in (("csv", "table,"), ("markdown", "**hyperlips-1"), ("latex", "% needs"), ("text", "hyper")):
        out = tmp_path / format
        assert table("hyperlips-1", TableOptions(folder, format=format, out=out)) == 0
        assert out.read_text(encoding="utf-8").startswith(start)
        assert capsys.readouterr().out == ""


def test_the_command_prints_the_papers_values_alone(capsys):
    assert table("g4g-2", TableOptions(paper_only=True, format="markdown")) == 0
    alone = capsys.readouterr().out
    assert "23.7250" in alone
    assert "ours" not in alone
    assert table("g4g-2", TableOptions(format="markdown")) == 0
    assert capsys.readouterr().out == alone


def test_the_command_lists_the_tables(capsys):
    assert table("list") == 0
    shown = capsys.readouterr().out
    assert all(id in shown for id in ("hyperlips-1", "videoretalking-4", "g4g-3", "lipformer-3"))
    with pytest.raises(FileNotFoundError, match=r"no table .table-1.. Expected one of g4g-1, .*lipformer-2"):
        table("table-1")


def test_options_that_contradict_each_other_are_refused(folder):
    with pytest.raises(ValueError, match=r"--paper-only with .*Leave out --paper-only"):
        table("hyperlips-1", TableOptions(folder, paper_only=True))
    with pytest.raises(ValueError, match=r"g4g-3 is a user study.*--ratings FILE"):
        table("g4g-3", TableOptions(folder))
    with pytest.raises(ValueError, match=r"hyperlips-1 is not a user study.*--results DIR"):
        table("hyperlips-1", TableOptions(ratings=folder / "ratings.csv"))
