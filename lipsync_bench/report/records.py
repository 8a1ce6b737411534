# SPDX-License-Identifier: Apache-2.0
"""What went wrong, and what was done: failures and the manifest."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lipsync_bench.report.contents import Results

SAVE_VIDEOS = "--save-videos"

__all__ = ["FailureGroup", "failures", "flat", "repeat_command", "save_videos_command", "unprepared"]


@dataclass(frozen=True)
class FailureGroup:
    """Failures of one reason.

    Args:
        place: Protocol and method, or that the target was not prepared.
        reason: Of the first.
        same: All have exactly this reason; else they differ in numbers or names.
        cases: Name, address of the clip's page (empty if it has none) and reason of each.
    """

    place: str
    reason: str
    same: bool
    cases: Sequence[tuple[str, str, str]]


def _kind(reason: str, name: str) -> str:
    """A reason without what differs from clip to clip."""
    return re.sub(r"\d+", "#", reason.replace(name, "#") if name else reason)


def _groups(found: Sequence[tuple[str, str, str, str]]) -> list[FailureGroup]:
    """From place, name, address and reason; the largest group first."""
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
        line = results.lines[row["protocol"], row["method"], row["generator_sha256"], row["paste"]]
        place = f"{line.label}, {line.protocol}" if several else line.label
        found.append((place, row["clip"], f"clips/{results.clips[row['clip']]}.html", row["reason"]))
    return _groups(found)


def unprepared(results: Results) -> list[FailureGroup]:
    """Targets of which no clip could be made, by reason."""
    return _groups([("target", item.video, "", item.reason) for item in results.unprepared])


def flat(node: object, prefix: str = "") -> list[tuple[str, str]]:
    """A tree of the manifest as lines of name and value, in order; names of branches are joined by dots."""
    if isinstance(node, Mapping):
        return [line for key, item in node.items() for line in flat(item, f"{prefix}.{key}" if prefix else str(key))]
    if isinstance(node, Sequence) and not isinstance(node, str):
        return [(prefix, ", ".join(map(str, node)) or "none")]
    return [(prefix, "none" if node is None or node == "" else str(node))]


def repeat_command(session: Mapping[str, Any]) -> str:
    """A session's command as a shell takes it."""
    return shlex.join(map(str, session.get("command", ())))


def save_videos_command(manifest: Mapping[str, Any] | None) -> str:
    """The command that makes the results again with videos."""
    sessions = (manifest or {}).get("sessions") or [{}]
    command = list(map(str, sessions[-1].get("command", ())))
    if "evaluate" not in command:
        return f"bench evaluate ... {SAVE_VIDEOS}"
    return shlex.join([*command, SAVE_VIDEOS])
