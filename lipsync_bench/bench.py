# SPDX-License-Identifier: Apache-2.0
"""The `bench` command. Every function here is one of its words; heavy imports happen inside, so that help is quick."""

import inspect
import logging
import sys
from pathlib import Path
from typing import Any, Literal

from lipsync_bench.logs import show_logs

__all__ = [
    "base_frames",
    "cut",
    "demo",
    "doctor",
    "dub",
    "evaluate",
    "import_",
    "main",
    "prepare",
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
    pred: Path | None = None,
    target: Path | None = None,
    out: Path | None = None,
    root: Path | None = None,
    methods: dict[str, Path] | None = None,
    split: Literal["train", "val", "test"] | None = None,
    syncnet: Path | None = None,
    syncnet_s3fd: Path | None = None,
    expert: Path | None = None,
    parsing: Path | None = None,
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
        parsing: Weights of the face parser (face_segmentation.pth), for methods that paste through a mask of the face
            (HyperLips); without them the mask is the Face Mesh contour. Each row says which.
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
            parsing=parsing,
            limit=limit,
            device=device,
        )
    console = Console()
    if len(result.leaderboard):
        console.print(rich_table(result.leaderboard, str(result.folder)))
    console.print(f"rows: {result.folder / 'clips.csv'}   table: {result.folder / 'leaderboard.csv'}")
    return 0


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
    "dub": dub,
    "import": import_,  # a keyword, hence the underscore of the function
    "doctor": doctor,
    "demo": demo,
}


def _parser_class() -> type:
    """A parser that takes the required parameters before a bare `*` by position; functions without `*` have none."""
    from jsonargparse import ArgumentParser

    class Parser(ArgumentParser):
        def add_function_arguments(self, function: Any, *args: Any, **kwargs: Any) -> list[str]:
            parameters = inspect.signature(function).parameters.values()
            options = {parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}
            if not options:
                return list(super().add_function_arguments(function, *args, **kwargs))
            others = {parameter.name for parameter in parameters} - options
            added = super().add_function_arguments(
                function, *args, **{**kwargs, "as_positional": True, "skip": options}
            )
            return [*added, *super().add_function_arguments(function, *args, **{**kwargs, "skip": others})]

    return Parser


def _plain(args: list[str]) -> list[str]:
    """Options as jsonargparse takes them: `--no-mark` is `--no_mark true`."""
    switches: set[str] = set()
    if args and args[0] in COMMANDS:
        parameters = inspect.signature(COMMANDS[args[0]]).parameters.values()
        switches = {f"--{parameter.name}" for parameter in parameters if parameter.annotation is bool}
    plain = []
    for arg, following in zip(args, [*args[1:], "--"], strict=False):
        name, dot, rest = arg.partition("=") if "=" in arg.partition(".")[0] else arg.partition(".")
        plain.append(name[:2] + name[2:].replace("-", "_") + dot + rest if name.startswith("--") else arg)
        if plain[-1] in switches and following.startswith("--"):
            plain.append("true")
    return plain


def main(args: list[str] | None = None) -> None:
    """Entry point of the console script `bench`. Ends with 0, 1 on an error, 2 on wrong usage, 130 when interrupted."""
    from jsonargparse import auto_cli

    show_logs()
    try:
        sys.exit(
            auto_cli(
                COMMANDS,
                args=_plain(sys.argv[1:] if args is None else args),
                as_positional=False,
                parser_class=_parser_class(),
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
