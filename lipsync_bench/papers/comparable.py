# SPDX-License-Identifier: Apache-2.0
"""When a number of ours may be compared with a paper's: not with other clips, crops, pairs or metric networks.

The facts are in the protocols' YAML and in small tables here. A protocol that names a paper follows that paper; the
verdict still says if the paper leaves something open.
"""

import re
from contextlib import suppress
from dataclasses import dataclass

from lipsync_bench.datamodules.files.texts import read_yaml
from lipsync_bench.datamodules.weights.registry import is_official, official_file
from lipsync_bench.evaluation.task.protocol import Protocol, list_protocols, load_protocol
from lipsync_bench.experiment_files import experiment_file, installed_experiments
from lipsync_bench.papers.printed.paper_metrics import PAPER_METRICS, PaperMetric
from lipsync_bench.papers.printed.paper_table import PaperRow, PaperTable
from lipsync_bench.papers.scores import Verdict

__all__ = ["UNRELEASED", "Measured", "comparability", "known_protocol", "name_in_papers"]

# `Protocol.reference` in the terms of the papers' tables; without one it is the method's, see `Measured.fed`.
_REFERENCES = {"first": "first frame", "same": "each frame's own", "elsewhere": "of videos made elsewhere"}

# Splits that are not the official test list, by paper and data set: before the comma of `ClipDataModule.split_name`.
_SPLITS = {("g4g", "lrs2"): "test of g4g"}

# Data sets that their authors did not release: ours are never on the same clips.
UNRELEASED = frozenset({"custom", "youtubehq"})


@dataclass(frozen=True)
class Measured:
    """How a number of ours was measured.

    Args:
        dataset: Our name of the data set; empty if not known.
        in_papers: The papers' name of the data set.
        split: The split; empty if not known.
        clips: Clips that were tried.
        scored: Clips in the mean; for FID, clips whose frames are in it.
        key: Name and version of the protocol.
        protocol: The result of `known_protocol` for that key.
        network_sha256: SHA-256 of the metric network's weights; empty for a formula.
        boxes: The detector that cut the faces, as the manifest has it; empty if not known.
        fed: What is different from how the method was published to be fed; empty for nothing.
    """

    dataset: str
    in_papers: str
    split: str
    clips: int
    scored: int
    key: str
    protocol: Protocol | None
    network_sha256: str
    boxes: str = ""
    fed: str = ""


def name_in_papers(benchmark: str) -> str:
    """What the papers call one of our benchmarks: what its YAML says in `in_papers`, else the same.

    A YAML of the working folder that does not say it leaves it to the installation's.
    """
    installed = installed_experiments() / "benchmarks" / f"{benchmark}.yaml"
    for path in (experiment_file("benchmarks", benchmark), installed):
        with suppress(FileNotFoundError, ValueError):  # who loads it says what is wrong with it
            node = read_yaml(path or installed, "a benchmark", "See experiments/benchmarks/")
            if isinstance(node, dict) and node.get("in_papers"):
                return str(node["in_papers"])
    return benchmark


def known_protocol(key: str) -> Protocol | None:
    """The protocol of that name and version; None if experiments/protocols/ does not have that version."""
    name = key.rpartition("-v")[0]
    protocol = load_protocol(name) if name in list_protocols() else None
    return protocol if protocol is not None and protocol.key == key else None


def _clips(table: PaperTable, row: PaperRow, ours: Measured) -> str:
    theirs = table.clips or row.dataset
    if ours.in_papers != row.dataset or row.dataset in UNRELEASED:
        return f"other clips (ours: {ours.clips} of {ours.dataset or 'an unnamed set'}; the paper's: {theirs})"
    own = ours.split.partition(",")[0]
    wanted = _SPLITS.get((table.paper.key, row.dataset), "test")
    unsure = row.dataset in table.split_not_stated
    if own != wanted and not (unsure and own == "val"):
        paper = f"val or {wanted}" if unsure else wanted
        return f"other clips (ours: the split {ours.split or 'not known'}; the paper's: {paper})"
    if unsure:
        return (
            f"number of clips not stated for this table, nor whether of val or test (ours: {ours.clips}, {ours.split})"
        )
    count = table.clip_count.get(row.dataset)
    if count is None:
        return f"number of clips not stated for this table (ours: {ours.clips})"
    # Our count is in the cell; in this sentence it would make a different sentence for every row.
    return "" if ours.scored == count else f"another number of clips in the mean (the paper's: {count})"


def _pairs(table: PaperTable, metric: str, protocol: Protocol) -> str:
    theirs = table.protocol.pairing.get(metric, "not stated")
    return "" if theirs == protocol.pairing else f"other pairs (ours: {protocol.pairing}; the paper's: {theirs})"


def _frames(table: PaperTable, protocol: Protocol) -> list[str]:
    crop = table.protocol.crop or "not stated"
    reasons = [] if crop == protocol.cut else [f"other crop (ours: {protocol.cut}; the paper's: {crop})"]
    reference, ours = table.protocol.reference or "not stated", _REFERENCES.get(protocol.reference)
    if ours is not None and reference != ours:
        reasons.append(f"reference frame (ours: {ours}; the paper's: {reference})")
    return reasons


def _network(facts: PaperMetric, ours: Measured) -> str:
    file = official_file(facts.weights)
    if is_official(facts.weights, ours.network_sha256):
        return ""
    return f"metric network weights (ours: {ours.network_sha256[:12] or 'not stated'}; not those of {file.file})"


def _detector(protocol: Protocol, ours: Measured) -> str:
    found = re.search(r"sha256 ([0-9a-f]{64})", ours.boxes)
    if protocol.boxes != "s3fd" or (found and is_official("s3fd", found[1])):
        return ""
    whose = f"ours: {found[1][:12]}" if found else "ours: not stated"
    return f"detector weights ({whose}; not those of {official_file('s3fd').file})"


def comparability(table: PaperTable, row: PaperRow, metric: str, ours: Measured) -> Verdict:
    """Whether a number of ours may be compared with the paper's, and a sentence that says why.

    Args:
        table: The paper's table.
        row: A row of the table.
        metric: One of its metrics that is computed, not rated by people.
        ours: How our number was measured.
    """
    facts = PAPER_METRICS[metric]
    reasons = [_clips(table, row, ours)]
    if ours.protocol is None:
        reasons.append(f"another protocol ({ours.key}, which is not the paper's)")
    else:
        reasons.append(_pairs(table, metric, ours.protocol))
        reasons.append(_detector(ours.protocol, ours))
        if facts.kind == "frames" and ours.protocol.paper != table.paper.key:
            reasons += _frames(table, ours.protocol)
    if facts.network:
        reasons.append(_network(facts, ours))
    if ours.fed:
        reasons.append(f"the method was not fed as published ({ours.fed})")
    reasons = [reason for reason in reasons if reason]
    if reasons:
        return Verdict(False, f"Not to be compared: {', '.join(reasons)}.")
    open_points = ", as far as the paper states how it measured" if facts.unstated else ""
    return Verdict(True, f"May be compared{open_points}: same data set, number of clips and protocol.")
