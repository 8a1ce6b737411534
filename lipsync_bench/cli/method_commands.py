# SPDX-License-Identifier: Apache-2.0
"""The subcommands of `bench` that use a method or bring one in; heavy imports happen inside, so that help is quick."""

import logging
from pathlib import Path

from lipsync_bench.cli.command_line import From0
from lipsync_bench.datamodules.faces.options import FollowOptions
from lipsync_bench.datamodules.recipes.options import RecipeOptions
from lipsync_bench.datamodules.weights.options import WeightOptions
from lipsync_bench.inference.options import DubOptions

__all__ = ["demo", "dub", "import_", "mouth_reference"]


def dub(
    *,
    checkpoint: Path,
    video: Path,
    audio: Path,
    out: Path,
    options: DubOptions = DubOptions(),
    recipe: RecipeOptions = RecipeOptions(),
    follow: FollowOptions = FollowOptions(),
    weights: WeightOptions = WeightOptions(),
) -> int:
    """Dub a video: give the person in it other speech.

    Size and rate of the video are kept. Frames without a face pass through unchanged and are counted. The file says in
    its metadata that it is synthetic. Please tell its viewers as well, and dub only people who agreed to it.

    Args:
        checkpoint: Of any method; pretrained, the small Wav2Lip that comes with the package (of synthetic people; on
            others a demonstration only); an official weight file, or official:ID for one in the store; or the name of
            a system, such as videoretalking (experiments/systems/).
        video: Shows the person; its own audio is not used.
        audio: The speech, any file with audio.
        out: The MP4 to write.
    """
    from lipsync_bench.inference.dub import dub as run

    logging.getLogger(__name__).info(
        "%s", run(checkpoint, video, audio, out, options, recipe, follow, weights).summary()
    )
    return 0


def mouth_reference(
    *,
    checkpoint: Path,
    video: Path,
    audio: Path,
    out: Path,
    options: DubOptions = DubOptions(),
    recipe: RecipeOptions = RecipeOptions(),
    follow: FollowOptions = FollowOptions(),
    weights: WeightOptions = WeightOptions(),
) -> int:
    """Show what the mouth of the reference frame does to a dubbed video.

    Dubs the video twice, with its most open and its most closed mouth as the reference of all frames, as in the
    appendix of HyperLips; writes both, a video of them side by side, and how far the mouths are open.

    Args:
        checkpoint: Of any method; or an official weight file, or official:ID for one in the store.
        video: Shows the person, at 25 fps.
        audio: The speech, any file with audio.
        out: Folder to write.
    """
    from lipsync_bench.inference.mouth_reference import mouth_reference as run

    report = run(checkpoint, video, audio, out, options, recipe, follow, weights)
    logging.getLogger(__name__).info("%s", report.summary())
    return 0


def import_(kind: str, file: Path, /, *, out: Path, disc: Path | None = None, base: Path | None = None) -> int:
    """Turn an official weight file into a checkpoint that the other commands take.

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
    *,
    out: Path = Path("demo"),
    method: str = "wav2lip",
    seed: From0 = 0,
    overwrite: bool = False,
) -> int:
    """The whole way in small: corpus, training, evaluation, table and preview.

    Under 8 minutes on 2 cores, with hyperlips 12. Finished stages are not done again.

    Args:
        out: Folder for everything; methods share it.
        method: What is trained and ranked: a method with an overlay in experiments/synthetic/; hyperlips is both stages
            of it.
        seed: Of corpus and training.
        overwrite: Start anew.
    """
    from lipsync_bench.cli.demo import run_demo

    run_demo(out, method=method, seed=seed, overwrite=overwrite)
    return 0
