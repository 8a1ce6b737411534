# SPDX-License-Identifier: Apache-2.0
"""`bench export`: the pairs of a protocol as files, for methods that run elsewhere.

    OUT/video/NAME.mp4    the frames that are compared: 25 a second, H.264, visually lossless
    OUT/audio/NAME.wav    the audio, 16 kHz mono, as long as the frames
    OUT/pairs.csv         a line for each pair that is there
    OUT/failures.csv      pairs that could not be exported, and why
    OUT/README.txt        what this is, and how the videos come back
    OUT/export.json       of which data set and protocol; a folder holds one
    OUT/.records/         what each file was made of

NAME is the one at which `bench evaluate --pred METHOD=DIR` looks for the method's video of the pair.
"""

import csv
import io
import json
import logging
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lipsync_bench.datamodules.errors import ClipError, MediaError
from lipsync_bench.datamodules.files.csv_files import quoted
from lipsync_bench.datamodules.files.disk import remove_leftovers, write_atomic
from lipsync_bench.datamodules.files.texts import read_json
from lipsync_bench.datamodules.media.video import FPS
from lipsync_bench.datamodules.progress import progress_bar
from lipsync_bench.datamodules.splitting import Splitting
from lipsync_bench.evaluation.candidates import expected_name
from lipsync_bench.evaluation.elsewhere.pair_files import LOSSLESS_CRF, Record, write_audio, write_video
from lipsync_bench.evaluation.options import Rules, Selection
from lipsync_bench.evaluation.task.benchmark import load_benchmark
from lipsync_bench.evaluation.task.inputs import target_sha256
from lipsync_bench.evaluation.task.listing import Listing, list_pairs
from lipsync_bench.evaluation.task.pairs import Pair
from lipsync_bench.evaluation.task.protocol import PAIRED_FACE_BOX, load_protocol, rules_sha256

_COLUMNS = ("video", "audio", "expected", "frames", "seconds", "clip", "audio_clip", "video_sha256", "audio_sha256")
_README = """Pairs of {dataset} ({split}) under the protocol {protocol}, exported by lipsync_bench.

Make a video of each line of pairs.csv: the person of `video` ({fps:g} frames a second), lips moved by `audio` (wav,
16 kHz, mono; as long as the video). Give it the name of the column `expected` in a folder of yours; the suffix of any
video format will do. Keep the number of frames, the frame rate and the whole frame; do not cut the face out.

Then score the folder with:

    bench evaluate --dataset {dataset} --protocol {protocol_name} --pred METHOD=FOLDER

The videos here are encoded visually losslessly (H.264, crf {crf}); what you make is compared with the originals. The
data set's licence holds for these files too.
"""

_log = logging.getLogger(__name__)

__all__ = ["ExportReport", "export"]


@dataclass(frozen=True)
class ExportReport:
    """What an export did.

    Args:
        done: Pairs exported by this run.
        skipped: Pairs that were there.
        failed: Reason of each pair that failed, by its ids.
    """

    done: int
    skipped: int
    failed: Mapping[tuple[str, str], str]

    def summary(self) -> str:
        """One line."""
        return f"{self.done} pairs exported, {self.skipped} already there, {len(self.failed)} failed"


class _Export:
    def __init__(self, listing: Listing, source_root: Path, out: Path) -> None:
        self._listing, self._source_root, self._out = listing, source_root, out
        self._sources = Counter(map(self._stem, {header.source for header in listing.headers.values()}))

    @staticmethod
    def _stem(source: str) -> str:
        return unicodedata.normalize("NFC", str(expected_name(source, "", "")))

    def name(self, pair: Pair) -> str:
        """The pair's name in all folders, without suffix."""
        return str(expected_name(self._listing.headers[pair.video].source, *self._listing.ids(pair)))

    def record(self, pair: Pair) -> Record:
        """What the files of a pair were made of."""
        name = self.name(pair)
        files = self._out / "video" / f"{name}.mp4", self._out / "audio" / f"{name}.wav"
        return Record(self._out / ".records" / f"{name}.json", files)

    def inputs(self, pair: Pair) -> dict[str, object]:
        """What the files of a pair are made of."""
        video, audio = (self._listing.headers[clip] for clip in (pair.video, pair.audio))
        return {
            "video": target_sha256(self._source_root, video),
            "audio": audio.source_sha256,
            "frames": self._listing.frames(pair),
            "crf": LOSSLESS_CRF,
        }

    def make(self, pair: Pair) -> bool:
        """Make the files of a pair; False if they are there.

        Raises:
            MediaError, ClipError, FileNotFoundError: They cannot be made.
        """
        video, record = self._listing.headers[pair.video], self.record(pair)
        if self._sources[self._stem(video.source)] > 1:
            raise MediaError(f"{self.name(pair)}: several videos have this name. Expected one. Rename the others")
        inputs = self.inputs(pair)
        if record.read(inputs) is not None:
            return False
        if inputs["video"] != video.source_sha256:
            raise MediaError(
                f"{video.source} is another video than the one that clip {video.id} was prepared from. Expected the "
                "same. Run: bench prepare again"
            )
        record.remove()
        frames = self._listing.frames(pair)
        write_video(self._source_root / video.source, frames, record.files[0])
        write_audio(pair.audio, frames, record.files[1])
        record.write(inputs)
        return True

    def lines(self) -> list[dict[str, object]]:
        """A line of pairs.csv for each pair that is there, whichever run made it."""
        out = []
        for pair in self._listing.everything:
            record, frames, name = self.record(pair), self._listing.frames(pair), self.name(pair)
            facts = record.read(self.inputs(pair)) if record.path.is_file() else None
            if facts is not None:
                values = (f"video/{name}.mp4", f"audio/{name}.wav", f"{name}.mp4", frames, frames / FPS)
                out.append(dict(zip(_COLUMNS, (*values, *self._listing.ids(pair), *facts["sha256"]), strict=True)))
        return out


def _write_csv(path: Path, columns: tuple[str, ...], lines: Sequence[Mapping[str, object]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([quoted(str(line[name])) for name in columns] for line in lines)
    write_atomic(path, text.getvalue())


def _begin(out: Path, identity: Mapping[str, object], alone: bool) -> None:
    """Refuse a folder that holds the pairs of another export."""
    path = out / "export.json"
    if path.is_file():
        found = read_json(path, "the facts of an export", "Choose another folder with --out")
        if found != identity:
            raise ValueError(f"{out} holds the pairs of {found}. Expected {identity}. Choose another folder with --out")
    else:
        write_atomic(path, json.dumps(identity, indent=1, ensure_ascii=False) + "\n")
    if alone:  # other processes may be writing
        remove_leftovers(out)


def export(
    dataset: str,
    out: Path,
    *,
    root: Path | None = None,
    rules: Rules = Rules(),
    select: Selection = Selection(),
    splitting: Splitting = Splitting(),
    progress: bool = True,
) -> ExportReport:
    """Write the pairs of a data set under a protocol as files; those that are there and unchanged stay.

    Args:
        dataset: As for `evaluate_dataset`, and so `rules` and `select`.
        out: Folder for the files.
        root: Folder of prepared clips, instead of the benchmark's.
        rules: How clips are drawn and paired.
        select: A part of the pairs; the rest can follow later in the same folder.
        splitting: Which part of these is written by this process; the last one leaves pairs.csv with all of them.
        progress: Show a progress bar.

    Raises:
        FileNotFoundError: A benchmark, protocol or data folder is missing.
        ValueError: The folder holds another export; or a name is not known.
    """
    if select.only:
        raise ValueError(f"--only {','.join(select.only)}: an export has no methods. Expected --clips or --limit")
    if splitting.on_ray:
        raise ValueError(f"--executor {splitting.executor}: an export is split by slices alone. Set --slice I/N")
    part = splitting.part()
    protocol = load_protocol(rules.protocol or PAIRED_FACE_BOX)
    benchmark = load_benchmark(dataset, root, None, rules.split)
    listing = list_pairs(benchmark, protocol, rules, select)
    source_root = benchmark.data.source_root
    identity = {"dataset": benchmark.name, "split": benchmark.split, "protocol": protocol.key}
    _begin(out, {**identity, "rules": rules_sha256(protocol, benchmark.name)}, alone=part.count == 1)
    work = _Export(listing, source_root, out)
    done = skipped = 0
    failed: dict[tuple[str, str], str] = {}
    with progress_bar(progress) as bar:
        for pair in bar.track(part.of(listing.chosen), description="export"):
            try:
                made = work.make(pair)
                done, skipped = done + made, skipped + (not made)
            except (MediaError, ClipError, FileNotFoundError) as error:
                failed[listing.ids(pair)] = str(error)
                _log.warning("%s with the audio of %s failed: %s", *listing.ids(pair), error)
    _write_csv(out / "pairs.csv", _COLUMNS, work.lines())
    reasons = [{"clip": clip, "audio_clip": audio, "reason": text} for (clip, audio), text in failed.items()]
    failures = "failures.csv" if part.count == 1 else f"failures.{part.suffix}.csv"
    _write_csv(out / failures, ("clip", "audio_clip", "reason"), reasons)
    facts = {**identity, "protocol_name": rules.protocol or PAIRED_FACE_BOX, "fps": FPS, "crf": LOSSLESS_CRF}
    write_atomic(out / "README.txt", _README.format(**facts))
    return ExportReport(done, skipped, failed)
