# SPDX-License-Identifier: Apache-2.0
"""The subcommands of `bench` that make data; heavy imports happen inside, so that help is quick."""

import logging
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from lipsync_bench.cli.command_line import From0, From1, Seconds, Seconds0
from lipsync_bench.datamodules.faces.options import FaceOptions
from lipsync_bench.datamodules.option_types import Words
from lipsync_bench.datamodules.prepare.options import PrepareOptions
from lipsync_bench.datamodules.recipes.options import RecipeOptions
from lipsync_bench.datamodules.splitting import Splitting
from lipsync_bench.datamodules.weights.options import WeightOptions

_log = logging.getLogger(__name__)

__all__ = ["base_frames", "coefficients", "cut", "prepare", "synthetic"]


def prepare(
    *,
    source: Path,
    out: Path,
    for_: Annotated[Words, Parameter(name="--for")] = (),
    recipe: RecipeOptions = RecipeOptions(),
    options: PrepareOptions = PrepareOptions(),
    faces: FaceOptions = FaceOptions(),
    weights: WeightOptions = WeightOptions(),
    splitting: Splitting = Splitting(),
) -> int:
    """Turn raw videos into clips: face found and cut, 25 fps, 16 kHz.

    One file a clip, and beside it the faces of each method that is asked for; those of further methods can be added
    later. Resumes where an interrupted run stopped. Clips that cannot be used are listed with the reason in
    failures.csv.

    Args:
        source: Folder of the data set or of any videos.
        out: Folder for the prepared clips.
        for_: Methods whose faces are cut as their recipes say, as wav2lip,hyperlips_hr: what training on them reads.
    """
    from lipsync_bench.datamodules.prepare.prepare import prepare as run
    from lipsync_bench.recipes import recipe_named

    if recipe and not for_:
        raise ValueError(
            "--recipe without --for. Expected the methods whose recipe it changes (--for wav2lip,lipformer)"
        )
    recipes = [recipe_named(name, recipe) for name in for_]
    if options.join and splitting != Splitting():
        raise ValueError("--join joins all slices. Expected no --slice and no --executor beside it. Leave them out")
    report = run(source, out, options, faces, weights, splitting, recipes=recipes)
    _log.info("%s", report.summary())
    return 1 if report.done + report.skipped == 0 and splitting.part().count == 1 else 0


def cut(*, video: Path, out: Path, val_seconds: Seconds0 = 18.0, test_seconds: Seconds0 = 18.0) -> int:
    """Cut one person's video by time into parts to train, validate and test on.

    For fine-tuning, as in HyperLips' Table V. The parts are laid out like LRS2; prepare them with: bench prepare
    --dataset lrs2 --source OUT --out ROOT.

    Args:
        video: Shows one person, with audio.
        out: Folder for the parts and their lists.
        val_seconds: Length of the validation part, before the test part; 0 for none.
        test_seconds: Length of the test part, at the end; 0 for none.
    """
    from lipsync_bench.inference.cutting import cut_by_time

    cut_by_time(video, out, val_seconds=val_seconds, test_seconds=test_seconds)
    return 0


def synthetic(
    *,
    out: Path,
    speakers: From1 = 6,
    clips_per_speaker: From1 = 6,
    seconds: Seconds = 3.0,
    seed: From0 = 0,
    workers: From1 | None = None,
) -> int:
    """Make the synthetic corpus: talking heads in true sync, laid out like LRS2.

    Args:
        out: Folder for the videos, split lists and ground truth.
        speakers: Distinguishable identities.
        clips_per_speaker: Videos of each.
        seconds: Length of a video.
        seed: Same seed, same corpus.
        workers: Processes; one for each core if not given.
    """
    from lipsync_bench.datamodules.datasets.synthetic import make_corpus

    make_corpus(
        out, speakers=speakers, clips_per_speaker=clips_per_speaker, seconds=seconds, seed=seed, workers=workers
    )
    return 0


def base_frames(
    *,
    checkpoint: Path,
    root: Path,
    recipe: RecipeOptions = RecipeOptions(),
    mesh_order: Literal["rgb", "bgr"] = "rgb",
    overwrite: bool = False,
    device: str = "auto",
    workers: From1 | None = None,
    weights: WeightOptions = WeightOptions(),
    splitting: Splitting = Splitting(),
) -> int:
    """Run a trained HyperLips-Base over prepared clips, for its second stage.

    Makes frames, sketches and lip outlines. Resumes where an interrupted run stopped. What cannot be read is listed in
    base_frames_failures.csv.

    Args:
        checkpoint: Of HyperLipsBase, or its run's folder; or an official weight file, or official:ID for one in the
            store.
        root: Folder of prepared clips; each gets a file CLIP.base beside it.
        mesh_order: Channel order of the images that Face Mesh sees; bgr as in the released preparation.
        overwrite: Make finished files anew.
        device: auto, cpu or cuda:N.
        workers: On Ray: clips at once.
    """
    from lipsync_bench.inference.base_frames import make_base_frames

    report = make_base_frames(
        checkpoint,
        root,
        mesh_order=mesh_order,
        recipe=recipe,
        overwrite=overwrite,
        device=device,
        splitting=splitting,
        workers=workers,
        weights=weights,
    )
    _log.info("%s", report.summary())
    return 1 if report.done + report.skipped == 0 and splitting.part().count == 1 else 0


def coefficients(
    *,
    root: Path,
    network: str = "official",
    for_: Annotated[str, Parameter(name="--for")] = "videoretalking_dnet",
    overwrite: bool = False,
    device: str = "auto",
    weights: WeightOptions = WeightOptions(),
) -> int:
    """Regress the 3DMM coefficients of prepared faces, which VideoReTalking's D-Net is trained with.

    By Deep3DFaceRecon's network. Resumes where an interrupted run stopped. What cannot be read is listed in
    coefficients_failures.csv.

    Args:
        root: Folder of prepared clips with D-Net's faces (bench prepare --for videoretalking_dnet); each gets a file
            CLIP.coefficients beside it.
        network: official, the file deep3d_face of the store; or a file; or random, for smoke runs alone.
        for_: The run whose faces they are, as videoretalking_dnet+synthetic/videoretalking_dnet.
        overwrite: Make finished files anew.
        device: auto, cpu or cuda:N.
    """
    from lipsync_bench.inference.coefficients import make_coefficients

    report = make_coefficients(root, network=network, of=for_, overwrite=overwrite, device=device, weights=weights)
    _log.info("%s", report.summary())
    return 1 if report.done + report.skipped == 0 else 0
