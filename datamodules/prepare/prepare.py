# SPDX-License-Identifier: Apache-2.0
"""From a folder of videos to a folder of clips: what `bench prepare` does.

Output::

    <out>/<speaker>/<name>.safetensors        one clip
    <out>/<speaker>/<name>.<digest>.track     its faces as a recipe has them, where a run asked for it
    <out>/<speaker>/<name>.<detector>.boxes   where another detector saw its face, where a run asked for it
    <out>/videos/<speaker>/<name>.<part>.mp4  the clip's video, where a data set's lists say which part of a longer one
    <out>/splits/{train,val,test}.txt         the data set's lists, one id a line (where it has some)
    <out>/failures.csv                        id, source, error, reason of clips, or parts beside one, that failed
    <out>/manifest.json                       settings, versions, clips; "complete" is false until a run has ended

Slices of a run have a manifest and a list of failures each, until the last one joins them: `record`.
"""

import dataclasses
import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Protocol

from rich.progress import ProgressColumn, Task
from rich.text import Text

from lipsync_bench.datamodules.clips.clip import SCHEMA
from lipsync_bench.datamodules.datasets.dataset import find_dataset
from lipsync_bench.datamodules.datasets.splits import read_splits
from lipsync_bench.datamodules.errors import JobsFailed
from lipsync_bench.datamodules.faces.detectors import detector_file, make_detector
from lipsync_bench.datamodules.faces.options import FaceOptions
from lipsync_bench.datamodules.files.disk import printable, remove_leftovers, write_atomic
from lipsync_bench.datamodules.media.damage import Damage
from lipsync_bench.datamodules.prepare.beside import files_beside
from lipsync_bench.datamodules.prepare.make_clip import Job, Settings, is_current, left_by_the_dead, prepare_one
from lipsync_bench.datamodules.prepare.options import PrepareOptions
from lipsync_bench.datamodules.prepare.pool import WorkerDied, run_jobs
from lipsync_bench.datamodules.prepare.record import Record
from lipsync_bench.datamodules.prepare.sources import Source, find_sources, source_root
from lipsync_bench.datamodules.prepare.wanted import Wanted
from lipsync_bench.datamodules.progress import progress_bar
from lipsync_bench.datamodules.recipes.recipe import Recipe
from lipsync_bench.datamodules.splitting import Splitting
from lipsync_bench.datamodules.versions import DISTRIBUTION, installed, versions
from lipsync_bench.datamodules.weights.options import WeightOptions

SUFFIX = ".safetensors"
CUT_VIDEOS = "videos"
_LOG_INTERVAL_S = 30.0

logger = logging.getLogger(__name__)

__all__ = ["PrepareReport", "Source", "find_sources", "prepare"]


@dataclasses.dataclass(frozen=True)
class PrepareReport:
    """What a run did.

    Args:
        done: Clips made.
        skipped: Clips that were there already.
        failed: Videos of which no clip could be made.
        seconds: Wall time.
        out: The prepared folder.
        clips: Ids of the clips that hold.
        sources: Paths of all videos, relative to their root.
        listed: Name of the list of failures.
        parts: Of each part that was wanted beside the clips, what it is, and how many were made, there already, failed.
    """

    done: int
    skipped: int
    failed: int
    seconds: float
    out: Path = Path()
    clips: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    listed: str = "failures.csv"
    parts: tuple[tuple[str, int, int, int], ...] = ()

    def summary(self) -> str:
        """One line for people."""
        told = [("clips", self.done, self.skipped, self.failed), *self.parts]
        counts = [
            f"{made} {what} prepared, {there} already there, {failed} failed" for what, made, there, failed in told
        ]
        text = f"{'; '.join(counts)} in {self.seconds:.1f} s: {self.out}"
        return f"{text} (reasons in {self.out / self.listed})" if any(failed for *_, failed in told) else text


class _Tick(Protocol):
    def __call__(self, failed: int) -> None: ...


class _SpeedColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:.2f} clips/s")


@contextmanager
def _progress(total: int, shown: bool) -> Iterator[_Tick]:
    """A bar on a terminal, otherwise a line in the log now and then."""
    start = last = time.monotonic()
    count = 0

    def log(failed: int) -> None:
        nonlocal last, count
        count += 1
        now = time.monotonic()
        if shown and now - last >= _LOG_INTERVAL_S:
            last = now
            speed = count / (now - start)
            left = (total - count) / speed
            logger.info("%d of %d clips, %d failed, %.2f clips/s, %.0f s left", count, total, failed, speed, left)

    if not (shown and sys.stderr.isatty()):
        yield log
        return
    with progress_bar(True, _SpeedColumn()) as bar:
        task = bar.add_task("prepare", total=total)
        yield lambda failed: bar.update(task, advance=1, description=f"prepare ({failed} failed)")


def prepare(
    source: Path,
    out: Path,
    options: PrepareOptions = PrepareOptions(),
    faces: FaceOptions = FaceOptions(),
    weights: WeightOptions = WeightOptions(),
    splitting: Splitting = Splitting(),
    *,
    recipes: Sequence[Recipe] = (),
    progress: bool = True,
    exclude: Sequence[Path] = (),
) -> PrepareReport:
    """Prepare every video of a data set; what is finished is kept, what failed is tried again.

    Clips are whole or absent at any time. A clip is finished if its file is whole, its settings and detector version
    are these, and its source has the same size and times as in the manifest, or the same SHA-256. Two videos of one id
    are two failures. Beside a finished clip only boxes and tracks that are wanted and missing are made. A slice takes
    its part of the videos and reports on it alone; the one that ends last joins all.

    Args:
        source: Folder of the videos.
        out: Folder of the clips.
        options: What is prepared, and how the run goes.
        faces: How faces are found and cut out.
        weights: Where a detector's weights are looked for.
        splitting: Which part of the videos is prepared, and where.
        recipes: Those whose tracks are wanted beside the clips, with the boxes that they need.
        progress: Show a bar on a terminal, or log a line every 30 s.
        exclude: Folders below `source` whose videos are not taken; `out` never is, nor what this suite has written.

    Raises:
        FileNotFoundError, ValueError: Nothing to prepare, a bad list, no or wrong detector weights.
        OSError: The disk is full or read-only: the run stops, what is finished stays.
        JobsFailed: More than `options.max_failures` failed, or lack a part (all files are written first).
        KeyboardInterrupt: After the workers were ended and the manifest was written with `"complete": false`.
    """
    start = time.monotonic()
    store = weights.store
    settings = Settings(
        **vars(faces), max_crop_px=options.max_crop_px, detector_weights=detector_file(faces.detector, store)
    )
    version = settings.detector_version
    if settings.detector_weights is not None:
        make_detector(faces.detector, settings.detector_weights).close()  # a wrong file is one error, not one a clip
    wanted = Wanted.of(recipes, options.boxes, options.track_codec, store)
    part = splitting.part()
    cut_to = out.resolve() / CUT_VIDEOS
    sources = find_sources(source, options.dataset, (out, *exclude), cut_to)
    root = cut_to if any(item.cutting for item in sources) else source_root(source, options.dataset)
    head = {
        "schema": SCHEMA,
        "complete": False,
        "dataset": options.dataset,
        "source_root": str(root),
        "settings": json.loads(settings.key()),
        "detector_version": version,
        "versions": {DISTRIBUTION: installed(DISTRIBUTION), **versions()},
        **({"wanted": wanted.plain()} if wanted.parts else {}),
    }
    places = [(item.id, printable(item.path.relative_to(root).as_posix())) for item in sources]
    record = Record(out, head, places, part)

    def report(done: int, skipped: int, failed: int) -> PrepareReport:
        names = tuple(sorted(record.entries)), tuple(item.path.relative_to(root).as_posix() for item in sources)
        lacking = Counter(row[-1] for row in record.failures)
        parts = tuple(
            (text, made[name], len(record.entries) - made[name] - lacking[name], lacking[name])
            for name, text in wanted.parts.items()
        )
        return PrepareReport(done, skipped, failed, time.monotonic() - start, out, *names, record.listed, parts)

    made: Counter[str] = Counter()
    if options.join:
        record.join_finished()
        return report(0, len(record.entries), sum(not row[-1] for row in record.failures))
    out.mkdir(parents=True, exist_ok=True)
    remove_leftovers(out)
    beside = files_beside(out)
    mine = part.of(sources)
    if part.count > 1:
        logger.info("%s: slice %s (%s), %d of %d videos", out, part, part.said_by, len(mine), len(sources))

    jobs: list[Job] = []
    old = record.old_entries()
    users = Counter(item.id for item in sources)

    def fail(item: Source, error: str, reason: str, part: str = "") -> None:
        where = printable(item.path.relative_to(root).as_posix())
        record.failures.append((item.id, where, error, printable(reason), part))
        told = f"{item.id}, {wanted.parts[part]}" if part else item.id
        logger.warning("%s: %s: %s", *map(printable, (told, error, reason)))

    for item in mine:
        if users[item.id] > 1:
            fail(item, "ValueError", f"{users[item.id]} videos have the id {item.id}. Expected one. Rename the others")
            continue
        target = out / f"{item.id}{SUFFIX}"
        job = Job(item, root, target, settings, options.overwrite, wanted, tuple(beside.get(item.id, ())))
        entry = old.get(item.id)
        if entry is not None and not options.overwrite and is_current(job, entry):
            record.entries[item.id] = entry
        else:
            jobs.append(job)
    if find_dataset(options.dataset).lists:
        for split, ids in read_splits(root, partial=True).items():
            write_atomic(out / "splits" / f"{split}.txt", "".join(f"{name}\n" for name in ids).encode())
    skipped = len(record.entries)
    try:
        record.begin(anything_to_do=bool(jobs))
        run = run_jobs(prepare_one, jobs, options.workers, splitting.executor, splitting.ray_gpus or 0.0)
        with closing(run) as results, _progress(len(jobs), progress) as tick:
            for job, outcome in results:
                if isinstance(outcome, WorkerDied):
                    outcome = left_by_the_dead(job, f"{outcome} (out of memory, or a crash in a codec)")
                if outcome.system is not None:
                    raise outcome.system
                if outcome.entry is not None:
                    record.entries[job.source.id] = outcome.entry
                    skipped += outcome.skipped
                    Damage(outcome.entry.get("damaged_frames", 0)).warn(job.source.path)
                    before = old.get(job.source.id, {})
                    if outcome.skipped and "damaged_frames" in before:  # was told when the clip was made
                        outcome.entry["damaged_frames"] = before["damaged_frames"]
                    made.update(outcome.made)
                    for failure in outcome.failures:
                        fail(job.source, failure.error, failure.reason, failure.part)
                else:
                    fail(job.source, outcome.error, outcome.reason)
                tick(len(record.failures))
    except OSError:
        with suppress(OSError):  # the first one is to be told, and on a full disk a failure to list is one more of it
            record.write(False)
        raise
    except BaseException:
        record.write(False)
        raise
    record.write(True)
    done = report(len(record.entries) - skipped, skipped, len(mine) - len(record.entries))
    if len({row[:2] for row in record.failures}) > options.max_failures * len(mine):
        raise JobsFailed(f"{done.summary()}; expected at most {options.max_failures:.0%} failures (--max-failures)")
    return done
