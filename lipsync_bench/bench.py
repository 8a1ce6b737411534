# SPDX-License-Identifier: Apache-2.0
"""The `bench` command. Every function here is one of its words; heavy imports happen inside, so that help is quick."""

import logging
import sys
from pathlib import Path
from typing import Any, Literal

from lipsync_bench.logs import show_logs

__all__ = ["demo", "evaluate", "main", "prepare", "synthetic"]

INTERRUPTED = 130


def prepare(
    source: Path,
    out: Path,
    dataset: Literal["folder", "lrs2", "mead", "synthetic"] = "folder",
    detector: Literal["mediapipe", "dlib"] = "mediapipe",
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
        detector: Finds the face.
        crop: Rule for the rectangle that is cut out.
        face: Which face where there are several: largest, first, left, right, centre, or a number from 0.
        max_gap_frames: Longest run of frames without a face that is interpolated.
        max_crop_px: Longer side of a stored crop.
        max_failures: Share of clips that may fail before the command ends with an error.
        workers: Processes; all cores if not given.
        overwrite: Make finished clips anew.
    """
    from datamodules.prepare import prepare as run

    which = int(face) if face.isdigit() else face
    report = run(
        source,
        out,
        dataset,
        detector=detector,
        crop=crop,
        face=which,  # type: ignore[arg-type]
        max_gap_frames=max_gap_frames,
        max_crop_px=max_crop_px,
        max_failures=max_failures,
        workers=workers,
        overwrite=overwrite,
    )
    logging.getLogger(__name__).info("%s", report.summary())
    total = report.done + report.skipped + report.failed
    return 1 if report.failed > max_failures * total or report.done + report.skipped == 0 else 0


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
    pred: Path | None = None,
    target: Path | None = None,
    out: Path | None = None,
    root: Path | None = None,
    methods: dict[str, Path] | None = None,
    split: Literal["train", "val", "test"] | None = None,
    syncnet: Path | None = None,
    syncnet_s3fd: Path | None = None,
    expert: Path | None = None,
    limit: int | None = None,
    name: str | None = None,
    device: str = "auto",
    workers: int | None = None,
) -> int:
    """Rank methods on a data set (--dataset), or score your own videos (--pred DIR --target DIR).

    Goes on where an interrupted run stopped. Ground truth and the repeated reference frame always take part.

    Args:
        dataset: Name of a YAML in experiments/benchmarks/, or the path of one.
        pred: Folder of generated videos, with --target instead of --dataset.
        target: Folder of the real videos, matched by name.
        out: Results folder; results/NAME if not given.
        root: Folder of prepared clips, instead of the YAML's.
        methods: Checkpoints, as --methods.wav2lip PATH, instead of or beside the YAML's.
        split: Clips to score, instead of the YAML's.
        syncnet: Official SyncNet weights (syncnet_v2.model); LSE is computed only with them.
        syncnet_s3fd: Official detector weights of the SyncNet pipeline (sfd_face.pth), for LSE on face tracks.
        expert: Checkpoint of a sync expert of this suite; its columns are called expert_*, never LSE.
        limit: Score only the first clips.
        name: With --pred: the method's name in the table.
        device: auto, cpu or cuda:N.
        workers: With --target: processes that prepare the targets.
    """
    videos = pred is not None or target is not None
    if videos == (dataset is not None) or (videos and (pred is None or target is None)):
        raise ValueError("expected either --dataset NAME, or both --pred DIR and --target DIR")
    from rich.console import Console

    from lipsync_bench.evaluation.evaluate import evaluate_dataset, evaluate_videos
    from lipsync_bench.evaluation.leaderboard import rich_table

    if pred is not None and target is not None:
        result = evaluate_videos(
            pred,
            target,
            out or Path("results") / pred.resolve().name,
            name=name,
            syncnet=syncnet,
            syncnet_s3fd=syncnet_s3fd,
            expert=expert,
            limit=limit,
            device=device,
            workers=workers,
        )
    else:
        assert dataset is not None
        result = evaluate_dataset(
            dataset,
            out or Path("results") / Path(dataset).stem,
            root=root,
            methods=methods,
            split=split,
            syncnet=syncnet,
            syncnet_s3fd=syncnet_s3fd,
            expert=expert,
            limit=limit,
            device=device,
        )
    console = Console()
    if len(result.leaderboard):
        console.print(rich_table(result.leaderboard, str(result.folder)))
    console.print(f"rows: {result.folder / 'clips.csv'}   table: {result.folder / 'leaderboard.csv'}")
    return 0


def demo(out: Path = Path("demo"), seed: int = 0, overwrite: bool = False) -> int:
    """The whole way in small: corpus, preparation, sync expert, Wav2Lip, evaluation, table and preview.

    Under 8 minutes on 2 cores. Finished stages are not done again.

    Args:
        out: Folder for everything.
        seed: Of corpus and training.
        overwrite: Start anew.
    """
    from lipsync_bench.demo import run_demo

    run_demo(out, seed=seed, overwrite=overwrite)
    return 0


COMMANDS: dict[str, Any] = {"prepare": prepare, "synthetic": synthetic, "evaluate": evaluate, "demo": demo}


def main(args: list[str] | None = None) -> None:
    """Entry point of the console script `bench`. Ends with 0, 1 on an error, 2 on wrong usage, 130 when interrupted."""
    from jsonargparse import auto_cli

    show_logs()
    try:
        sys.exit(auto_cli(COMMANDS, args=args, as_positional=False, prog="bench"))
    except KeyboardInterrupt:
        logging.getLogger(__name__).error("interrupted; the same command goes on from here")
        sys.exit(INTERRUPTED)
    except (ValueError, FileNotFoundError) as error:  # the user's side: the message is enough, a traceback is noise
        logging.getLogger(__name__).error("error: %s", error)
        sys.exit(1)


if __name__ == "__main__":
    main()
