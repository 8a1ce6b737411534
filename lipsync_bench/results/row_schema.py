# SPDX-License-Identifier: Apache-2.0
"""The JSON schema of a row of clips.csv, built from the fields of rows and the metrics' definitions.

`python -m lipsync_bench.results.row_schema` prints it. It does not say which fields a protocol leaves empty. The rules
are written as they stand in the schema: a pydantic model would take as many lines, and has no `if`.
"""

import json
import math
import sys
from typing import Any

from lipsync_bench.metrics.metric import Column
from lipsync_bench.metrics.registry import CLIP_COLUMNS, COUNTS, CURVES
from lipsync_bench.results.rows import FIELDS, NETWORK_HASHES

_NUMBER = r"(nan|-?[0-9]+([.][0-9]+)?(e[+-]?[0-9]+)?)"
_SHIFTS = 31

__all__ = ["row_schema"]


def _text(description: str, **rules: object) -> dict[str, object]:
    return {"type": "string", "minLength": 1, **rules, "description": description}


def _text_or_none(description: str, **rules: object) -> dict[str, object]:
    return {"type": ["string", "null"], "minLength": 1, **rules, "description": description}


def _sha256(description: str) -> dict[str, object]:
    return {"type": ["string", "null"], "pattern": "^[0-9a-f]{64}$", "description": description}


def _source(description: str) -> dict[str, object]:
    pattern = "^[0-9a-f]{64}([+][0-9a-f]{64})?$"
    return _text_or_none(f"{description}; + and another one where the audio is a separate file.", pattern=pattern)


def _count(description: str) -> dict[str, object]:
    return {"type": ["integer", "null"], "minimum": 0, "description": description}


def _seconds(description: str) -> dict[str, object]:
    return {"type": ["number", "null"], "minimum": 0, "description": description}


def _metric(column: Column) -> dict[str, object]:
    unit = f" in {column.unit}" if column.unit else ""
    about = f"{column.title}{unit}. {column.meaning} Source: {column.source}."
    least, greatest = column.bounds
    rule: dict[str, object] = {"type": ["number", "null"], "minimum": least}
    if math.isfinite(greatest):
        return {**rule, "maximum": greatest, "description": about}
    if column.unit == "dB":  # infinite for identical images; other unbounded metrics stay finite
        return {"anyOf": [rule, {"const": "inf"}], "description": f"{about} inf: identical images."}
    return {**rule, "description": about}


def _properties() -> dict[str, dict[str, object]]:
    curve = f"^{_NUMBER}( {_NUMBER}){{{_SHIFTS - 1}}}$"
    shifts = f"at each shift of the audio from -{_SHIFTS // 2} to {_SHIFTS // 2} frames, {_SHIFTS} numbers with blanks"
    names = [name.removesuffix("_sha256") for name in NETWORK_HASHES]
    return {
        "protocol": _text("Name and version of the protocol.", pattern="^[a-z0-9_]+-v[0-9]+$"),
        "method": _text("What was scored; ground_truth is the reference entry, repeated_frame the trivial baseline."),
        "generator_sha256": _sha256("SHA-256 of the method's weights, or of its command and version; null without."),
        "paste": _text_or_none("How faces were pasted into the frames, such as box; null for whole videos."),
        "recipe": _text_or_none("Digest of the recipe by which the method was fed; null where the suite fed nothing."),
        "clip": _text("Id of the clip, such as <speaker>/<name>."),
        "audio_clip": _text("Id of the clip whose audio was used."),
        "prediction_sha256": _sha256(
            "SHA-256 of the prediction's file; null if frames are generated on the fly or there is no file."
        ),
        "target_sha256": _source("SHA-256 of the clip's video when it was scored"),
        "audio_sha256": _source("SHA-256 of the video that the audio is from"),
        "faces_sha256": _sha256("SHA-256 of all settings and versions that found and cut the faces."),
        "speaker": _text_or_none("The person in the video; null if not known."),
        "split": _text_or_none(
            "The part of the data set that the clip is drawn from; null in rows of earlier versions."
        ),
        "status": {"enum": ["ok", "failed"], "description": "Whether the clip was generated and scored."},
        "reason": _text_or_none("Why it failed; null if it did not."),
        "frames": _count("Frames that were scored."),
        "frames_target": _count("Frames of the clip."),
        **{count.name: _count(count.about) for count in COUNTS},
        "boxless_frames": _count("Frames not compared: target or prediction has no box of the protocol."),
        "fallback_frames": _count("Frames made by the method's fallback (HyperLips-HR without a detected face)."),
        "passed_through_frames": _count("Frames without a visible face, which were left as they are."),
        "unenhanced_frames": _count("Dubbed frames that the recipe's enhancement left as they were: no face found."),
        "damaged_frames": _count(
            "Frames of target and prediction, and packets of the prediction's audio, that the decoder concealed or "
            "left out."
        ),
        **{column.name: _metric(column) for column in CLIP_COLUMNS},
        **{c.name: _text_or_none(f"{c.about} {shifts} between.", pattern=curve) for c in CURVES},
        "generate_seconds": _seconds("Time that the method took."),
        "seconds": _seconds("Time that the method and its scores took."),
        "command_seconds": _seconds("Time that the command of another repository took; null without a command."),
        **{
            f"{name}_sha256": _sha256(f"SHA-256 of the metric network's weights: {name}; null without them.")
            for name in names
        },
        "recipe_text": _text_or_none("How the method was fed: crop, size, references, mel padding, paste."),
        "published": _text_or_none(
            "Whether it was fed as published: yes, or no and what was different; null where the suite fed nothing."
        ),
        "trained_otherwise": _text_or_none("What differs from how its checkpoint was trained; null for nothing."),
        "steps_left_out": _text_or_none("Published steps that were left out, for want of their weights."),
        "method_version": _text_or_none("Version of the method that a command ran, as the benchmark states it."),
        "generator_weights": {
            "enum": ["official", "unofficial", None],
            "description": "Whose the method's weights are: those of an official file by its hash, or others; null "
            "without weights, and in rows of earlier versions.",
        },
        "package_version": _text("Version of lipsync_bench.", pattern="^[0-9]+[.][0-9]+[.][0-9]+"),
    }


def row_schema() -> dict[str, Any]:
    """JSON Schema, draft 2020-12, of one row.

    Raises:
        KeyError: `FIELDS` has a field that is not described here.
    """
    properties = _properties()
    some = {"type": "integer", "minimum": 1}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "One row of clips.csv",
        "description": "One method on one clip under one protocol. An empty cell of the CSV is null, an infinite value "
        'the text "inf"; text cells are strings even if they look like numbers.',
        "type": "object",
        "additionalProperties": False,
        "required": list(FIELDS),
        "properties": {name: properties[name] for name in FIELDS},
        "if": {"properties": {"status": {"const": "failed"}}},
        "then": {"properties": {"reason": {"type": "string"}}},
        "else": {"properties": {"reason": {"type": "null"}, "frames": some, "frames_target": some}},
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(row_schema(), indent=2, ensure_ascii=False, allow_nan=False) + "\n")
