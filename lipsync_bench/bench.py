# SPDX-License-Identifier: Apache-2.0
"""The `bench` command. Every function here is one of its words; heavy imports happen inside, so that help is quick.

The words that score, rank and show are in scoring_commands.py.
"""

import logging
import os
import sys
from pathlib import Path
from typing import Any, Literal

from lipsync_bench.cli.command_line import From0, From1, Pixels, Seconds, Share, bound_configs, parser_class, plain
from lipsync_bench.cli.endings import errors_in_a_line
from lipsync_bench.cli.logs import show_logs
from lipsync_bench.cli.scoring_commands import evaluate, leaderboard_merge, report, sync, table

_NAME = "lipsync_bench.bench"  # also under python -m, where `__name__` is another, whose messages nobody shows

__all__ = [
    "base_frames",
    "cut",
    "demo",
    "doctor",
    "dub",
    "import_",
    "main",
    "prepare",
    "synthetic",
]

INTERRUPTED = 130
READER_LEFT = 141  # 128 and the number of SIGPIPE


def prepare(
    source: Path,
    out: Path,
    dataset: Literal["folder", "lrs2", "mead", "synthetic"] = "folder",
    detector: Literal["mediapipe", "dlib", "s3fd"] = "mediapipe",
    detector_weights: Path | None = None,
    crop: Literal["mesh", "detector"] = "mesh",
    face: str = "largest",
    max_gap_frames: From0 = 12,
    max_crop_px: Pixels = 512,
    max_failures: Share = 1.0,
    workers: From1 | None = None,
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
    from lipsync_bench.datamodules.prepare.prepare import prepare as run

    report = run(
        source,
        out,
        dataset,
        detector=detector,
        detector_weights=detector_weights,
        crop=crop,
        face=int(face) if face.isdecimal() else face,  # type: ignore[arg-type]
        max_gap_frames=max_gap_frames,
        max_crop_px=max_crop_px,
        max_failures=max_failures,
        workers=workers,
        overwrite=overwrite,
    )
    logging.getLogger(_NAME).info("%s", report.summary())
    return 1 if report.done + report.skipped == 0 else 0


def cut(video: Path, out: Path, val_seconds: Seconds = 18.0, test_seconds: Seconds = 18.0) -> int:
    """Cut one person's video by time into parts to train, validate and test on (fine-tuning, HyperLips Table V).

    The parts are laid out like LRS2; go on with: bench prepare --dataset lrs2 --source OUT --out ROOT.

    Args:
        video: Shows one person, with sound.
        out: Folder for the parts and their lists.
        val_seconds: Length of the validation part, before the test part.
        test_seconds: Length of the test part, at the end.
    """
    from lipsync_bench.inference.cutting import cut_by_time

    cut_by_time(video, out, val_seconds=val_seconds, test_seconds=test_seconds)
    return 0


def synthetic(
    out: Path,
    speakers: From1 = 6,
    clips_per_speaker: From1 = 6,
    seconds: Seconds = 3.0,
    seed: From0 = 0,
    workers: From1 | None = None,
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
    from lipsync_bench.datamodules.datasets.synthetic import make_corpus

    make_corpus(
        out, speakers=speakers, clips_per_speaker=clips_per_speaker, seconds=seconds, seed=seed, workers=workers
    )
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
    from lipsync_bench.inference.base_frames import make_base_frames

    report = make_base_frames(checkpoint, root, mesh_order=mesh_order, overwrite=overwrite, device=device)
    logging.getLogger(_NAME).info("%s", report.summary())
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
    max_gap_frames: From0 = 12,
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
    from lipsync_bench.inference.dub import dub as run

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
        face=int(face) if face.isdecimal() else face,  # type: ignore[arg-type]
        max_gap_frames=max_gap_frames,
        pads=pads,
        smooth=smooth,
        reference=reference,
        parsing=parsing,
        mark=not no_mark,
        device=device,
    )
    logging.getLogger(_NAME).info("%s", report.summary())
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
    from lipsync_bench.weights import import_file

    import_file(kind, file, out, disc, base)
    return 0


def demo(
    out: Path = Path("demo"),
    method: Literal["wav2lip", "hyperlips", "lipformer", "videoretalking_lnet"] = "wav2lip",
    seed: From0 = 0,
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
    from lipsync_bench.cli.demo import run_demo

    run_demo(out, method=method, seed=seed, overwrite=overwrite)
    return 0


def doctor(data: Path = Path("data"), weights: Path = Path("weights"), json: bool = False) -> int:
    """Say what is installed, what is where, and what to do about it. Ends with 1 if something cannot work.

    Args:
        data: Folder of prepared data sets, or one of them.
        weights: Folder with official weight files, searched at any depth.
        json: One JSON list instead of lines for people.
    """
    from lipsync_bench.cli.doctor import doctor as run

    return run(data, weights, as_json=json)


COMMANDS: dict[str, Any] = {
    "prepare": prepare,
    "synthetic": synthetic,
    "cut": cut,
    "base-frames": base_frames,
    "evaluate": evaluate,
    "table": table,
    "report": report,
    "sync": sync,
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
        with errors_in_a_line():
            bound_configs(sys.argv[1:] if args is None else args)
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
            finally:
                sys.stdout.flush()  # here, where a reader that has left, or a full disk, can be noticed
    except BrokenPipeError:  # such as head, which has seen enough: end as Unix tools do
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(READER_LEFT)
    except KeyboardInterrupt:
        logging.getLogger(_NAME).error("interrupted; the same command goes on from here")
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
