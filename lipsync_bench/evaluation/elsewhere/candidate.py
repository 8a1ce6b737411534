# SPDX-License-Identifier: Apache-2.0
"""A candidate whose videos a command makes before they are scored: RESULTS/generated/METHOD/VERSION/CLIP.mp4.

Beside each video lie the log of the command and a record of what the video was made of. A video whose inputs (frames of
the video, audio, command, version) are the same is not made again; failed ones are tried again.
"""

import logging
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import islice
from pathlib import Path

from lipsync_bench.datamodules.clips.clip import ClipHeader
from lipsync_bench.datamodules.errors import ClipError, MediaError
from lipsync_bench.datamodules.files.disk import remove_leftovers, temporary_path
from lipsync_bench.datamodules.media.damage import Damage
from lipsync_bench.datamodules.media.video import FPS, read_frames
from lipsync_bench.datamodules.progress import progress_bar
from lipsync_bench.evaluation.candidates import VideoFiles
from lipsync_bench.evaluation.elsewhere.command import Command, stated_version
from lipsync_bench.evaluation.elsewhere.pair_files import Record, is_as_compared, write_audio, write_video
from lipsync_bench.evaluation.elsewhere.processes import Processes, Stopped, tail
from lipsync_bench.evaluation.task.inputs import target_sha256
from lipsync_bench.evaluation.task.listing import Listing
from lipsync_bench.evaluation.task.pairs import Pair
from lipsync_bench.evaluation.videos import entry_folder, row_path

_TOLERANCE_FRAMES, _TOLERANCE_SHARE = 5, 0.05
_REPAIR = "Correct the command in the benchmark, and evaluate again"

_log = logging.getLogger(__name__)

__all__ = ["CommandVideos"]


def _check(path: Path, frames: int) -> int:
    """The number of frames of a video that was made, at 25 a second.

    Raises:
        MediaError: There is none, it does not decode completely, or its length is another by more than 5 frames (0.2 s)
            and 5 %: some methods leave out the last frames, whose window of audio is not complete.
    """
    if not path.exists():
        raise MediaError("it made no video at {out}. Expected an mp4 there")
    tolerance = max(_TOLERANCE_FRAMES, int(_TOLERANCE_SHARE * frames))
    damage = Damage()
    found = sum(1 for _ in islice(read_frames(path, FPS, damage), frames + tolerance + 1))
    if damage.frames:
        raise MediaError(f"{damage.frames} frames of its video cannot be decoded. Expected a whole video")
    if abs(found - frames) > tolerance:
        more = "more than " if found > frames else ""
        raise MediaError(
            f"its video has {more}{min(found, frames + tolerance)} frames at 25 fps. Expected {frames}, or up to "
            f"{tolerance} more or fewer"
        )
    return found


class CommandVideos(VideoFiles):
    """Videos that a command makes.

    Args:
        name: Its method name in the rows.
        command: The command.
        out: Results folder.
        source_root: Folder of the source videos.
        listing: The pairs with the headers of their clips.
        workers: How many commands run at once.

    Raises:
        FileNotFoundError, ValueError: As `stated_version`.
    """

    def __init__(
        self, name: str, command: Command, out: Path, source_root: Path, listing: Listing, workers: int = 1
    ) -> None:
        self.version = stated_version(name, command)
        super().__init__(name, command.sha256(self.version))
        self._command, self._out, self._source_root = command, out.resolve(), source_root
        self._listing, self._workers = listing, workers
        self._seconds: dict[tuple[str, str], float] = {}
        self._failures: dict[tuple[str, str], str] = {}

    def _place(self, clip: str, audio_clip: str) -> Path:
        folder = self._out / "generated" / entry_folder(self.name, "", "", "")
        return row_path(folder, ("", self.sha256, "", ""), clip, audio_clip, ".mp4")

    def file(self, clip: str, audio_clip: str) -> Path:
        """The video that was made. Raises MediaError with the reason if there is none."""
        reason = self._failures.get((clip, audio_clip))
        path = self._place(clip, audio_clip)
        if reason is None and not path.is_file():
            reason = f"{clip}: no video in {path.parent}. Expected the one that the command makes. Evaluate again"
        if reason is not None:
            raise MediaError(reason)
        return path

    def facts(self, clip: str, audio_clip: str) -> Mapping[str, object]:
        """Wall time of the command, and the version."""
        return {"command_seconds": self._seconds.get((clip, audio_clip)), "method_version": self.version}

    def make(self, pairs: Sequence[Pair], progress: bool) -> None:
        """Run the command for each pair whose video is not there; failures are kept for the rows."""
        processes = Processes()
        with progress_bar(progress) as bar, ThreadPoolExecutor(self._workers) as pool:
            task = bar.add_task(self.name, total=len(pairs))
            try:
                jobs = [pool.submit(self._make, pair, processes) for pair in pairs]
                for job in as_completed(jobs):
                    job.result()
                    bar.advance(task)
            except BaseException:  # Ctrl-C as well
                processes.stop()
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        failed = sum(self._listing.ids(pair) in self._failures for pair in pairs)
        _log.info("%s: %d videos made or there already, %d failed", self.name, len(pairs) - failed, failed)

    def _make(self, pair: Pair, processes: Processes) -> None:
        ids = self._listing.ids(pair)
        try:
            self._seconds[ids], self._failures[ids] = 0.0, "the command was not run"
            self._made(pair, ids, processes)
            del self._failures[ids]
        except Stopped:
            raise
        except (MediaError, ClipError, FileNotFoundError) as error:
            self._failures[ids] = str(error)

    def _made(self, pair: Pair, ids: tuple[str, str], processes: Processes) -> None:
        path, frames = self._place(*ids), self._listing.frames(pair)
        video, audio = (self._listing.headers[clip] for clip in (pair.video, pair.audio))
        record = Record(path.with_name(f"{path.name}.json"), (path,))
        inputs = {
            "video": target_sha256(self._source_root, video),
            "audio": audio.source_sha256,
            "frames": frames,
            "command": self._command.command,
            "version": self.version,
        }
        facts = record.read(inputs)
        if facts is not None:
            self._seconds[ids] = facts["seconds"]
            return
        record.remove()
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent, of=path)
        temporary = temporary_path(path)
        temporary.mkdir()
        try:
            found = self._run(pair, ids, video, frames, temporary, path, processes)
            (temporary / path.name).replace(path)
            record.write(inputs, seconds=self._seconds[ids], frames=found)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _run(
        self,
        pair: Pair,
        ids: tuple[str, str],
        video: ClipHeader,
        frames: int,
        temporary: Path,
        path: Path,
        processes: Processes,
    ) -> int:
        """Run the command for a pair into a temporary folder, and check what it made."""
        source = (self._source_root / video.source).resolve()
        if not is_as_compared(source, frames):
            write_video(source, frames, temporary / "video.mp4")
            source = temporary / "video.mp4"
        write_audio(pair.audio, frames, temporary / "audio.wav")
        out, log = temporary / path.name, path.with_suffix(".log")
        words = self._command.words(source, temporary / "audio.wav", out)
        status, seconds = processes.run(
            words, log, self._command.cwd, self._command.environment(), self._command.timeout
        )
        self._seconds[ids] = round(seconds, 3)
        try:
            if status is None:
                limit = f"{self._command.timeout:g} s"
                raise MediaError(f"the command was ended at its time limit of {limit}. Expected it to end before")
            if status != 0:
                raise MediaError(f"the command ended with status {status}. Expected 0")
            return _check(out, frames)
        except MediaError as error:
            lines = tail(log)
            shown = f"its last lines: {lines}" if lines else "it printed nothing"
            place = log.relative_to(self._out)
            text = f"{ids[0]}: {str(error).rstrip('.')}. {_REPAIR}. Log {place}, {shown}"
            raise MediaError(text.replace(f"{temporary}/", "")) from error  # another name each time
