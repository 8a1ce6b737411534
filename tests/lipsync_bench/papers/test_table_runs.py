# SPDX-License-Identifier: Apache-2.0
"""`bench table ID --run`: needed evaluations are run, finished ones reused, and the others noted."""

import io
import itertools
import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from lipsync_bench import bench
from lipsync_bench.evaluation import evaluate
from lipsync_bench.evaluation import run as scoring_run
from lipsync_bench.evaluation.task.benchmark import load_benchmark
from lipsync_bench.metrics.sync import lse
from lipsync_bench.models import Wav2Lip
from lipsync_bench.models.core.checkpoints import save_module
from lipsync_bench.papers import TableOptions, table
from lipsync_bench.papers.running import plan
from lipsync_bench.results.errors import OtherResultsError
from lipsync_bench.results.manifest import read_identity
from lipsync_bench.results.rows import read_rows
from tests.commands import run_bench
from tests.quick_networks import QuickSyncNet
from tests.weight_files import make_official

BENCHMARK = """\
data:
  class_path: lipsync_bench.datamodules.Synthetic
  init_args:
    root: {root}
methods:
  wav2lip: wav2lip.ckpt
  lipformer: none.ckpt
  nobody: wav2lip.ckpt
"""


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Two sets of untrained weights."""
    folder = tmp_path_factory.mktemp("weights")
    for seed in (0, 1):
        torch.manual_seed(seed)
        save_module(Wav2Lip(width=0.125, recipe={"crop": "mesh"}), folder / f"{seed}.ckpt")
    return folder


def workplace(folder: Path, corpus: Path, checkpoints: Path) -> Path:
    """A folder to work in: its benchmark `lrs2` is the synthetic corpus."""
    (folder / "experiments" / "benchmarks").mkdir(parents=True)
    (folder / "experiments" / "benchmarks" / "lrs2.yaml").write_text(BENCHMARK.format(root=corpus / "clips"))
    shutil.copy(checkpoints / "0.ckpt", folder / "wav2lip.ckpt")
    return folder


@pytest.fixture
def here(corpus, checkpoints, tmp_path, monkeypatch):
    monkeypatch.chdir(workplace(tmp_path, corpus, checkpoints))
    monkeypatch.setattr(scoring_run._PairScores, "row", counting(scoring_run._PairScores.row))
    monkeypatch.setattr(scoring_run._PairScores, "update", quick(scoring_run._PairScores.update))
    counts.clear()
    return tmp_path


counts: list[tuple[str, str]] = []
"""Method and clip of every row that was scored."""


def counting(row):
    def counted(self, *arguments):
        counts.append((self.candidate.name, self.ids[0]))
        return row(self, *arguments)

    return counted


def quick(update):
    """Scores the first chunk of a clip: these tests ask what is run, not what comes out."""

    def first_chunk(self, part):
        if part.chunk.first == 0:
            update(self, part)

    return first_chunk


def shown(capsys) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(capsys.readouterr().out), dtype={"paper": str})


def cell(frame: pd.DataFrame, method: str, metric: str, dataset: str = "lrs2") -> pd.Series:
    (found,) = frame[(frame["method"] == method) & (frame["metric"] == metric) & (frame["dataset"] == dataset)].iloc
    return found


def test_methods_by_command_and_by_the_folder_of_a_run_are_run(here, capsys, caplog):
    yaml = here / "experiments" / "benchmarks" / "lrs2.yaml"
    copy = 'sh -c \'cp "$0" "$2"\' {video} {audio} {out}'
    commands = "".join(
        f"  {name}: {{command: {json.dumps(copy)}, version: '1'}}\n" for name in ("pc_avs", "nobody_else")
    )
    yaml.write_text(yaml.read_text().replace("wav2lip: wav2lip.ckpt", "wav2lip: runs/wav2lip") + commands)
    (here / "runs" / "wav2lip").mkdir(parents=True)
    (here / "wav2lip.ckpt").rename(here / "runs" / "wav2lip" / "best.ckpt")
    (here / "runs" / "wav2lip" / "last.ckpt").write_bytes(b"of a later step")
    assert run_bench("table", "lipformer-1", "--run", "--format", "csv") == 0
    assert sorted({name for name, _ in counts}) == ["ground_truth", "pc_avs", "wav2lip"]  # not those of no row
    first = shown(capsys)
    assert cell(first, "pc_avs", "ssim")["ours"] > 0.8  # the target, encoded anew
    assert "Paper only on lrs2: atvgnet, synctalkface." in caplog.text
    assert run_bench("table", "lipformer-1", "--run", "--format", "csv") == 0
    assert len(counts) == 6
    pd.testing.assert_frame_equal(shown(capsys), first)
    yaml.write_text(yaml.read_text().replace("version: '1'", "version: '2'"))  # the command's older rows are not shown
    assert run_bench("table", "lipformer-1", "--run", "--format", "csv", "--only", "pc_avs") == 0
    assert len(counts) == 8
    caplog.clear()
    assert run_bench("table", "lipformer-1", "--run", "--methods.wav2lip", "official:wav2lip_gan") == 1
    assert "bench weights fetch wav2lip_gan" in caplog.text


def test_a_method_without_its_boxes_is_noted_and_the_others_are_run(here, capsys, caplog):
    save_module(Wav2Lip(width=0.125), here / "wav2lip.ckpt")  # as published: its faces are cut by S3FD's boxes
    assert run_bench("table", "lipformer-1", "--run", "--limit", 1) == 0
    assert {name for name, _ in counts} == {"ground_truth"}
    assert "left out: wav2lip: 2 of 2 clips have no boxes of s3fd" in caplog.text
    assert "Not run on lrs2: wav2lip: 2 of 2 clips have no" in " ".join(capsys.readouterr().out.split())
    caplog.clear()
    assert run_bench("table", "lipformer-1", "--run", "--limit", 1, "--only", "wav2lip") == 1
    assert "wav2lip: 2 of 2 clips have no boxes of s3fd" in caplog.text


def test_a_paired_table_is_run_and_then_reused(here, capsys, caplog):
    with caplog.at_level(logging.INFO, "lipsync_bench"):
        assert run_bench("table", "lipformer-1", "--run", "--format", "csv") == 0
    assert sorted({name for name, _ in counts}) == ["ground_truth", "wav2lip"]
    assert len(counts) == 4  # two test clips; neither the repeated frame nor methods of no row
    first = shown(capsys)
    ours = cell(first, "wav2lip", "psnr")
    assert (ours["n"], ours["tried"], ours["protocol"]) == (2, 2, "lipformer-v2")
    assert ours["low"] <= ours["ours"] <= ours["high"]
    assert cell(first, "ground_truth", "ssim")["ours"] == 1
    assert cell(first, "lipformer", "psnr")["why"] == "not run"
    assert cell(first, "atvgnet", "psnr")["why"] == "paper only"
    assert cell(first, "wav2lip", "psnr", "youtubehq")["why"] == "not run"
    assert cell(first, "pc_avs", "psnr", "youtubehq")["why"] == "paper only"
    assert "no checkpoint of lipformer at none.ckpt. Train one with: lightning fit -c experiments/lipf" in caplog.text
    assert "Paper only on lrs2: atvgnet, pc_avs, synctalkface. Show a method by its videos with --pred" in caplog.text
    assert "Not run on youtubehq: folder: no clips in data/youtubehq. Expected" in caplog.text
    assert sorted(read_rows(Path("results/lrs2-lipformer"))["method"].unique()) == ["ground_truth", "wav2lip"]

    before = Path("results/lrs2-lipformer/clips.csv").read_bytes()
    assert run_bench("table", "lipformer-1", "--run", "--format", "csv") == 0
    assert len(counts) == 4  # nothing was scored again
    assert Path("results/lrs2-lipformer/clips.csv").read_bytes() == before
    pd.testing.assert_frame_equal(shown(capsys), first)

    assert run_bench("table", "lipformer-1", "--results", "results", "--format", "csv") == 0
    assert cell(shown(capsys), "wav2lip", "psnr")["ours"] == ours["ours"]
    assert run_bench("table", "lipformer-1", "--run") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "- Not run on youtubehq: folder: no clips in data/youtubehq. Expected" in text
    assert "not run" in text


def test_a_checkpoint_that_was_trained_again_replaces_the_row(here, checkpoints, capsys, caplog):
    assert run_bench("table", "lipformer-1", "--run", "--limit", 1, "--format", "csv") == 0
    first = cell(shown(capsys), "wav2lip", "psnr")
    again = ("table", "lipformer-1", "--run", "--limit", "1", "--format", "csv", "--methods.wav2lip")
    with caplog.at_level(logging.INFO, "lipsync_bench"):
        assert run_bench(*again, checkpoints / "1.ckpt") == 0
    second = cell(shown(capsys), "wav2lip", "psnr")
    assert first["generator_sha256"] != second["generator_sha256"]
    assert first["ours"] != second["ours"]
    assert [name for name, _ in counts] == ["ground_truth", "wav2lip", "wav2lip"]
    assert "also has rows of other weights of wav2lip; not shown" in caplog.text


def test_an_unpaired_table_takes_checkpoints_and_videos_into_named_rows(here, corpus, capsys, caplog):
    videos, sources = here / "pc_avs", sorted((corpus / "videos" / "main").glob("*/*.mp4"))
    for source, other in itertools.product(sources, sources):
        dubbed = videos / "main" / source.parent.name / f"{source.stem}--{other.parent.name}_{other.stem}.mp4"
        dubbed.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, dubbed)
    args = ("table", "videoretalking-1", "--run", "--format", "csv", "--results", "mine")
    more = ("--methods.wav2lip_gan", "wav2lip.ckpt", "--pred", f"pc_avs={videos}", "--limit", "1")
    assert run_bench(*args, *more) == 0
    assert sorted(name for name, _ in counts) == ["ground_truth", "pc_avs", "wav2lip", "wav2lip_gan"]
    frame = shown(capsys)
    for name in ("wav2lip", "wav2lip_gan", "pc_avs", "ground_truth"):
        ours = cell(frame, name, "cpbd")
        assert (ours["n"], ours["protocol"]) == (1, "videoretalking-v2"), name
    assert cell(frame, "videoretalking", "cpbd")["why"] == "paper only"  # only its first network is trained here
    assert run_bench(*args, *more) == 0
    assert len(counts) == 4
    counts.clear()
    caplog.clear()
    assert run_bench(*args, "--limit", "1") == 0  # rows that are there stay, whoever is asked for
    assert counts == []
    assert "On lrs2, earlier results are shown, not of this run: wav2lip_gan, pc_avs." in caplog.text
    assert run_bench(*args, "--limit", "1", "--results", "other") == 0
    assert "Not run on lrs2: wav2lip_gan: the benchmark lrs2 names no checkpoint. Give one" in caplog.text


def test_a_part_of_the_rows_is_run(here, capsys, caplog):
    assert run_bench("table", "lipformer-1", "--run", "--limit", 1, "--only", "ground_truth", "--format", "csv") == 0
    assert [name for name, _ in counts] == ["ground_truth"]
    assert cell(shown(capsys), "wav2lip", "psnr")["why"] == "not run"
    assert "no checkpoint of" not in caplog.text
    assert "on lrs2: atvgnet" not in caplog.text
    assert run_bench("table", "lipformer-1", "--run", "--limit", 1, "--only", "wav2lip") == 0
    assert [name for name, _ in counts] == ["ground_truth", "wav2lip"]


def test_a_method_of_which_every_clip_failed_is_an_error_below_the_table(here, capsys, caplog):
    (here / "pc_avs").mkdir()
    assert run_bench("table", "lipformer-1", "--run", "--limit", 1, "--pred", "pc_avs=pc_avs", "--format", "csv") == 1
    assert cell(shown(capsys), "wav2lip", "psnr")["n"] == 1
    assert "every clip failed for pc_avs (results/lrs2-lipformer)" in caplog.text


def write_lse_table(folder: Path) -> None:
    """mine-1 has LSE-C alone, under a protocol that needs no detector's weights."""
    (folder / "experiments" / "tables").mkdir()
    (folder / "experiments" / "tables" / "mine-1.yaml").write_text(
        "id: mine-1\npaper: {key: videoretalking, title: T, year: 2022, ref: R}\ncaption: C\ndataset: lrs2\n"
        "protocol: {lse_c: unpaired}\nmetrics: [lse_c]\nrows:\n- {method: wav2lip, lse_c: 1.0}\n"
    )


def test_a_protocol_whose_metric_networks_are_missing_is_not_run(here, caplog):
    write_lse_table(here)
    assert run_bench("table", "mine-1", "--run") == 1
    assert "nothing can be run" in caplog.text
    assert (
        "Not run on lrs2: videoretalking-v2, of which this table has only LSE-C. Run: bench weights fetch syncnet_v2."
        in caplog.text
    )
    assert counts == []
    assert run_bench("table", "videoretalking-1", "--run", "--limit", 1) == 0
    caplog.clear()
    assert run_bench("table", "mine-1", "--run") == 0
    assert "Shown as found, not run on lrs2: videoretalking-v2, of which" in caplog.text
    assert len(counts) == 2


def test_lse_is_of_the_papers_network_exactly_if_its_hash_is_the_registrys(here, monkeypatch, capsys):
    """The number of clips differs all the same; the cell says whether the network does."""
    monkeypatch.setattr(lse, "load_syncnet", lambda path: QuickSyncNet())
    (here / "weights").mkdir()
    (here / "weights" / "any name").write_bytes(b"stands for the weights")
    (here / "other.model").write_bytes(b"stands for others")
    official = make_official(monkeypatch, "syncnet_v2", here / "weights" / "any name")
    write_lse_table(here)
    args = ("table", "mine-1", "--run", "--limit", 1, "--only", "wav2lip", "--format", "csv")
    for more, same in (((), True), (("--weights", f"syncnet_v2={here / 'other.model'}"), False)):
        assert run_bench(*args, "--results", f"results-{same}", *more) == 0
        ours = cell(shown(capsys), "wav2lip", "lse_c")
        assert (ours["lse_sha256"] == official) == same
        assert ("metric network weights" in ours["why"]) != same
        assert "number of clips" in ours["why"]


def test_unprepared_data_is_noted_and_finished_results_are_shown(here, capsys, caplog):
    benchmark = here / "experiments" / "benchmarks" / "lrs2.yaml"
    assert run_bench("table", "lipformer-1", "--run", "--limit", 1) == 0
    benchmark.write_text(BENCHMARK.format(root="nowhere"))
    capsys.readouterr()
    assert run_bench("table", "lipformer-1", "--run", "--format", "csv") == 0
    assert cell(shown(capsys), "wav2lip", "ssim")["n"] == 1
    assert "Shown as found, not run on lrs2: synthetic: no clips in nowhere" in caplog.text
    caplog.clear()
    assert run_bench("table", "lipformer-1", "--run", "--results", "other") == 1
    assert "nothing can be run, and other has no results of it" in caplog.text
    assert "no clips in nowhere" in caplog.text


def test_a_results_folder_of_other_metric_networks_is_refused_with_the_option(here, checkpoints, caplog):
    from lipsync_bench.models import SyncExpertModule

    save_module(SyncExpertModule(width=0.125), here / "expert.ckpt")
    assert run_bench("table", "lipformer-1", "--run", "--limit", 1) == 0
    assert run_bench("table", "lipformer-1", "--run", "--limit", 1, "--expert", "expert.ckpt") == 1
    assert "rows measured with another scorers" in caplog.text
    assert "With bench table --run that is --results" in caplog.text


def test_the_hint_depends_on_the_class_of_the_error_not_on_its_text(here, monkeypatch):
    def refusing(error):
        def refuse(*_, **__):
            raise error

        return refuse

    named = "\\. With bench table --run that is --results"
    for error, expected in (
        (OtherResultsError("the folder is somebody else's."), named),
        (ValueError("--out is mentioned."), "mentioned\\.$"),
    ):
        monkeypatch.setattr(evaluate, "evaluate_dataset", refusing(error))
        with pytest.raises(type(error), match=expected):
            table("lipformer-1", TableOptions(run=True))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["--run", "--methods.nobody", "wav2lip.ckpt"],
            r"--methods: no row nobody in lipformer-1. Expected some of atvg",
        ),
        (["--run", "--methods.ground_truth", "wav2lip.ckpt"], "--methods: no row ground_truth"),
        (["--run", "--only", "wav2lip,nobody"], "--only: no row nobody in lipformer-1. Expected some of atvg"),
        (
            ["--clips", "a", "--save-videos", "--metrics", "csim_dlib"],
            "--clips, --metrics, --save_videos without --run",
        ),
        (["--run", "--pred", "nobody=."], "--pred: no row nobody in lipformer-1"),
        (["--run", "--pred", "pc_avs=gone"], "pc_avs: gone is not a folder. Expected"),
        (["--run", "--methods.wav2lip", "gone.ckpt"], "wav2lip: no checkpoint at gone.ckpt"),
        (["--run", "--methods.wav2lip", "wav2lip.ckpt", "--pred", "wav2lip=."], "with a checkpoint and with videos"),
        (["--run", "--paper_only"], "--run with --paper-only. Expected one of the two"),
        (["--run", "--results", "wav2lip.ckpt"], "--run with --results wav2lip.ckpt, a file"),
        (
            ["--limit", "1", "--methods.wav2lip", "a.ckpt", "--weights", "b"],
            "--limit, --methods.wav2lip, --weights without",
        ),
        (["--run", "--weights", "nowhere"], "--weights nowhere: no such folder"),
        (
            ["--run", "--weights", "s4fd=wav2lip.ckpt"],
            "weights 's4fd': no such id. Expected one of the",
        ),
    ],
)
def test_options_that_do_not_fit_are_refused_before_anything_is_computed(here, caplog, args, message):
    assert run_bench("table", "lipformer-1", *args) == 1
    assert message in caplog.text
    assert counts == []


def test_protocols_whose_detectors_weights_are_missing_are_not_run(here, caplog):
    assert run_bench("table", "hyperlips-1", "--run") == 1
    assert "Not run on lrs2: hyperlips-v2, whose boxes are S3FD's. Run: bench weights fetch s3fd." in caplog.text
    assert "nothing can be run" in caplog.text
    assert counts == []


def test_a_user_study_cannot_be_run(here, caplog):
    assert run_bench("table", "g4g-3", "--run") == 1
    assert (
        "--run with g4g-3, a user study. Expected people's ratings, which cannot be computed: --ratings" in caplog.text
    )


def test_a_benchmark_of_the_papers_own_name_takes_precedence(here):
    assert plan.benchmark_name("mead_neutral") == "mead"
    assert plan.benchmark_name("custom") == "one_speaker"
    (here / "experiments" / "benchmarks" / "custom.yaml").touch()
    assert plan.benchmark_name("custom") == "custom"


@pytest.mark.parametrize(
    ("id", "dataset", "row"),
    [("lipformer-2", "adnerf", "lipformer"), ("lipformer-3", "youtubehq", "lipformer_no_ffhq")],
)
def test_a_folder_of_clips_stands_for_a_set_that_is_no_data_set_of_ours(here, corpus, capsys, caplog, id, dataset, row):
    assert plan.benchmark_name(dataset) == dataset
    assert run_bench("table", id, "--run") == 1
    missing = f"Not run on {dataset}: folder: no clips in data/{dataset}. Expected"
    assert missing in caplog.text
    assert f"Run: bench prepare --dataset folder --source DIR --out data/{dataset}" in caplog.text
    shutil.copytree(corpus / "clips", f"data/{dataset}")
    arguments = ("--limit", "1", "--format", "csv", f"--methods.{row}", "wav2lip.ckpt")
    assert run_bench("table", id, "--run", *arguments) == 0
    assert counts == [("ground_truth", counts[0][1]), (row, counts[0][1])]
    assert cell(shown(capsys), row, "psnr", dataset)["n"] == 1
    assert {path.name for path in Path("results").iterdir()} == {f"{dataset}-lipformer"}
    assert len(load_benchmark(dataset).data.clips("test")) == 6  # all of them


def test_the_split_is_an_option_where_the_paper_leaves_it_open(here, capsys, caplog):
    args = ("table", "lipformer-1", "--run", "--format", "csv", "--only", "wav2lip")
    wanted = {"test": 2, "val": 2}
    for split, folder in (("val", "lrs2-lipformer-val"), ("test", "lrs2-lipformer")):
        counts.clear()
        assert run_bench(*args, "--split", split) == 0
        found = cell(shown(capsys), "wav2lip", "psnr")
        assert f"nor whether of val or test (ours: {wanted[split]}, {split})" in found["why"]
        clips = load_benchmark("lrs2").data.clips(split)
        assert {clip for _, clip in counts} == {f"{path.parent.name}/{path.stem}" for path in clips}
        assert read_identity(Path("results") / folder)["split"] == split
    counts.clear()
    assert run_bench(*args) == 0  # test, as before
    assert counts == []
    assert run_bench("table", "lipformer-3", "--run", "--split", "val") == 1
    assert "--split val with lipformer-3, whose paper scores test. Expected a table whose" in caplog.text
    assert run_bench("table", "lipformer-1", "--split", "val") == 1
    assert "--split without --run. Expected --run" in caplog.text


def test_one_root_cannot_be_two_data_sets(here, caplog):
    assert run_bench("table", "hyperlips-3", "--run", "--root", "clips") == 1
    assert "--root clips with hyperlips-3, which is of lrs2 and mead_neutral. Expected" in caplog.text


def test_without_run_the_hint_names_it(here, caplog, capsys):
    with caplog.at_level(logging.INFO, "lipsync_bench"):
        assert run_bench("table", "lipformer-1") == 0
    assert "or with --run" in caplog.text
    assert "ours" not in capsys.readouterr().out


def test_a_closed_pipe_ends_the_command_quietly():
    command = [sys.executable, "-m", "lipsync_bench.bench", "table", "list"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == bench.READER_LEFT
