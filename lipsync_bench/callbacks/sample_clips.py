# SPDX-License-Identifier: Apache-2.0
"""What a method in training makes of a few validation clips, at every validation."""

import io
import logging
from itertools import islice, tee
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytorch_lightning as pl
from PIL import Image
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities.seed import isolate_rng

from lipsync_bench.datamodules.clip_datamodule import ClipDataModule
from lipsync_bench.datamodules.clips.boxes import clip_geometry
from lipsync_bench.datamodules.clips.clip import Clip
from lipsync_bench.datamodules.faces.crop_rules.boxes import BoxCut
from lipsync_bench.datamodules.files.disk import write_atomic
from lipsync_bench.datamodules.media.audio import SAMPLE_RATE, frame_mels
from lipsync_bench.datamodules.media.video import FPS, read_frames
from lipsync_bench.datamodules.weights.store import Store
from lipsync_bench.inference.pasting import make_paste
from lipsync_bench.inference.preview import PICTURE_PX, side_by_side, write_preview
from lipsync_bench.models.core.module import TalkingFaceModule
from lipsync_bench.models.core.session import PasteFace, Video, dub_frames

SAMPLES = "samples"
_BATCH_FRAMES = 8  # of a video in memory
_MARGIN = 1.4  # side of what is shown, in sides of the clip's box
_LIPS = (62, 66)  # the middle of the inner lips, above and below
_GIF_MS = 40
_log = logging.getLogger(__name__)

__all__ = ["SAMPLES", "SampleClips"]

_Columns = dict[str, list[np.ndarray]]


def _around(clip: Clip, frames: int, size_hw: tuple[int, int]) -> BoxCut:
    """One square about the face in all of the first frames, as far as the frame goes."""
    boxes = clip.boxes()[:frames]
    (x1, y1), (x2, y2) = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    side = int(min(_MARGIN * max(x2 - x1, y2 - y1), *size_hw))
    left, top = (
        int(np.clip((low + high - side) / 2, 0, whole - side))
        for low, high, whole in ((x1, x2, size_hw[1]), (y1, y2, size_hw[0]))
    )
    return BoxCut((left, top, left + side, top + side))


class SampleClips(pl.Callback):
    """Writes a picture and a video of the same few validation clips at every validation, each by the method's session.

    `samples/STEP.png` in the run's folder has a row for each clip: its first frame, and what was generated and filmed
    where the mouth is widest open. `samples/STEP.mp4` shows the clips one after the other, with their audio. Loggers
    get both, where they can show them. A clip of which nothing can be made is named once, and the training goes on.
    Neither its random numbers nor its batches change.

    Args:
        clips: How many, spread over the validation clips.
        frames: Of each clip, from its beginning on.
    """

    def __init__(self, clips: int = 4, frames: int = 16) -> None:
        if clips < 1 or frames < 1:
            raise ValueError(f"SampleClips: {clips} clips of {frames} frames. Expected 1 or more. Set clips and frames")
        self.clips, self.frames = clips, frames
        self._told: set[str] = set()

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Make them; where weights are averaged, the average is in place now."""
        fitting = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        if fitting and trainer.is_global_zero and isinstance(pl_module, TalkingFaceModule):
            with isolate_rng():
                try:
                    self._write(trainer, pl_module)
                except Exception as error:  # such as a full disk: no training ends for want of a picture
                    self._tell(f"sample clips: {type(error).__name__}: {error}")

    def _tell(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            _log.warning("%s", text)

    def _write(self, trainer: pl.Trainer, module: TalkingFaceModule) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data, ClipDataModule):
            self._tell(f"sample clips: none, because {type(data).__name__} has no prepared clips")
            return
        paths, root = data.clips("val"), data.source_root
        chosen = [
            paths[place] for place in dict.fromkeys(np.linspace(0, len(paths) - 1, self.clips).astype(int).tolist())
        ]
        paste = make_paste(module.recipe, Store(), str(module.device))
        made: list[tuple[_Columns, np.ndarray, int]] = []
        failed, passed = [], 0
        for path in chosen:
            try:
                with Clip(path) as clip:
                    columns, without_face = self._columns(module, clip, root / clip.header.source, paste)
                    shown = len(columns["generated"])
                    lips = clip.landmarks()[:shown, _LIPS, 1]
                    samples = clip.wav()[: round(shown * SAMPLE_RATE / FPS)]
                    made.append((columns, samples, int(np.argmax(lips[:, 1] - lips[:, 0]))))
                    passed += without_face
            except Exception as error:  # of one clip, or of a method's own session
                failed.append(f"{path.parent.name}/{path.stem} ({type(error).__name__}: {error})")
        if failed:
            self._tell(f"sample clips: {len(failed)} of {len(chosen)} could not be made: {'; '.join(failed)}")
        if passed:
            self._tell(f"sample clips: {passed} frames without a visible face passed through unchanged")
        if made:
            self._publish(trainer, made)

    def _columns(self, module: TalkingFaceModule, clip: Clip, source: Path, paste: PasteFace) -> tuple[_Columns, int]:
        """What is shown of a clip, and how many of its frames have no visible face."""
        mel, count = clip.mel(module.recipe.mel_padding), min(self.frames, len(clip))
        video = Video(
            clip_geometry(clip),
            lambda first, count: frame_mels(mel, count, first_frame=first),
            lambda: read_frames(source, FPS),
        )
        session = module.session(video, module.recipe, paste)
        try:
            filmed, given = tee(islice(read_frames(source, FPS), count))
            pairs = zip(filmed, dub_frames(session, given, _BATCH_FRAMES), strict=True)
            cut = _around(clip, count, video.geometry.size_hw)
            shown = [tuple(_picture(cut, frame) for frame in pair) for pair in pairs]
        finally:
            session.close()
        first = [shown[0][0]] * len(shown)
        columns = {"first frame": first, "generated": [x for _, x in shown], "ground truth": [x for x, _ in shown]}
        return columns, session.passed_through

    def _publish(self, trainer: pl.Trainer, made: list[tuple[_Columns, np.ndarray, int]]) -> None:
        step = trainer.global_step
        base = Path(trainer.default_root_dir) / SAMPLES / f"{step:09d}"
        rows = [side_by_side({title: column[place] for title, column in columns.items()}) for columns, _, place in made]
        grid = np.vstack(rows)
        picture, video = base.with_suffix(".png"), base.with_suffix(".mp4")
        buffer = io.BytesIO()
        Image.fromarray(grid).save(buffer, "png")
        write_atomic(picture, buffer.getvalue())
        titles = made[0][0]
        joined = {title: [image for columns, _, _ in made for image in columns[title]] for title in titles}
        write_preview(video, joined, np.concatenate([samples for _, samples, _ in made]))
        for logger in trainer.loggers:
            _log_media(logger, grid, joined, picture, video, step)


def _picture(cut: BoxCut, frame: np.ndarray) -> np.ndarray:
    return cv2.resize(cut.crop(frame), (PICTURE_PX, PICTURE_PX), interpolation=cv2.INTER_AREA)


def _log_media(logger: Any, grid: np.ndarray, columns: _Columns, picture: Path, video: Path, step: int) -> None:
    """Give both to a logger that takes pictures, or files."""
    if isinstance(logger, pl.loggers.TensorBoardLogger):
        logger.experiment.add_image(SAMPLES, grid, step, dataformats="HWC")
        _add_gif(logger.experiment, columns, step)
    elif isinstance(logger, pl.loggers.MLFlowLogger):
        for file in (picture, video):
            logger.experiment.log_artifact(logger.run_id, str(file), SAMPLES)
    elif hasattr(logger, "log_image"):  # Weights & Biases, and others that Lightning has
        logger.log_image(SAMPLES, [str(picture)], step=step)
        if hasattr(logger, "log_video"):
            logger.log_video(f"{SAMPLES}_video", [str(video)], step=step, format=["mp4"])


def _add_gif(writer: Any, columns: _Columns, step: int) -> None:
    """A video as TensorBoard shows it, half as large; its own `add_video` needs moviepy for the same file."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    frames = [Image.fromarray(np.hstack(images)).reduce(2) for images in zip(*columns.values(), strict=True)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "gif", save_all=True, append_images=frames[1:], duration=_GIF_MS, loop=0)
    image = Summary.Image(
        height=frames[0].height, width=frames[0].width, colorspace=3, encoded_image_string=buffer.getvalue()
    )
    writer.file_writer.add_summary(Summary(value=[Summary.Value(tag=f"{SAMPLES}/video", image=image)]), step)
