# SPDX-License-Identifier: Apache-2.0
"""The `bench` command. Every function here is one of its words; heavy imports happen inside, so that help is quick."""

import logging
import sys
from pathlib import Path
from typing import Any, Literal

from lipsync_bench.command_line import parser_class, plain
from lipsync_bench.logs import show_logs

__all__ = [
    "base_frames",
    "cut",
    "demo",
    "doctor",
    "dub",
    "evaluate",
    "import_",
    "leaderboard_merge",
    "main",
    "prepare",
    "report",
    "synthetic",
    "table",
]

INTERRUPTED = 130


def prepare(
    source: Path,
    out: Path,
    dataset: Literal["folder", "lrs2", "mead", "synthetic"] = "folder",
    detector: Literal["mediapipe", "dlib", "s3fd"] = "mediapipe",
    detector_weights: Path | None = None,
    crop: Literal["mesh", "detector"] = "mesh",
    face: str = "largest",
    max_gap_frames: int = 12,
    max_crop_px: int = 512,
    max_failures: float = 1.0,
    workers: int | None = None,
    overwrite: bool = False,
) -> int:
    """Turn raw videos into clips: 25 fps, face found and cut, sound at 16 kHz, one file a clip.

    Goes on where an interrupted run stopped. Clips that cannot be used are listed with the reason in failures.csv.

    Args:
        source: Folder of the data set or of any videos.
        out: Folder for the prepared clips.
        dataset: Layout of the source folder.
        detector: Finds the face; s3fd, with crop detector, as in the preparation of Wav2Lip.
        detector_weights: Weights of the detector s3fd (s3fd-619a316812.pth).
        crop: Rule for the rectangle that is cut out.
        face: Which face where there are several: largest, first, left, right, centre, or a number from 0.
        max_gap_frames: Longest run of frames without a face that is interpolated.
        max_crop_px: Longer side of a stored crop.
        max_failures: Share of clips that may fail before the command ends with an error.
        workers: Processes; all cores if not given.
        overwrite: Make finished clips anew.
    """
    from datamodules.prepare import prepare as run

    log = logging.getLogger(__name__)
    try:
        report = run(
            source,
            out,
            dataset,
            detector=detector,
            detector_weights=detector_weights,
            crop=crop,
            face=int(face) if face.isdigit() else face,  # type: ignore[arg-type]
            max_gap_frames=max_gap_frames,
            max_crop_px=max_crop_px,
            max_failures=max_failures,
            workers=workers,
            overwrite=overwrite,
        )
    except RuntimeError as error:  # more failures than allowed; everything is written
        log.error("error: %s", error)
        return 1
    log.info("%s", report.summary())
    return 1 if report.done + report.skipped == 0 else 0


def cut(video: Path, out: Path, val_seconds: float = 18.0, test_seconds: float = 18.0) -> int:
    """Cut one person's video by time into parts to train, validate and test on (fine-tuning, HyperLips Table V).

    The parts are laid out like LRS2; go on with: bench prepare --dataset lrs2 --source OUT --out ROOT.

    Args:
        video: Shows one person, with sound.
        out: Folder for the parts and their lists.
        val_seconds: Length of the validation part, before the test part.
        test_seconds: Length of the test part, at the end.
    """
    from lipsync_bench.cutting import cut_by_time

    cut_by_time(video, out, val_seconds=val_seconds, test_seconds=test_seconds)
    return 0


def synthetic(
    out: Path,
    speakers: int = 6,
    clips_per_speaker: int = 6,
    seconds: float = 3.0,
    seed: int = 0,
    workers: int | None = None,
) -> int:
    """Make the embedded corpus: talking heads with speech in true sync, laid out like LRS2.

    Args:
        out: Folder for the videos, split lists and truth.
        speakers: Distinguishable identities.
        clips_per_speaker: Videos of each.
        seconds: Length of a video.
        seed: Same seed, same corpus.
        workers: Processes; all cores if not given.
    """
    from datamodules.synthetic import make_corpus

    make_corpus(
        out, speakers=speakers, clips_per_speaker=clips_per_speaker, seconds=seconds, seed=seed, workers=workers
    )
    return 0


def evaluate(
    dataset: str | None = None,
    pred: list[str] | None = None,
    target: Path | None = None,
    out: Path | None = None,
    root: Path | None = None,
    methods: dict[str, Path] | None = None,
    only: str | None = None,
    clips: str | None = None,
    limit: int | None = None,
    split: Literal["train", "val", "test"] | None = None,
    protocol: str | None = None,
    pairs: Path | None = None,
    syncnet: Path | None = None,
    syncnet_s3fd: Path | None = None,
    expert: Path | None = None,
    lpips: str | None = None,
    inception: str | None = None,
    detector_weights: Path | None = None,
    parsing: Path | None = None,
    save_videos: bool = False,
    device: str = "auto",
    workers: int | None = None,
) -> int:
    """Rank methods on a data set (--dataset), or score your own videos (--pred DIR --target DIR).

    Goes on where an interrupted run stopped. The ground truth always takes part, and the repeated reference frame.

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
        parsing: Weights of the face parser (face_segmentation.pth), for methods that paste through a mask of the face
            (HyperLips); without them the mask is the Face Mesh contour. Each row says which.
        save_videos: Keep what was scored, for the players of bench report.
        device: auto, cpu or cuda:N.
        workers: With --target: processes that prepare the targets.
    """
    if (dataset is None) == (target is None) or (target is not None and not pred):
        raise ValueError("expected either --dataset NAME, or both --pred DIR and --target DIR")
    from rich.console import Console

    from lipsync_bench.evaluation import ScorerFiles, Selection, evaluate_dataset, evaluate_videos
    from lipsync_bench.evaluation.leaderboard import rich_table
    from lipsync_bench.evaluation.protocol import PAIRED_FACE_BOX, VIDEO_PAIRS

    folders = _named_folders(pred or [])
    scorers = ScorerFiles(syncnet, syncnet_s3fd, expert, lpips, inception, detector_weights)
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
    console = Console()
    if len(result.leaderboard):
        console.print(rich_table(result.leaderboard, str(result.folder)))
    console.print(f"rows: {result.folder / 'clips.csv'}   table: {result.folder / 'leaderboard.csv'}")
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


def leaderboard_merge(paths: list[Path], *, out: Path) -> int:
    """Join the results of several runs in one leaderboard: bench leaderboard merge A B ... --out C.csv.

    Refused are results of another protocol, other scorer weights, another data set or other clips. What is there twice
    counts once. Ranks are computed anew where every part has its rows, and left empty where one has not.

    Args:
        paths: Results folders, their clips.csv, or leaderboard.csv files.
        out: The CSV file to write.
    """
    from lipsync_bench.evaluation.merge import leaderboard_merge as run

    return run(paths, out=out)


def table(
    id: str,
    *,
    results: Path | None = None,
    paper_only: bool = False,
    format: Literal["text", "csv", "markdown", "latex"] = "text",
    out: Path | None = None,
    ratings: Path | None = None,
) -> int:
    """Print a paper's table with ours beside it: bench table ID; bench table list shows the ids.

    Args:
        id: Of the table, as experiments/tables/ID.yaml; list prints all ids.
        results: Results folder of bench evaluate, a folder of such folders, or a leaderboard.csv.
        paper_only: The paper's side alone.
        format: Of what is printed.
        out: File to write instead of the screen.
        ratings: For a user study: CSV with the columns video, method, rater, question (visual, sync or realness) and
            score (1 to 5).
    """
    from lipsync_bench.tables import table as run

    return run(id, results, paper_only, format, out, ratings)


def report(
    results: Path, *, out: Path = Path("report"), tables: list[str] | None = None, title: str | None = None
) -> int:
    """Make a results folder into a site that opens from the disk: bench report RESULTS --out report/.

    Leaderboard, plots, comparison with papers, players side by side (with the videos that bench evaluate --save-videos
    keeps), failures and manifest. Needs no network. An older report is replaced, any other folder refused.

    Args:
        results: Results folder of bench evaluate.
        out: Folder of the site.
        tables: Papers' tables beside those of the results' data set, as '[g4g-1,hyperlips-2]' or '[all]'.
        title: Of the site; the data set's name if not given.
    """
    from lipsync_bench.report import write_report

    write_report(results, out, tables or (), title)
    return 0


def base_frames(
    checkpoint: Path,
    root: Path,
    mesh_order: Literal["rgb", "bgr"] = "rgb",
    overwrite: bool = False,
    device: str = "auto",
) -> int:
    """Run a trained HyperLips-Base over prepared clips, for its second stage: frames, sketches, lip outlines.

    Goes on where an interrupted run stopped. What cannot be read is listed in base_frames_failures.csv.

    Args:
        checkpoint: Of HyperLipsBase.
        root: Folder of prepared clips; each gets a file <clip>.base beside it.
        mesh_order: Channel order of the images that Face Mesh sees; bgr as in the released preparation.
        overwrite: Make finished files anew.
        device: auto, cpu or cuda:N.
    """
    from lipsync_bench.base_frames import make_base_frames

    report = make_base_frames(checkpoint, root, mesh_order=mesh_order, overwrite=overwrite, device=device)
    logging.getLogger(__name__).info("%s", report.summary())
    return 1 if report.done + report.skipped == 0 else 0


def dub(
    checkpoint: Path,
    video: Path,
    audio: Path,
    out: Path,
    fit: Literal["loop", "cut"] = "loop",
    blend: Literal["feather", "laplacian", "box"] = "feather",
    detector: Literal["mediapipe", "dlib", "s3fd"] = "mediapipe",
    detector_weights: Path | None = None,
    crop: Literal["mesh", "detector"] = "mesh",
    face: str = "largest",
    max_gap_frames: int = 12,
    pads: tuple[int, int, int, int] | None = None,
    smooth: bool = True,
    reference: Literal["same", "first"] = "same",
    parsing: Path | None = None,
    no_mark: bool = False,
    device: str = "auto",
) -> int:
    """Give the person in a video other speech.

    Size and rate of the video are kept. Frames without a face pass through unchanged and are counted. The file says in
    its metadata that it is synthetic. Please tell its viewers as well, and dub only people who agreed to it.

    Args:
        checkpoint: Of any method.
        video: Shows the person; its own sound is not used.
        audio: The speech, any file with sound.
        out: The MP4 to write.
        fit: loop, as long as the speech, the video starts again where it is too short; cut, ends with the shorter.
        blend: How the face is put back: feather, with a soft edge below the eyes and along the jaw; laplacian, softer
            for colours than for details; box, the whole box with hard edges, as published.
        detector: Finds the face; s3fd, with crop detector, as the official script.
        detector_weights: Weights of the detector s3fd (s3fd-619a316812.pth).
        crop: Rule for the box; the one with which the training data was prepared.
        face: Which face where there are several: largest, first, left, right, centre, or a number from 0.
        max_gap_frames: Longest run of frames without a face that is interpolated; longer ones pass through.
        pads: Pixels added to the box as [TOP,BOTTOM,LEFT,RIGHT]; if not given [0,10,0,0] with --crop detector, as
            published, else none.
        smooth: With --crop detector: smooth the boxes, as published.
        reference: Shows the identity: the same frame's crop, as published, or the first frame's.
        parsing: Weights of the face parser (face_segmentation.pth): the face is put back where it sees skin and lips,
            as HyperLips does, instead of --blend.
        no_mark: Leave out the metadata that says the file is synthetic.
        device: auto, cpu or cuda:N.
    """
    from lipsync_bench.dubbing.dub import dub as run

    report = run(
        checkpoint,
        video,
        audio,
        out,
        fit=fit,
        blending=blend,
        detector=detector,
        detector_weights=detector_weights,
        crop=crop,
        face=int(face) if face.isdigit() else face,  # type: ignore[arg-type]
        max_gap_frames=max_gap_frames,
        pads=pads,
        smooth=smooth,
        reference=reference,
        parsing=parsing,
        mark=not no_mark,
        device=device,
    )
    logging.getLogger(__name__).info("%s", report.summary())
    return 0


def import_(kind: str, file: Path, *, out: Path, disc: Path | None = None, base: Path | None = None) -> int:
    """Turn an official weight file into a checkpoint that the other commands take: bench import KIND FILE --out CKPT.

    Tells the file's SHA-256 and where it is documented. Only tensors are read; code in a file is never run.

    Args:
        kind: What the file holds: wav2lip, sync_expert, s3fd, ...; an unknown kind lists them all.
        file: The official file.
        out: Checkpoint to write.
        disc: With a generator that is to be trained further: official file of its discriminator.
        base: With hyperlips_hr: checkpoint of the first stage (bench import hyperlips_base, or trained here).
    """
    from lipsync_bench.checkpoints import import_file

    import_file(kind, file, out, disc, base)
    return 0


def demo(
    out: Path = Path("demo"),
    method: Literal["wav2lip", "hyperlips", "lipformer", "videoretalking_lnet"] = "wav2lip",
    seed: int = 0,
    overwrite: bool = False,
) -> int:
    """The whole way in small: corpus, preparation, sync expert, a method, evaluation, table and preview.

    Under 8 minutes on 2 cores, with hyperlips 12. Finished stages are not done again.

    Args:
        out: Folder for everything; methods share it.
        method: What is trained and ranked; hyperlips is both stages of it.
        seed: Of corpus and training.
        overwrite: Start anew.
    """
    from lipsync_bench.demo import run_demo

    run_demo(out, method=method, seed=seed, overwrite=overwrite)
    return 0


def doctor(data: Path = Path("data"), weights: Path = Path("weights"), json: bool = False) -> int:
    """Say what is installed, what is where, and what to do about it. Ends with 1 if something cannot work.

    Args:
        data: Folder of prepared data sets, or one of them.
        weights: Folder with official weight files, searched at any depth.
        json: One JSON list instead of lines for people.
    """
    from lipsync_bench.doctor import doctor as run

    return run(data, weights, as_json=json)


COMMANDS: dict[str, Any] = {
    "prepare": prepare,
    "synthetic": synthetic,
    "cut": cut,
    "base-frames": base_frames,
    "evaluate": evaluate,
    "table": table,
    "report": report,
    "leaderboard": {"_help": "merge A B ... --out C.csv: several results in one.", "merge": leaderboard_merge},
    "dub": dub,
    "import": import_,  # a keyword, hence the underscore of the function
    "doctor": doctor,
    "demo": demo,
}


def main(args: list[str] | None = None) -> None:
    """Entry point of the console script `bench`. Ends with 0, 1 on an error, 2 on wrong usage, 130 when interrupted."""
    from jsonargparse import auto_cli

    show_logs()
    try:
        sys.exit(
            auto_cli(
                COMMANDS,
                args=plain(sys.argv[1:] if args is None else args, COMMANDS),
                as_positional=False,
                parser_class=parser_class(),
                prog="bench",
            )
        )
    except KeyboardInterrupt:
        logging.getLogger(__name__).error("interrupted; the same command goes on from here")
        sys.exit(INTERRUPTED)
    except (ValueError, FileNotFoundError) as error:  # the user's side: the message is enough, a traceback is noise
        logging.getLogger(__name__).error("error: %s", error)
        sys.exit(1)


if __name__ == "__main__":
    main()
