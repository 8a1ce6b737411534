# SPDX-License-Identifier: Apache-2.0
"""The words of the `bench` command that score, rank and show; heavy imports happen inside, so that help is quick."""

import logging
import sys
from pathlib import Path
from typing import Literal

from lipsync_bench.cli.command_line import From1

__all__ = ["evaluate", "leaderboard_merge", "report", "sync", "table"]


def evaluate(
    dataset: str | None = None,
    pred: list[str] | None = None,
    target: Path | None = None,
    out: Path | None = None,
    root: Path | None = None,
    methods: dict[str, Path] | None = None,
    only: str | None = None,
    clips: str | None = None,
    limit: From1 | None = None,
    split: Literal["train", "val", "test"] | None = None,
    protocol: str | None = None,
    pairs: Path | None = None,
    syncnet: Path | None = None,
    syncnet_s3fd: Path | None = None,
    expert: Path | None = None,
    lpips: str | None = None,
    inception: str | None = None,
    detector_weights: Path | None = None,
    metrics: str | None = None,
    parsing: Path | None = None,
    save_videos: bool = False,
    device: str = "auto",
    workers: From1 | None = None,
) -> int:
    """Rank methods on a data set (--dataset), or score your own videos (--pred DIR --target DIR).

    Goes on where an interrupted run stopped; what failed is tried again, and rows of files that have changed are made
    anew. The ground truth always takes part, and the repeated reference frame.

    Args:
        dataset: Name of a YAML in experiments/benchmarks/, or the path of one.
        pred: Folder of generated videos, as DIR or NAME=DIR; may be given several times. With --target they are
            compared with its videos; with --dataset they are one more method there.
        target: Folder of the real videos, matched by name.
        out: Results folder; if not given results/NAME, with another than the usual protocol results/NAME-PROTOCOL.
        root: Folder of prepared clips, instead of the YAML's.
        methods: Checkpoints, as --methods.wav2lip PATH, instead of or beside the YAML's. Without a dot, --methods
            wav2lip,mine takes only these.
        only: The same as --methods wav2lip,mine.
        clips: Only these clips: ids or patterns such as 'S1/*', with commas between.
        limit: Only the first clips.
        split: Clips to score, instead of the YAML's.
        protocol: How clips are drawn, paired, cut and compared: a name of experiments/protocols/ (hyperlips,
            videoretalking, g4g, lipformer ...) or the path of a YAML.
        pairs: List of pairs, "audio video" a line, for unpaired protocols.
        syncnet: Official SyncNet weights (syncnet_v2.model); LSE is computed only with them.
        syncnet_s3fd: Official detector weights of the SyncNet pipeline (sfd_face.pth), for LSE on face tracks.
        expert: Checkpoint of a sync expert of this suite; its columns are called expert_*, never LSE.
        lpips: Folder with alexnet-owt-7be5be79.pth or vgg16-397923af.pth or both, or the word torchvision for its cache
            of downloads; LPIPS is computed only with them.
        inception: Folder with pt_inception-2015-12-05-6726825d.pth, or torchvision; FID is computed only with it.
        detector_weights: S3FD's weights (s3fd-619a316812.pth), for protocols that cut by its boxes.
        metrics: Metrics that take long and are computed only by name, with commas between: csim_dlib (identity). A
            name may be followed by =FILE, the weights that it is computed with.
        parsing: Weights of the face parser (face_segmentation.pth), for methods that paste through a mask of the face
            (HyperLips); without them the mask is the Face Mesh contour. Each row says which.
        save_videos: Keep what was scored, for the players of bench report.
        device: auto, cpu or cuda:N.
        workers: With --target: processes that prepare the targets.
    """
    if (dataset is None) == (target is None) or (target is not None and not pred):
        raise ValueError("expected either --dataset NAME, or both --pred DIR and --target DIR")
    from rich.console import Console

    from lipsync_bench.datamodules.files import printable
    from lipsync_bench.evaluation import ScorerFiles, Selection, evaluate_dataset, evaluate_videos
    from lipsync_bench.evaluation.task.protocol import PAIRED_FACE_BOX, VIDEO_PAIRS
    from lipsync_bench.results.leaderboard import rich_table

    folders = _named_folders(pred or [])
    named = {name: file for name, _, file in (word.partition("=") for word in _words(metrics))}
    scorers = ScorerFiles(syncnet, syncnet_s3fd, expert, lpips, inception, detector_weights, named)
    select = Selection(limit, _words(only), _words(clips))
    usual = VIDEO_PAIRS if dataset is None else PAIRED_FACE_BOX
    name = next(iter(folders)) if dataset is None else Path(dataset).stem
    suffix = "" if protocol in (None, usual) else f"-{Path(str(protocol)).stem}"
    out = out or Path("results") / f"{name}{suffix}"
    if dataset is None:
        assert target is not None
        result = evaluate_videos(
            folders,
            target,
            out,
            protocol=protocol or usual,
            scorers=scorers,
            select=select,
            save_videos=save_videos,
            device=device,
            workers=workers,
        )
    else:
        result = evaluate_dataset(
            dataset,
            out,
            root=root,
            methods=methods,
            pred=folders,
            split=split,
            protocol=protocol or usual,
            pairs=pairs,
            scorers=scorers,
            parsing=parsing,
            select=select,
            save_videos=save_videos,
            device=device,
        )
    if result.missing:
        return 0
    console = Console()
    if len(result.leaderboard):
        console.print(rich_table(result.leaderboard, str(result.folder)))
    places = f"rows: {result.folder / 'clips.csv'}   table: {result.folder / 'leaderboard.csv'}"
    console.print(printable(places), markup=False)
    if result.without_any_score:
        logging.getLogger(__name__).error("every clip failed for %s", ", ".join(result.without_any_score))
        return 1
    return 0


def _words(text: str | None) -> list[str]:
    return [word.strip() for word in (text or "").split(",") if word.strip()]


def _named_folders(given: list[str]) -> dict[str, Path]:
    """DIR or NAME=DIR each; the folder's own name where none is given."""
    out: dict[str, Path] = {}
    for text in given:
        name, equals, folder = text.partition("=")
        path = Path(folder) if equals and not Path(text).is_dir() else Path(text)
        name = name if path != Path(text) else path.resolve().name
        if name in out or not name:
            raise ValueError(f"--pred {text}: {name or 'no name'!r} twice. Expected a name of its own: --pred NAME=DIR")
        out[name] = path
    return out


def sync(video: Path, *, syncnet: Path, syncnet_s3fd: Path | None = None, device: str = "auto") -> int:
    """Ask SyncNet whether one video's lips follow its sound: bench sync VIDEO --syncnet syncnet_v2.model.

    Offset in frames of 25 fps, positive where the matching sound comes earlier; least distance; confidence. With the
    official weights the authors' example.avi gives offset 3, distance 5.353, confidence 10.021.

    Args:
        video: With sound. Whole frames are looked at, unless there is a detector.
        syncnet: Official weights, syncnet_v2.model.
        syncnet_s3fd: Official weights of the pipeline's detector (sfd_face.pth): each face track is scored by itself.
        device: auto, cpu or cuda:N.
    """
    from lipsync_bench.datamodules.files import printable
    from lipsync_bench.evaluation.sync_check import check_sync

    sys.stdout.write(
        "".join(f"{printable(line)}\n" for line in check_sync(video, syncnet, syncnet_s3fd, device).lines())
    )
    return 0


def leaderboard_merge(paths: list[Path], *, out: Path) -> int:
    """Join the results of several runs in one leaderboard: bench leaderboard merge A B ... --out C.csv.

    Refused are results of another protocol, other scorer weights, another data set or other clips. What is there twice
    counts once. Ranks are computed anew where every part has its rows, and left empty where one has not.

    Args:
        paths: Results folders, their clips.csv, or leaderboard.csv files.
        out: The CSV file to write.
    """
    from lipsync_bench.results.merge import leaderboard_merge as run

    return run(paths, out=out)


def table(
    id: str,
    *,
    results: Path | None = None,
    paper_only: bool = False,
    format: Literal["text", "csv", "markdown", "latex"] = "text",
    out: Path | None = None,
    ratings: Path | None = None,
    run: bool = False,
    methods: dict[str, Path] | None = None,
    pred: list[str] | None = None,
    root: Path | None = None,
    limit: From1 | None = None,
    syncnet: Path | None = None,
    syncnet_s3fd: Path | None = None,
    expert: Path | None = None,
    lpips: str | None = None,
    inception: str | None = None,
    detector_weights: Path | None = None,
    parsing: Path | None = None,
    device: str = "auto",
) -> int:
    """Print a paper's table with ours beside it: bench table ID; bench table list shows the ids.

    With --run what the table needs is evaluated first, as far as it is not finished; all options from --methods on are
    for that and mean what they mean to bench evaluate.

    Args:
        id: Of the table, as experiments/tables/ID.yaml; list prints all ids.
        results: Results folder of bench evaluate, a folder of such folders, or a leaderboard.csv; with --run the folder
            of such folders that is written, results/ if not given.
        paper_only: The paper's side alone.
        format: Of what is printed.
        out: File to write instead of the screen.
        ratings: For a user study: CSV with the columns video, method, rater, question (visual, sync or realness) and
            score (1 to 5).
        run: Evaluate the table's rows under its paper's protocols, into RESULTS/DATASET-PROTOCOL.
        methods: Checkpoints by row, as --methods.wav2lip PATH, instead of or beside those of the benchmark's YAML.
        pred: Folder of a row's videos, as NAME=DIR; may be given several times.
        root: Folder of prepared clips, instead of the YAML's.
        limit: Only the first clips.
        syncnet: Official SyncNet weights, for LSE.
        syncnet_s3fd: Official detector weights of the SyncNet pipeline.
        expert: Checkpoint of a sync expert of this suite.
        lpips: Folder with alexnet-owt-7be5be79.pth, or torchvision.
        inception: Folder with pt_inception-2015-12-05-6726825d.pth, or torchvision, for FID.
        detector_weights: S3FD's weights, for the protocols of HyperLips.
        parsing: Weights of the face parser, for methods that paste through a mask of the face.
        device: auto, cpu or cuda:N.
    """
    from lipsync_bench.papers import RunOptions
    from lipsync_bench.papers import table as show

    scorers = {"syncnet": syncnet, "syncnet_s3fd": syncnet_s3fd, "expert": expert, "lpips": lpips}
    scorers |= {"inception": inception, "detector_weights": detector_weights}
    judges = {name: given for name, given in scorers.items() if given is not None}
    options = RunOptions(root, methods or {}, _named_folders(pred or []), judges, parsing, limit, device)
    return show(id, results, paper_only, format, out, ratings, run, options)


def report(
    results: Path, *, out: Path = Path("report"), tables: list[str] | None = None, title: str | None = None
) -> int:
    """Make a results folder into a site that opens from the disk: bench report RESULTS --out report/.

    Leaderboard, plots, comparison with papers, players side by side (with the videos that bench evaluate --save-videos
    keeps), failures and manifest. Needs no network. An older report is replaced, any other folder refused.

    Args:
        results: Results folder of bench evaluate.
        out: Folder of the site.
        tables: Papers' tables beside those of the results' data set, as --tables g4g-1 --tables hyperlips-2, or all.
        title: Of the site; the data set's name if not given.
    """
    from lipsync_bench.report import write_report

    write_report(results, out, tables or (), title)
    return 0
