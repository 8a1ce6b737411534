# SPDX-License-Identifier: Apache-2.0
"""Recipes: to files and back, what identifies them, and what replaces their parts."""

import dataclasses
import json
from typing import Any

import pytest

from lipsync_bench.datamodules.faces.crop_rules.atvg import ATVGSquare
from lipsync_bench.datamodules.faces.crop_rules.boxes import DetectorBox, FaceMeshBox
from lipsync_bench.datamodules.faces.crop_rules.ffhq import FFHQQuad
from lipsync_bench.datamodules.faces.crop_rules.rule import CropRule
from lipsync_bench.datamodules.recipes.options import RecipeOptions
from lipsync_bench.datamodules.recipes.recipe import _LATER, Recipe, References, crop_rule
from lipsync_bench.datamodules.recipes.values import Paste

PUBLISHED = Recipe(
    DetectorBox("s3fd", (0, 10, 0, 0), 5),
    (96, 96),
    training_crop=DetectorBox("s3fd"),
    references=References("same"),
)
ALIGNED = Recipe(FFHQQuad(), (512, 512), paste="quad")
RULES: list[CropRule] = [
    FaceMeshBox(),
    FaceMeshBox((0, 10, -3, 0)),
    DetectorBox(),
    DetectorBox("dlib", (0, 20, 0, 0), 5),
    FFHQQuad(),
    FFHQQuad(0),
    ATVGSquare(),
]


def recipe(rule: CropRule, **values: Any) -> Recipe:
    paste: Paste = "quad" if isinstance(rule, FFHQQuad) else "box"
    return Recipe(rule, **{"size_hw": (64, 48), "paste": paste, **values})


# To files and back


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.text())
def test_a_recipe_comes_back_from_a_file(rule: CropRule) -> None:
    for written in (
        recipe(rule),
        recipe(rule, training_crop=FaceMeshBox(), references=References("random", 5, 3), mel_padding="constant"),
        recipe(rule, training_crop=rule, resize="area", inputs=("landmark_image", "coefficients")),
    ):
        read = Recipe.of(json.loads(json.dumps(written.plain())))
        assert read == written
        assert (read.key(), read.digest, read.track_key()) == (written.key(), written.digest, written.track_key())
        assert hash(read) == hash(written)


def test_texts_and_digests_of_rules_differ() -> None:
    recipes = [recipe(rule) for rule in RULES]
    for what in (lambda r: r.crop.text(), lambda r: r.digest, lambda r: r.track_digest):
        assert len({what(one) for one in recipes}) == len(RULES)


def test_digests_stay_from_version_to_version() -> None:
    """They stand in tracks, checkpoints and rows: another value here means that none of these are found again."""
    assert (PUBLISHED.digest, PUBLISHED.track_digest) == ("a99ca24e2f98", "e02fad70cb4a")
    assert (ALIGNED.digest, ALIGNED.track_digest) == ("24a29dbc5772", "4f7796dcb79e")
    assert (recipe(FaceMeshBox()).digest, recipe(ATVGSquare()).digest) == ("e812cc8bf7c4", "bba13c0cc3fd")


def test_recipes_that_cut_training_data_alike_share_a_track() -> None:
    same = dataclasses.replace(
        PUBLISHED, crop=FaceMeshBox(), references=References(), mel_padding="constant", paste="feather"
    )
    assert same.digest != PUBLISHED.digest
    assert same.track_digest == PUBLISHED.track_digest
    assert PUBLISHED.resized((128, 128)).track_digest != PUBLISHED.track_digest
    assert recipe(DetectorBox()).track_digest == recipe(FaceMeshBox(), training_crop=DetectorBox()).track_digest


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("crop", None),
        ("crop", "mesh"),
        ("crop", {"rule": "tight"}),
        ("crop", {"rule": "mesh", "smoothing": 5}),
        ("crop", {"rule": "ffhq", "smoothing": 4}),
        ("training_crop", {}),
        ("references", None),
        ("references", {"kind": "last"}),
        ("references", {"kind": "first", "count": 2}),
        ("references", {"frames": 2}),
        ("size_hw", 96),
        ("size_hw", [96]),
        ("size_hw", [96.5, 96]),
        ("size_hw", [0, 96]),
        ("mel_padding", "edge"),
        ("resize", "cubic"),
        ("paste", "glue"),
        ("paste", "quad"),
        ("enhance", "gpen"),
        ("enhance", None),
        ("inputs", None),
    ],
)
def test_a_file_with_other_values_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ValueError):  # one message for each
        Recipe.of({**PUBLISHED.plain(), field: value})


def test_fields_that_came_later_may_be_absent_and_change_no_digest() -> None:
    for name in _LATER:
        (default,) = (field.default for field in dataclasses.fields(Recipe) if field.name == name)
        read = Recipe.of(json.loads(PUBLISHED.key()))
        assert name not in PUBLISHED.plain()
        assert getattr(read, name) == default
        assert Recipe.of({**PUBLISHED.plain(), name: default}).digest == PUBLISHED.digest
    enhanced = dataclasses.replace(PUBLISHED, enhance="gfpgan")
    assert Recipe.of(json.loads(enhanced.key())) == enhanced
    assert enhanced.digest != PUBLISHED.digest
    assert enhanced.track_digest == PUBLISHED.track_digest


def test_missing_and_unknown_fields_are_refused() -> None:
    plain = PUBLISHED.plain()
    with pytest.raises(ValueError, match=r"a recipe has the fields .*colour.*Expected"):
        Recipe.of({**plain, "colour": "bgr"})
    del plain["paste"]
    with pytest.raises(ValueError, match="a recipe has the fields"):
        Recipe.of(plain)
    with pytest.raises(
        ValueError, match=r"crop rule .*an unknown rule\. Expected one of mesh, detector, ffhq, atvg, ffhq_rectangle"
    ):
        crop_rule({"rule": "tight"})


def test_quads_are_pasted_as_quads_and_nothing_else_is() -> None:
    with pytest.raises(ValueError, match=r"paste is box with the crop rule ffhq~5\. Expected quad.*--recipe\.paste"):
        Recipe(FFHQQuad(), (512, 512))
    with pytest.raises(ValueError, match="paste is quad with the crop rule atvg"):
        Recipe(ATVGSquare(), (128, 128), paste="quad")


# What rows say


def test_texts() -> None:
    assert PUBLISHED.text() == "s3fd+0,10,0,0~5 96x96 / same / reflect / box"
    assert ALIGNED.text() == "ffhq~5 512x512 / first / reflect / quad"
    other = recipe(ATVGSquare(), references=References("random", 5), mel_padding="constant", inputs=("landmark_image",))
    assert other.text() == "atvg 48x64 / random 5, seed 0 / constant / box / landmark_image"
    enhanced = RecipeOptions(enhance="gfpgan").applied(PUBLISHED)
    assert enhanced.text() == "s3fd+0,10,0,0~5 96x96 / same / reflect / box+gfpgan"
    assert enhanced.departures(PUBLISHED) == "enhance: gfpgan (published: none)"
    assert RecipeOptions(enhance="none").applied(enhanced) == PUBLISHED


def test_needs() -> None:
    assert PUBLISHED.needs() == {"boxes:s3fd"}
    assert ALIGNED.needs() == {"landmarks"}
    assert recipe(FaceMeshBox(), training_crop=ATVGSquare()).needs() == {"boxes:dlib"}
    assert recipe(FaceMeshBox()).needs() == frozenset()
    assert recipe(FaceMeshBox(), enhance="gfpgan").needs() == {"landmarks"}


def test_departures_name_each_change_once() -> None:
    assert PUBLISHED.departures(PUBLISHED) == ""
    mesh = RecipeOptions(crop="mesh").applied(PUBLISHED)
    assert mesh.departures(PUBLISHED) == "crop: mesh (published: s3fd+0,10,0,0~5)"
    boxes = RecipeOptions(crop="dlib").applied(PUBLISHED)
    assert boxes.departures(PUBLISHED) == (
        "crop: dlib+0,10,0,0~5 (published: s3fd+0,10,0,0~5); training_crop: dlib (published: s3fd)"
    )
    changed = RecipeOptions(references="first", mel_padding="constant").applied(PUBLISHED)
    assert changed.departures(PUBLISHED) == (
        "references: first (published: same); mel_padding: constant (published: reflect)"
    )
    assert PUBLISHED.resized((128, 96)).departures(PUBLISHED) == "size_hw: (128, 96) (published: (96, 96))"
    aligned = RecipeOptions(crop="mesh").applied(ALIGNED)
    assert aligned.departures(ALIGNED) == "crop: mesh (published: ffhq~5); paste: feather (published: quad)"


# Options


@pytest.mark.parametrize(
    ("name", "crop", "training"),
    [
        ("mesh", FaceMeshBox(), None),
        ("s3fd", PUBLISHED.crop, PUBLISHED.training_crop),
        ("mediapipe", DetectorBox("mediapipe", (0, 10, 0, 0), 5), DetectorBox("mediapipe")),
        ("dlib", DetectorBox("dlib", (0, 10, 0, 0), 5), DetectorBox("dlib")),
        ("ffhq", FFHQQuad(), None),
        ("atvg", ATVGSquare(), None),
    ],
)
def test_another_crop_rule_takes_the_place_of_both(name: Any, crop: CropRule, training: CropRule | None) -> None:
    applied = RecipeOptions(crop=name).applied(PUBLISHED)
    assert (applied.crop, applied.training_crop) == (crop, training)
    assert applied.paste == ("quad" if name == "ffhq" else "box")
    assert dataclasses.replace(applied, crop=PUBLISHED.crop, training_crop=PUBLISHED.training_crop, paste="box") == (
        PUBLISHED
    )
    own = RecipeOptions(crop=name).applied(recipe(crop, training_crop=training))
    assert (own.crop, own.training_crop) == (crop, training)  # a rule that is there already keeps its values


def test_options_that_are_not_given_change_nothing() -> None:
    assert not RecipeOptions()
    for published in (PUBLISHED, ALIGNED):
        assert RecipeOptions().applied(published) == published


def test_pads() -> None:
    options = RecipeOptions(pads=[0, -5, 3, 3])  # type: ignore[arg-type]  # as in YAML
    assert options
    assert options.applied(PUBLISHED).crop == DetectorBox("s3fd", (0, -5, 3, 3), 5)
    assert options.applied(PUBLISHED).training_crop == DetectorBox("s3fd")
    assert options.applied(recipe(FaceMeshBox())).crop == FaceMeshBox((0, -5, 3, 3))
    # A detector's boxes instead of the mesh keep the pads that were given to it.
    assert RecipeOptions(crop="dlib").applied(recipe(FaceMeshBox((1, 2, 3, 4)))).crop == DetectorBox(
        "dlib", (1, 2, 3, 4)
    )
    for rule in (FFHQQuad(), ATVGSquare()):
        with pytest.raises(ValueError, match=rf"pads with the crop rule {rule.text()}\. Expected.*--recipe\.crop"):
            options.applied(recipe(rule))


def test_smoothing() -> None:
    assert RecipeOptions(smooth=False).applied(PUBLISHED).crop == DetectorBox("s3fd", (0, 10, 0, 0))
    assert RecipeOptions(smooth=True).applied(recipe(DetectorBox("dlib"))).crop == DetectorBox("dlib", smoothing=5)
    assert RecipeOptions(smooth=False).applied(ALIGNED).crop == FFHQQuad(0)
    assert RecipeOptions(smooth=True).applied(recipe(FFHQQuad(0))).crop == FFHQQuad(5)
    for rule in (FaceMeshBox(), ATVGSquare()):
        with pytest.raises(ValueError, match=r"smooth is True with the crop rule .*Expected.*--recipe\.crop"):
            RecipeOptions(smooth=True).applied(recipe(rule))


def test_references_padding_and_paste() -> None:
    applied = RecipeOptions(references="first", mel_padding="constant", paste="feather").applied(PUBLISHED)
    assert applied == dataclasses.replace(PUBLISHED, references=References(), mel_padding="constant", paste="feather")
    assert RecipeOptions(references="first").applied(recipe(FaceMeshBox(), references=References("random", 5))) == (
        recipe(FaceMeshBox())
    )
    with pytest.raises(ValueError, match="paste is box with the crop rule ffhq"):
        RecipeOptions(crop="ffhq", paste="box").applied(PUBLISHED)


@pytest.mark.parametrize(
    "values",
    [{"crop": "box"}, {"references": "last"}, {"mel_padding": "edge"}, {"paste": "glue"}, {"enhance": "gpen"}],
    ids=str,
)
def test_unknown_names_are_refused_with_the_option(values: dict[str, Any]) -> None:
    (name,) = values
    with pytest.raises(ValueError, match=rf"Expected .* or .*--recipe\.{name.replace('_', '-')}"):
        RecipeOptions(**values)


@pytest.mark.parametrize(("kind", "count"), [("last", 1), ("first", 2), ("same", 3), ("random", 0)])
def test_references_that_nothing_can_draw_are_refused(kind: Any, count: int) -> None:
    with pytest.raises(ValueError, match=r"references are .*Expected.*--recipe\.references"):
        References(kind, count)
