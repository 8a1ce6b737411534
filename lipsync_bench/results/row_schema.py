# SPDX-License-Identifier: Apache-2.0
"""The JSON schema of a row of clips.csv, built from the fields of rows and the metrics' definitions.

`python -m lipsync_bench.results.row_schema` prints it. What a protocol leaves empty or demands is not in it.
"""

import json
import math
import sys
from typing import Any

from lipsync_bench.metrics.metric import Column
from lipsync_bench.metrics.registry import CLIP_COLUMNS, COUNTS, CURVES
from lipsync_bench.results.rows import FIELDS, SCORERS

_NUMBER = r"(nan|-?[0-9]+([.][0-9]+)?(e[+-]?[0-9]+)?)"
_SHIFTS = 31
_REFERENCES = {
    "target": "compared with the same frame of the real video",
    "audio": "compared with the audio",
    "none": "of the prediction alone",
}
_DIRECTIONS = {True: "higher is better", False: "lower is better", None: "no better side"}

__all__ = ["row_schema"]


def _text(description: str, **rules: object) -> dict[str, object]:
    return {"type": "string", "minLength": 1, **rules, "description": description}


def _text_or_none(description: str, **rules: object) -> dict[str, object]:
    return {"type": ["string", "null"], "minLength": 1, **rules, "description": description}


def _sha256(description: str) -> dict[str, object]:
    return {"type": ["string", "null"], "pattern": "^[0-9a-f]{64}$", "description": description}


def _source(description: str) -> dict[str, object]:
    pattern = "^[0-9a-f]{64}([+][0-9a-f]{64})?$"
    return _text_or_none(f"{description}; + and another where its sound is a file of its own.", pattern=pattern)


def _count(description: str) -> dict[str, object]:
    return {"type": ["integer", "null"], "minimum": 0, "description": description}


def _seconds(description: str) -> dict[str, object]:
    return {"type": ["number", "null"], "minimum": 0, "description": description}


def _metric(column: Column) -> dict[str, object]:
    unit = f" in {column.unit}" if column.unit else ""
    direction, reference = _DIRECTIONS[column.higher_is_better], _REFERENCES[column.reference]
    about = f"{column.title}{unit}; {direction}; {reference}. Source: {column.source}."
    least, greatest = column.bounds
    rule: dict[str, object] = {"type": ["number", "null"], "minimum": least}
    if math.isfinite(greatest):
        return {**rule, "maximum": greatest, "description": about}
    if column.unit == "dB":  # the logarithm of no difference; other metrics without a greatest value stay finite
        return {"anyOf": [rule, {"const": "inf"}], "description": f"{about} inf: identical images."}
    return {**rule, "description": about}


def _properties() -> dict[str, dict[str, object]]:
    curve = f"^{_NUMBER}( {_NUMBER}){{{_SHIFTS - 1}}}$"
    shifts = f"at each shift of the sound from -{_SHIFTS // 2} to {_SHIFTS // 2} frames, {_SHIFTS} numbers with blanks"
    names = [name.removesuffix("_sha256") for name in SCORERS]
    return {
        "protocol": _text("Name and version of the protocol.", pattern="^[a-z0-9_]+-v[0-9]+$"),
        "method": _text("What was scored; ground_truth and repeated_frame are the floor and the trivial baseline."),
        "generator_sha256": _sha256("Of the method's weights; null where there are none."),
        "paste": _text_or_none("How faces came into the frames, such as box; null for whole videos."),
        "clip": _text("Identity of the clip, such as <speaker>/<name>."),
        "audio_clip": _text("Clip whose sound was used."),
        "prediction_sha256": _sha256(
            "Of the prediction's file; null where frames are made on the fly or there is none."
        ),
        "target_sha256": _source("Of the clip's video as it was when it was scored"),
        "audio_sha256": _source("Of the video that the sound is from"),
        "faces_sha256": _sha256("Of the settings and versions of all that found and cut the faces."),
        "speaker": _text_or_none("Who is seen; null if not known."),
        "status": {"enum": ["ok", "failed"], "description": "Whether the method made this clip and it was scored."},
        "reason": _text_or_none("Why it failed; null if it did not."),
        "frames": _count("Frames that were scored."),
        "frames_target": _count("Frames of the clip."),
        **{count.name: _count(count.about) for count in COUNTS},
        "boxless_frames": _count("Frames without the protocol's box in target or prediction, not compared."),
        "fallback_frames": _count("Frames made by the method's second choice."),
        "damaged_frames": _count(
            "Frames of target and prediction, and packets of the prediction's audio, that the decoder concealed or "
            "left out."
        ),
        **{column.name: _metric(column) for column in CLIP_COLUMNS},
        **{c.name: _text_or_none(f"{c.about} {shifts} between.", pattern=curve) for c in CURVES},
        "generate_seconds": _seconds("Time that the method took."),
        "seconds": _seconds("Time that the method and its scores took."),
        **{
            f"{name}_sha256": _sha256(f"Of the weights that judge: {name}; null where none were given.")
            for name in names
        },
        "package_version": _text("Of lipsync_bench.", pattern="^[0-9]+[.][0-9]+[.][0-9]+"),
    }


def row_schema() -> dict[str, Any]:
    """JSON Schema, draft 2020-12, of one row.

    Raises:
        KeyError: `FIELDS` has a field that nothing is written about here.
    """
    properties = _properties()
    some = {"type": "integer", "minimum": 1}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "One row of clips.csv",
        "description": "One method on one clip under one protocol. An empty cell of the CSV is null, an infinite value "
        'the text "inf"; text cells are strings whatever they look like.',
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
