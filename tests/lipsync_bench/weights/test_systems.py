# SPDX-License-Identifier: Apache-2.0
"""Methods that a YAML puts together of several checkpoints: read, identified, evaluated, dubbed."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from lipsync_bench.datamodules.clips.clip import Clip
from lipsync_bench.datamodules.clips.coefficients import Coefficients, kept_coefficients
from lipsync_bench.datamodules.weights.store import Store
from lipsync_bench.evaluation import evaluate_dataset
from lipsync_bench.evaluation.options import Inputs, Selection
from lipsync_bench.experiment_files import experiment_names
from lipsync_bench.inference.dub import dub
from lipsync_bench.models.core.checkpoints import save_module
from lipsync_bench.models.videoretalking import session as sessions
from lipsync_bench.models.videoretalking.dnet.module import VideoReTalkingDNet
from lipsync_bench.models.videoretalking.enet.module import VideoReTalkingENet
from lipsync_bench.models.videoretalking.module import VideoReTalking
from lipsync_bench.weights.methods import file_here, load_any, method_file, weights_sha256
from lipsync_bench.weights.systems import read_system, system_file

SYSTEM = """# {about}
class_path: lipsync_bench.models.VideoReTalking
init_args:
  enet: {folder}/enet.ckpt
  dnet: {folder}/dnet.ckpt
  coefficients: random
  {further}
"""


@dataclass
class Folder:
    """Where small checkpoints of both parts are."""

    path: Path

    def system(self, name: str = "mine", further: str = "one_shot: false", about: str = "") -> Path:
        path = self.path / f"{name}.yaml"
        path.write_text(SYSTEM.format(folder=self.path, further=further, about=about))
        return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    path = tmp_path_factory.mktemp("parts")
    torch.manual_seed(0)
    small = {"image_size": 64, "width": 0.03125, "lnet_width": 0.125, "lnet_blocks": 1, "adversarial_weight": 0.0}
    save_module(VideoReTalkingENet(**small, recipe={"crop": "mesh"}), path / "enet.ckpt")  # type: ignore[arg-type]
    save_module(VideoReTalkingDNet(image_size=64, width=0.125), path / "dnet.ckpt")
    return Folder(path)


def test_a_system_has_the_networks_of_its_parts(folder: Folder, tmp_path: Path) -> None:
    module = load_any("mine", folder.system(further="share: 0.5"), "cpu", Store())
    assert isinstance(module, VideoReTalking)
    assert (module.share, module.training, module.dnet.training) == (0.5, False, False)
    assert module.recipe.text() == "mesh 64x64 / stabilised / constant / parser_pyramid"
    assert "landmarks" in module.recipe.needs()
    alone = load_any("enet", folder.path / "enet.ckpt", "cpu", Store())
    torch.testing.assert_close(module.generator.state_dict(), alone.generator.state_dict(), rtol=0, atol=0)
    save_module(module, tmp_path / "whole.ckpt")  # one file that holds all of it
    whole = load_any("mine", tmp_path / "whole.ckpt", "cpu", Store())
    assert isinstance(whole, VideoReTalking)
    torch.testing.assert_close(whole.checkpoint_state(), module.checkpoint_state(), rtol=0, atol=0)
    assert (whole.share, whole.recipe) == (0.5, module.recipe)


def test_the_hash_is_that_of_what_frames_depend_on(folder: Folder, tmp_path: Path) -> None:
    store = Store()
    own = weights_sha256(folder.system(), store)
    assert own == weights_sha256(folder.system("other", about="Another comment"), store)
    face = tmp_path / "face.png"
    face.write_bytes(b"a")
    digests = [weights_sha256(folder.system(further=f"template: {face}"), store)]
    face.write_bytes(b"b")
    digests += [weights_sha256(folder.system(further=text), store) for text in (f"template: {face}", "share: 0.2")]
    dnet = folder.path / "dnet.ckpt"
    before = dnet.read_bytes()
    try:
        dnet.write_bytes(before + b"\0")
        digests.append(weights_sha256(folder.system(), store))
    finally:
        dnet.write_bytes(before)
    assert len({own, *digests}) == 5


def test_names_of_systems_mean_those_of_the_package(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.path)
    for name in experiment_names("systems"):
        path = method_file("any", name, Store())
        assert path == system_file(f"experiments/systems/{name}.yaml") == system_file(f"systems/{name}")
        system = read_system(path)
        assert system.kind is VideoReTalking
        assert file_here("any", name, Store()) is None  # nothing is trained in this folder
    assert method_file("videoretalking", "official", Store()) == system_file("videoretalking_official")
    with pytest.raises(FileNotFoundError, match="bench weights fetch videoretalking_"):
        load_any("videoretalking", method_file("videoretalking", "official", Store()), "cpu", Store())
    shares = [read_system(method_file("", f"videoretalking_smile_{x}", Store())).options["share"] for x in ("00", "10")]
    assert shares == [0, 1]
    assert file_here("mine", folder.system(), Store()) == folder.system()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[1, 2]", "a list"),
        ("class_path: os.system\ninit_args: {enet: a}", "no system"),
        ("class_path: lipsync_bench.models.Wav2Lip\ninit_args: {}", "no system"),
        ("class_path: lipsync_bench.models.VideoReTalking\nmore: 1", "no system"),
        ("class_path: lipsync_bench.models.VideoReTalking\ninit_args: {enet: a}", "each a checkpoint"),
        ("class_path: lipsync_bench.models.VideoReTalking\ninit_args: {enet: 1, dnet: a}", "each a checkpoint"),
        ("class_path: lipsync_bench.models.VideoReTalking\ninit_args: {enet: a, dnet: b}", "no enet at a"),
    ],
)
def test_other_files_are_refused_by_name(text: str, found: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=f"mine.yaml: .*{found}"):
        load_any("mine", path, "cpu", Store())


def test_wrong_options_are_refused_by_name(folder: Folder) -> None:
    for further in ("share: 2", "unknown: 1"):
        with pytest.raises(ValueError, match=r"wrong.yaml: .*Correct init_args"):
            load_any("mine", folder.system("wrong", further), "cpu", Store())


def test_it_is_evaluated_dubbed_and_named_in_rows(
    corpus: Path, folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def rows(network: object, faces: np.ndarray, points: np.ndarray) -> np.ndarray:
        made.append(len(faces))
        return np.random.default_rng(0).uniform(0.5, 1.5, (len(faces), 262)).astype(np.float32)

    monkeypatch.setattr(sessions, "regressed", rows)
    system = folder.system(further="one_shot: true")
    clips = shutil.copytree(corpus / "clips", tmp_path / "clips")
    found = evaluate_dataset(
        *("synthetic", tmp_path / "out"),
        inputs=Inputs(clips, {"whole": system}),
        select=Selection(limit=1, only=("whole",)),
        progress=False,
    ).rows.set_index("method")
    (file,) = clips.rglob("*.coefficients")
    with Coefficients(file) as kept:
        assert len(kept) == sum(made)
    whole = found.loc["whole"]
    assert (whole["status"], whole["generator_weights"]) == ("ok", "unofficial")
    assert whole["recipe_text"] == "mesh 64x64 / stabilised / constant / parser_pyramid"
    assert whole["paste"] == "contour laplacian"
    assert "paste: contour" in whole["published"]
    steps = "neutral template (the mean face in its place), restored references, face parsing, restored mouth"
    assert whole["steps_left_out"] == steps
    assert whole["generator_sha256"] == weights_sha256(system, Store())
    video = min((corpus / "videos").rglob("*.mp4"))
    report = dub(system, video, video, tmp_path / "out.mp4", progress=False)
    assert report.left_out == tuple(steps.split(", "))
    assert f"without {steps}" in report.summary()


def test_damaged_coefficients_are_made_anew(corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = min((corpus / "clips").rglob("*.safetensors"))
    with Clip(Path(shutil.copy(source, tmp_path))) as clip:
        path, rows = clip.path.with_suffix(".source.coefficients"), np.ones((len(clip), 262), np.float32)
        path.write_bytes(b"damaged")
        assert kept_coefficients(clip, "one", lambda: rows) is rows
        assert "made anew" in caplog.text
        np.testing.assert_array_equal(kept_coefficients(clip, "one", lambda: 2 * rows), rows)
        assert kept_coefficients(clip, "other", lambda: 2 * rows)[0, 0] == 2
