# SPDX-License-Identifier: Apache-2.0
import csv
import json
import math
import re

import pandas as pd
import pytest

from lipsync_bench.metrics.registry import column
from lipsync_bench.report import charts as charts_of
from lipsync_bench.report import write_report
from lipsync_bench.report.boards import boards
from lipsync_bench.report.charts import speeds
from lipsync_bench.report.clips import clip_list
from lipsync_bench.report.contents import read_results
from lipsync_bench.report.names import slugs
from lipsync_bench.report.numbers import heading
from lipsync_bench.report.players import clip_pages
from lipsync_bench.report.records import failures, repeat_command, save_videos_command
from lipsync_bench.report.site import PAGES
from lipsync_bench.report.zoom import zoom_boxes
from lipsync_bench.results.rows import FIELDS
from tests.lipsync_bench.report.page import Page
from tests.lipsync_bench.report.report_fixture import (
    HOSTILE,
    METHODS,
    METRICS,
    PAIRED,
    SOURCE,
    SYNCNET,
    UNPAIRED,
    WEIGHTS,
    clip_ids,
    copy_results,
    make_results,
    set_values,
    write_board,
    write_found,
    write_rows,
)
from tests.weight_files import make_official


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return make_results(tmp_path_factory.mktemp("results") / "demo", videos=True)


@pytest.fixture(scope="module")
def site(results, tmp_path_factory):
    out = tmp_path_factory.mktemp("site") / "report"
    assert write_report(results, out) == out / "index.html"
    return out


@pytest.fixture
def few_drawings(monkeypatch):
    """Most of a small report's time goes into drawings."""
    monkeypatch.setattr(charts_of, "_distributions", lambda *_: [])


def html(site):
    return sorted(site.rglob("*.html"))


def test_every_page_exists_and_is_complete(site):
    assert {path.name for path in site.glob("*.html")} == {page for page, _ in PAGES}
    assert len(list((site / "clips").iterdir())) == 12
    ids = []
    for path in html(site):
        page = Page(path.read_text(encoding="utf-8"))
        names = [a["id"] for _, a in page.elements if "id" in a]
        assert len(names) == len(set(names)), path
        assert [tag for tag, _ in page.elements].count("h1") == 1
        ids += names
    assert ids


def test_the_same_results_give_the_same_bytes(site, results, tmp_path):
    out = write_report(results, tmp_path / "again").parent
    names = [path.relative_to(site) for path in sorted(site.rglob("*")) if path.is_file()]
    assert names == [path.relative_to(out) for path in sorted(out.rglob("*")) if path.is_file()]
    assert all((out / name).read_bytes() == (site / name).read_bytes() for name in names)


def test_every_link_leads_to_a_file_of_the_site_or_an_anchor_on_the_page(site):
    seen = 0
    for path in html(site):
        page = Page(path.read_text(encoding="utf-8"))
        names = {a["id"] for _, a in page.elements if "id" in a}
        for tag, attributes in page.elements:
            for key in ("href", "src", "xlink:href"):
                link = attributes.get(key)
                if not link or link == "data:,":
                    continue
                assert re.match(r"[^/:][^:]*$", link), (path, tag, link)
                file, _, place = link.partition("#")
                if file:
                    target = (path.parent / file).resolve()
                    assert target.is_file(), (path, link)
                    assert target.is_relative_to(site), (path, link)
                else:
                    assert place in names, (path, link)
                seen += 1
    assert seen > 300


def test_nothing_comes_from_a_network(site):
    for path in site.rglob("*"):
        if path.suffix in (".html", ".css", ".js"):
            text = path.read_text(encoding="utf-8")
            addresses = set(re.findall(r"https?://[^\"'\s)]+", text))
            assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
            assert "@import" not in text
            assert "@font-face" not in text
            assert "url(http" not in text


def test_hostile_names_are_text_and_stay_in_the_folder(site, results):
    for path in html(site):
        page = Page(path.read_text(encoding="utf-8"))
        scripts = [a for tag, a in page.elements if tag == "script"]
        assert all("src" in a or a.get("type") == "application/json" for a in scripts)
        assert not any(tag == "b" for tag, _ in page.elements)
    titles = {"".join(Page(path.read_text()).text).strip().splitlines()[0] for path in (site / "clips").iterdir()}
    assert {f"{clip} – lrs2 (demo)" for clip in HOSTILE} <= titles
    assert {path.name for path in site.parent.iterdir()} == {"report"}
    assert all(re.fullmatch(r"[a-z0-9-]+\.html", path.name) for path in (site / "clips").iterdir())


def test_slugs_are_safe_unique_and_do_not_depend_on_the_others():
    names = ["a/b", "a b", "A/B", "../x", "..", "", "日本", "x" * 500, "Ñ", "N", "<script>"]
    made = slugs(names)
    assert len({slug.lower() for slug in made.values()}) == len(names)
    assert all(re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?", slug) for slug in made.values())
    assert slugs(["a/b"])["a/b"] == made["a/b"]


def test_a_leaderboard_has_one_protocol_and_names_the_weights(results):
    paired, unpaired = boards(read_results(results))
    assert (paired.protocol, unpaired.protocol) == (PAIRED, UNPAIRED)
    assert {e.entry.protocol for e in [*paired.competitors, *paired.references]} == {PAIRED}
    assert [e.entry.method for e in paired.references] == ["ground_truth"]
    assert "psnr" not in [h.name for h in unpaired.headings]
    assert "psnr_uint8" not in [h.name for h in paired.headings]
    board = pd.read_csv(results / "leaderboard.csv")
    expected = board[(board["protocol"] == PAIRED) & (board["method"] == "wav2lip")].iloc[0]
    entry = next(e for e in paired.competitors if e.entry.method == "wav2lip")
    cells = dict(zip([h.name for h in paired.headings], entry.cells, strict=True))
    assert cells["psnr"].text == f"{expected['psnr']:.2f}"
    assert cells["psnr"].interval == f"{expected['psnr_low']:.2f} to {expected['psnr_high']:.2f}"
    assert cells["psnr"].count == "12 of 12"
    assert cells["psnr"].rank == f"rank {expected['psnr_rank']:.0f} {expected['psnr_group']}"
    assert (cells["fid"].text, cells["fid"].count) == ("13.00", "900 frames")
    assert (cells["fid"].interval, cells["fid"].rank) == ("", "")
    failed = next(e for e in paired.competitors if e.entry.method == "lipformer")
    assert (failed.clips, failed.failures, failed.cells[0].count) == (10, 2, "10 of 12")


def test_the_best_competitor_is_marked_and_the_reference_never_is(results):
    board = boards(read_results(results))[0]
    for i, head in enumerate(board.headings):
        best = [e.entry.method for e in board.competitors if e.cells[i].best]
        values = {e.entry.method: e.cells[i].value for e in board.competitors if e.cells[i].value is not None}
        pick = max if head.higher_is_better else min
        assert best == ([] if head.higher_is_better is None else [pick(values, key=values.get)])
        assert not any(e.cells[i].best for e in board.references)
    values = [e.cells[board.sorted_by].value for e in board.competitors]
    assert values == sorted(values, reverse=True)


def test_a_value_that_all_have_is_not_marked_best(results, tmp_path, few_drawings):
    folder = copy_results(results, tmp_path / "even")
    set_values(folder, list(METHODS), detection_failure=0.0)

    def marked():
        board = boards(read_results(folder))[0]
        place = [head.name for head in board.headings].index("detection_failure")
        return {e.entry.method for e in [*board.competitors, *board.references] if e.cells[place].best}

    assert marked() == set()
    site = write_report(folder, tmp_path / "report").parent
    text = "".join(Page((site / "clips.html").read_text(encoding="utf-8")).text)
    assert text.count("every scored clip 0.000") == len(METHODS) - 1
    set_values(folder, ["wav2lip"], detection_failure=0.5)
    assert marked() == set(METHODS) - {"wav2lip", "ground_truth"}


def test_a_leaderboard_without_ranks_is_shown_without(tmp_path):
    folder = make_results(tmp_path / "r")
    board = pd.read_csv(folder / "leaderboard.csv")
    board = board[[name for name in board if not name.endswith(("_rank", "_group"))]]
    board.to_csv(folder / "leaderboard.csv", index=False)
    assert all(cell.rank == "" for e in boards(read_results(folder))[0].competitors for cell in e.cells)


def test_a_leaderboard_older_than_the_rows_or_missing_is_derived(tmp_path):
    write_rows(tmp_path, clip_ids(6))
    derived = read_results(tmp_path).board
    write_board(tmp_path)
    stale = pd.read_csv(tmp_path / "leaderboard.csv").assign(psnr=1.0)
    stale.to_csv(tmp_path / "leaderboard.csv", index=False)
    assert (read_results(tmp_path).board["psnr"] == 1.0).all()
    with (tmp_path / "clips.csv").open("a") as file:
        csv.DictWriter(file, FIELDS).writerow({"protocol": PAIRED, "method": "late", "clip": "c", "status": "failed"})
    again = read_results(tmp_path).board
    assert "late" in set(again["method"])
    assert again[again["method"] == "wav2lip"]["psnr"].item() == derived[derived["method"] == "wav2lip"]["psnr"].item()


def test_lse_by_other_weights_is_labelled_wherever_it_is_printed(site, results, monkeypatch):
    found = read_results(results)
    label = f"unofficial weights {SYNCNET[:12]}"
    assert heading(found, PAIRED, column("lse_d_wav2lip_lrs")).note == label
    clip = site / "clips" / f"{found.clips['../x']}.html"
    for path in (site / "index.html", site / "plots.html", site / "clips.html", clip):
        text = path.read_text(encoding="utf-8")
        assert len(re.findall("LSE-[CD]", text)) > 0
        assert label in text
    assert (
        f"metric network weights (ours: {SYNCNET[:12]}; not those of syncnet_v2.model"
        in (site / "papers.html").read_text()
    )
    make_official(monkeypatch, "syncnet_v2", SYNCNET)
    assert heading(found, PAIRED, column("lse_d_wav2lip_lrs")).note == f"official weights {SYNCNET[:12]}"
    assert heading(found, PAIRED, column("psnr")).note == ""


def test_the_leaderboard_says_whose_weights_a_method_has(site, results):
    (board, *_) = boards(read_results(results))
    found = {entry.entry.method: entry.weights for entry in (*board.competitors, *board.references)}
    assert {name: found[name] for name in WEIGHTS} == WEIGHTS
    assert found["ground_truth"] == ""
    text = (site / "index.html").read_text(encoding="utf-8")
    for method, weights in WEIGHTS.items():
        assert f'<code title="{METHODS[method]}">{METHODS[method][:12]}</code> <small>{weights}</small>' in text


def test_speed_is_all_frames_by_all_seconds_of_the_method(results):
    rows = read_results(results).rows_of(PAIRED)
    speed = {key[1]: value for key, value in speeds(rows).items()}
    assert set(speed) == {"wav2lip", "hyperlips_hr", "lipformer"}
    own = rows[(rows["method"] == "lipformer") & (rows["status"] == "ok")]
    assert speed["lipformer"] == pytest.approx(75 * len(own) / own["generate_seconds"].sum())


def test_seconds_are_those_of_the_method_or_its_command_not_of_reading_a_file(tmp_path):
    write_rows(tmp_path, clip_ids(6))
    rows = pd.read_csv(tmp_path / "clips.csv", dtype=str, keep_default_na=False)
    rows.loc[rows["method"] == "wav2lip", "prediction_sha256"] = "9" * 64
    commands = rows["method"] == "hyperlips_hr"
    rows.loc[commands, ["prediction_sha256", "command_seconds"]] = "9" * 64, "15"
    rows.to_csv(tmp_path / "clips.csv", index=False)
    found = read_results(tmp_path)
    assert {key[1] for key in speeds(found.rows)} == {"hyperlips_hr", "lipformer"}
    (board,) = boards(found)
    assert board.headings[-1].text == "Seconds a frame"
    assert {e.entry.method: e.cells[-1].text for e in board.competitors}["hyperlips_hr"] == "0.2000"
    assert {e.entry.method: e.cells[-1].text for e in board.competitors}["wav2lip"] == "–"


def test_the_leaderboard_says_how_a_method_was_fed(site, results):
    fed = {e.entry.method: (e.recipe, e.fed) for e in boards(read_results(results))[0].competitors}
    assert fed["wav2lip"] == ("mesh 96x96 / first / reflect / box", ["not as published: crop: mesh (published: s3fd)"])
    assert fed["lipformer"][1] == ["as published"]
    assert fed["repeated_frame"] == ("", [])
    assert "not as published: crop: mesh (published: s3fd)" in (site / "index.html").read_text()


def test_every_page_links_to_the_one_that_explains_them_in_the_metrics_own_words(site):
    guide = Page((site / "guide.html").read_text(encoding="utf-8"))
    text = "".join(guide.text)
    for name in (*METRICS, "fid"):
        assert column(name).meaning in text
    assert "SSIM mouth" not in text  # these results do not have it
    for path in html(site):
        page = path.read_text(encoding="utf-8")
        assert 'guide.html"' in page, path
        assert "floor" not in page, path


def test_faces_are_enlarged_where_the_evaluation_found_them(results, tmp_path, caplog):
    found = read_results(results)
    clip = clip_ids(12)[5]
    assert zoom_boxes(found, clip, {SOURCE}) == {"face": (32, 32, 128, 138), "mouth": (60, 85, 105, 120)}
    assert zoom_boxes(found, clip, {"e0" * 32}) == {}  # of another video
    assert zoom_boxes(found, clip_ids(12)[6], {SOURCE}) == {}
    write_rows(tmp_path / "r", ["../../s/1"])
    write_found(tmp_path / "r", "../../s/1")
    assert zoom_boxes(read_results(tmp_path / "r"), "../../s/1", {SOURCE}) == {}  # outside the folder
    path = write_found(tmp_path / "r", "s/2")
    path.write_bytes(path.read_bytes()[:500])
    assert zoom_boxes(read_results(tmp_path / "r"), "s/2", {SOURCE}) == {}
    assert "players of s/2 show whole frames only" in caplog.text


def test_results_in_which_no_method_has_two_finite_numbers_have_a_report(results, tmp_path, few_drawings):
    folder = copy_results(results, tmp_path / "ground_truth")
    rows = pd.read_csv(folder / "clips.csv", dtype=str, keep_default_na=False)
    rows[(rows["method"] == "ground_truth") & (rows["protocol"] == PAIRED)].to_csv(folder / "clips.csv", index=False)
    write_board(folder)
    site = write_report(folder, tmp_path / "report").parent
    page = Page((site / "plots.html").read_text(encoding="utf-8"))
    labels = [a["aria-label"] for tag, a in page.elements if tag == "svg"]
    assert any("of 0 methods" in label for label in labels)


def test_best_and_worst_clips_and_the_list_agree_with_the_rows(results):
    found = read_results(results)
    shown = clip_list(found, PAIRED)
    rows = found.rows_of(PAIRED)
    for head, extremes in shown.extremes:
        for entry, extreme in zip([entry for entry in shown.entries if not entry.is_reference], extremes, strict=True):
            own = rows[rows["method"] == entry.method].dropna(subset=[head.name]).set_index("clip")[head.name]
            best, worst = (own.idxmax(), own.idxmin()) if head.higher_is_better else (own.idxmin(), own.idxmax())
            assert (own[extreme.best[0]], own[extreme.worst[0]]) == (own[best], own[worst])
    j = [entry.method for entry in shown.entries].index("lipformer")
    for name, values in shown.data["values"].items():
        table = rows[rows["method"] == "lipformer"].set_index("clip")[name]
        for (clip, _), row in zip(shown.pairs, values, strict=True):
            assert row[j] is None if math.isnan(table[clip]) else row[j] == pytest.approx(table[clip], rel=1e-5)
    assert "inf" in json.dumps(shown.data["values"]["psnr"])
    assert clip_list(found, UNPAIRED).pairs[0][0].startswith("../x with the audio of")


def test_videos_are_linked_beside_their_rows(site, results, tmp_path):
    found = read_results(results)
    pages = {page.clip: page for page in clip_pages(found, tmp_path, videos=True)}
    clip = clip_ids(12)[5]
    group = pages[clip].groups[0]
    assert [row.entry.method for row in group.playable] == ["ground_truth", "hyperlips_hr", "wav2lip"]
    for row in group.playable:
        copy = (tmp_path / "clips" / row.video).resolve()
        assert copy.is_relative_to(tmp_path / "videos")
        original = results / "videos"
        assert any(copy.samefile(path) for path in original.rglob("*.mp4"))
    assert len(list((site / "videos").rglob("*.mp4"))) == 6
    text = (site / "clips" / f"{found.clips[clip]}.html").read_text()
    assert text.count("<video ") == 3


def test_a_clip_id_cannot_fetch_a_file_from_elsewhere(tmp_path):
    folder = tmp_path / "results"
    write_rows(folder, ["../../../secret"])
    (folder / "videos" / "ground_truth").mkdir(parents=True)
    (folder / "videos" / "ground_truth" / "kept.mp4").write_bytes(b"0")
    (tmp_path / "secret.mp4").write_bytes(b"1")
    (page,) = clip_pages(read_results(folder), tmp_path / "out", videos=True)
    assert not page.groups[0].playable
    assert not (tmp_path / "out").exists()


def test_without_videos_the_pages_name_the_command(tmp_path, few_drawings):
    folder = make_results(tmp_path / "r", count=5)
    out = tmp_path / "out"
    write_report(folder, out)
    for path in (out / "clips").iterdir():
        text = path.read_text()
        assert "bench evaluate --dataset lrs2" in text
        assert "--save-videos" in text
        assert "<video" not in text
        assert "player.js" not in text
    assert save_videos_command(None) == "bench evaluate ... --save-videos"


def test_failures_are_grouped_and_counted(site, results):
    groups = failures(read_results(results))
    assert sum(len(group.cases) for group in groups) == 2
    text = (site / "failures.html").read_text()
    assert "&lt;b&gt;ValueError&lt;/b&gt;" in text
    assert "a/&lt;i&gt;2.mp4" in text
    assert "MediaError: no video track" in text
    assert "2 targets could not be prepared" in text


def test_reasons_that_differ_in_numbers_are_one_group(tmp_path):
    write_rows(tmp_path, ["c1"])
    with (tmp_path / "clips.csv").open("a") as file:
        writer = csv.DictWriter(file, FIELDS)
        for i in range(3):
            row = {"protocol": PAIRED, "method": "m", "clip": f"x{i}", "status": "failed", "package_version": "0"}
            writer.writerow({**row, "reason": f"x{i}: no face in frame {i * 7}"})
    (group,) = failures(read_results(tmp_path))
    assert (len(group.cases), group.same) == (3, False)


def test_papers_show_both_sides_and_the_sentence(site, results, tmp_path, few_drawings):
    text = (site / "papers.html").read_text()
    assert 'id="hyperlips-1"' in text
    assert 'id="g4g-1"' in text
    assert 'id="g4g-2"' not in text
    assert "Not to be compared:" in text
    assert "31.794" in text  # PSNR of wav2lip in hyperlips-1, as printed
    write_report(results, tmp_path / "out", tables=["g4g-2", "hyperlips-1"])
    assert 'id="g4g-2"' in (tmp_path / "out" / "papers.html").read_text()
    with pytest.raises(FileNotFoundError, match="no table 'nonsense'"):
        write_report(results, tmp_path / "other", tables=["nonsense"])
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_manifest_can_be_read_and_the_command_pasted(site):
    text = (site / "manifest.html").read_text()
    assert "paired_face_box" in text
    assert SYNCNET in text
    assert "How to repeat the run" in text
    session = {"command": ["bench", "evaluate", "--name", "it's <b>"]}
    assert repeat_command(session) == "bench evaluate --name 'it'\"'\"'s <b>'"
    assert "it&#39;&#34;&#39;&#34;&#39;s &lt;b&gt;" in text


def test_results_without_a_manifest_have_a_report(tmp_path, few_drawings):
    write_rows(tmp_path / "r", clip_ids(6))
    out = write_report(tmp_path / "r", tmp_path / "out", title="A <title>").parent
    assert "has no manifest.json" in (out / "manifest.html").read_text()
    assert "A &lt;title&gt;" in (out / "index.html").read_text()
    assert "no manifest names" in (out / "papers.html").read_text()


def test_two_weights_of_a_method_have_different_labels(tmp_path):
    write_rows(tmp_path, clip_ids(6))
    rows = (tmp_path / "clips.csv").read_text()
    lines = [line.replace(METHODS["wav2lip"], "d4" * 32) for line in rows.splitlines()[1:] if ",wav2lip," in line]
    (tmp_path / "clips.csv").write_text(rows + "\n".join(lines) + "\n")
    found = read_results(tmp_path)
    labels = {entry.label for entry in found.entries.values()}
    assert {"wav2lip (a1a1a1a1a1a1, box)", "wav2lip (d4d4d4d4d4d4, box)", "lipformer"} <= labels
    assert len({entry.slug for entry in found.entries.values()}) == 6
    assert len({entry.number for entry in found.entries.values() if not entry.is_reference}) == 5
