# SPDX-License-Identifier: Apache-2.0
"""Whether clips have what a method's crop rule reads, told before anything is scored."""

from collections.abc import Iterable
from pathlib import Path

from lipsync_bench.datamodules.clips.boxes import boxes_path, in_clip
from lipsync_bench.datamodules.clips.clip import read_header
from lipsync_bench.datamodules.errors import ClipError
from lipsync_bench.datamodules.faces.crop_rules.rule import CropRule

__all__ = ["refuse_without_boxes"]


def _lacks(clip: Path, detector: str) -> bool:
    try:
        return not (in_clip(read_header(clip), detector) or boxes_path(clip, detector).is_file())
    except ClipError:
        return False  # a failed row of every method


def refuse_without_boxes(rule: CropRule, clips: Iterable[Path]) -> None:
    """Refuse clips without the boxes of the detector that a crop rule cuts faces by.

    Raises:
        FileNotFoundError: Some have none; says how to add them, and which rule does without.
    """
    paths = list(clips)
    for detector in (need.removeprefix("boxes:") for need in sorted(rule.needs) if need.startswith("boxes:")):
        lacking = [clip for clip in paths if _lacks(clip, detector)]
        if lacking:
            raise FileNotFoundError(
                f"{len(lacking)} of {len(paths)} clips have no boxes of {detector}, by which faces are "
                f"cut ({rule.text()}); {lacking[0]} is one. Add them with: bench prepare --boxes {detector}; or cut "
                "faces by the Face Mesh, which the rows then say: --recipe.crop mesh"
            )
