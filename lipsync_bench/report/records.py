# SPDX-License-Identifier: Apache-2.0
"""Failures, the manifest, and the commands that repeat a run."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lipsync_bench.report.contents import Results
from lipsync_bench.results.rows import ENTRY

SAVE_VIDEOS = "--save-videos"

__all__ = ["FailureGroup", "failures", "named_values", "repeat_command", "save_videos_command", "unprepared"]


@dataclass(frozen=True)
class FailureGroup:
    """Failures with the same kind of reason.

    Args:
        place: Protocol and method, or "target" for targets that were not prepared.
        reason: The reason of the first.
        same: All have exactly this reason; otherwise they differ in numbers or names.
        cases: Name, address of the clip's page (empty if it has none) and reason of each.
    """

    place: str
    reason: str
    same: bool
    cases: Sequence[tuple[str, str, str]]


def _kind(reason: str, name: str) -> str:
    """A reason without numbers and names, which differ from clip to clip."""
    return re.sub(r"\d+", "#", reason.replace(name, "#") if name else reason)


def _groups(found: Sequence[tuple[str, str, str, str]]) -> list[FailureGroup]:
    """Groups of failures, given as place, name, address and reason; the largest group first."""
    grouped: dict[tuple[str, str], list[tuple[str, str, str]]] = {}
    for place, name, address, reason in found:
        grouped.setdefault((place, _kind(reason, name)), []).append((name, address, reason))
    out = []
    for (place, _), items in grouped.items():
        reasons = {reason for _, _, reason in items}
        out.append(FailureGroup(place, items[0][2] or "no reason was stated", len(reasons) == 1, items))
    return sorted(out, key=lambda group: (-len(group.cases), group.place, group.reason))


def failures(results: Results) -> list[FailureGroup]:
    """Rows that failed, by protocol, method and reason."""
    rows = results.rows[results.rows["status"] != "ok"]
    several = len(results.protocols) > 1
    found = []
    for row in rows.to_dict("records"):
        entry = results.entries[tuple(row[name] for name in ENTRY)]
        place = f"{entry.label}, {entry.protocol}" if several else entry.label
        found.append((place, row["clip"], f"clips/{results.clips[row['clip']]}.html", row["reason"]))
    return _groups(found)


def unprepared(results: Results) -> list[FailureGroup]:
    """Targets that could not be prepared, by reason."""
    return _groups([("target", item.video, "", item.reason) for item in results.unprepared])


def named_values(node: object, prefix: str = "") -> list[tuple[str, str]]:
    """A part of the manifest as names and values, in order; names of nested keys are joined by dots."""
    if isinstance(node, Mapping):
        return [
            line for key, item in node.items() for line in named_values(item, f"{prefix}.{key}" if prefix else str(key))
        ]
    if isinstance(node, Sequence) and not isinstance(node, str):
        return [(prefix, ", ".join(map(str, node)) or "none")]
    return [(prefix, "none" if node is None or node == "" else str(node))]


def repeat_command(session: Mapping[str, Any]) -> str:
    """A session's command, quoted for a shell."""
    return shlex.join(map(str, session.get("command", ())))


def save_videos_command(manifest: Mapping[str, Any] | None) -> str:
    """The command that makes the results again with videos."""
    sessions = (manifest or {}).get("sessions") or [{}]
    command = list(map(str, sessions[-1].get("command", ())))
    if "evaluate" not in command:
        return f"bench evaluate ... {SAVE_VIDEOS}"
    return shlex.join([*command, SAVE_VIDEOS])
