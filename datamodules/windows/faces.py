# SPDX-License-Identifier: Apache-2.0
"""Whether clips have the faces that a recipe asks for."""

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePath

from lipsync_bench.datamodules.clips.clip import ClipHeader, read_header
from lipsync_bench.datamodules.clips.track import Track, track_path
from lipsync_bench.datamodules.errors import ClipError
from lipsync_bench.datamodules.files.texts import few
from lipsync_bench.datamodules.recipes.options import RecipeOptions
from lipsync_bench.datamodules.recipes.recipe import Recipe, crop_rule
from lipsync_bench.datamodules.windows.dataset import in_threads

__all__ = ["check_faces", "method_words"]


def method_words(module: object) -> str:
    """What a user types behind `bench prepare --for` to have a module's faces: the name of its experiment, else of its
    class, and the changes of its recipe.
    """
    name = PurePath(getattr(module, "experiment", "")).stem or getattr(module, "method", "") or type(module).__name__
    changes = getattr(module, "recipe_changes", None)
    return f"{name} {changes.words()}".strip() if isinstance(changes, RecipeOptions) else name


def check_faces(clips: Sequence[Path], recipe: Recipe, method: str, own_crops: bool) -> None:
    """Refuse clips that lack the faces of a recipe.

    Args:
        clips: clip files of a prepared folder.
        recipe: of the method.
        method: as `method_words` gives it.
        own_crops: whether the clips' own crops are to be used, whatever their size; else the track of the recipe.

    Raises:
        FileNotFoundError: some lack them, or have them of another preparation of the clip.
        ClipError: a file is broken.
    """
    height, width = recipe.size_hw
    wanted = recipe.fed_crop.text() if own_crops else f"{recipe.fed_crop.text()} {width}x{height}"

    def lacking(path: Path) -> str | None:
        """What there is in the place of the faces; None if nothing is wrong."""
        header = read_header(path)
        if own_crops:
            rule = header.detector if header.crop_rule == "detector" else header.crop_rule
            return None if rule == wanted else rule
        with suppress(FileNotFoundError), Track(track_path(path, recipe.track_digest), "file") as track:
            return None if track.header.belongs_to(header) else f"{wanted} of another preparation"
        return _tracks(path, header)

    found = {path: text for path, text in zip(clips, in_threads(lacking, clips), strict=True) if text is not None}
    if found:
        root = clips[0].parent.parent
        first = next(iter(found))
        raise FileNotFoundError(
            f"{len(found)} of {len(clips)} clips in {root} have no faces {wanted}, as {method.partition(' ')[0]} sees "
            f"them: {few([path.relative_to(root) for path in found])}. The first has {found[first]}. Expected a track "
            f"beside every clip. Run: bench prepare --source DIR --out {root} --for {method}; "
            "overlays of the training that change the faces stand behind its name, as in NAME+OVERLAY"
        )


def _tracks(path: Path, header: ClipHeader) -> str:
    """The tracks beside a clip, in a few words."""
    texts = []
    for file in sorted(path.parent.iterdir()):
        if file.suffix == ".track" and file == track_path(path, file.suffixes[-2].strip(".")):
            with suppress(ClipError), Track(file, "file") as track:
                rule = crop_rule(json.loads(track.header.track)["crop"])
                texts.append(f"{rule.text()} {track.header.width}x{track.header.height}")
    return ", ".join(texts) or f"no track, only its own crops ({header.crop_rule})"
