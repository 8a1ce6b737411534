# SPDX-License-Identifier: Apache-2.0
"""Official weight files, saved as the official scripts save them, become our networks; bad files are named, not run."""

import hashlib
import logging
import os
import pickle
import tracemalloc
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lipsync_bench.datamodules.faces.s3fd import S3FD, load_s3fd
from lipsync_bench.datamodules.files.weights import is_state
from lipsync_bench.models import Wav2Lip, load_method
from lipsync_bench.models.core.checkpoints import RECORD, load_checkpoint, load_module, save_module
from lipsync_bench.models.hyperlips.base.network import HyperLipsBaseGenerator
from lipsync_bench.models.hyperlips.discriminators import BaseDiscriminator, HRDiscriminator
from lipsync_bench.models.hyperlips.hr.network import HRDecoder
from lipsync_bench.models.hyperlips.sync_expert import HyperLipsSyncExpert
from lipsync_bench.models.pretrained.arcface import ArcFace
from lipsync_bench.models.pretrained.face_coefficients import FaceCoefficients
from lipsync_bench.models.pretrained.face_parsing import FaceParser
from lipsync_bench.models.pretrained.ganimation import GANimation
from lipsync_bench.models.pretrained.parsenet import ParseNet
from lipsync_bench.models.pretrained.syncnet import SyncNetV2, load_syncnet
from lipsync_bench.models.videoretalking import VideoReTalkingENet, VideoReTalkingLNet
from lipsync_bench.models.videoretalking.dnet.network import DNet
from lipsync_bench.models.videoretalking.enet.network import ENet
from lipsync_bench.models.videoretalking.lnet.network import LNet
from lipsync_bench.models.wav2lip.network import QualityDiscriminator, Wav2LipGenerator
from lipsync_bench.models.wav2lip.sync_expert import SyncExpert, SyncExpertModule
from lipsync_bench.weights import KINDS, import_file, import_official
from tests import golden
from tests.commands import run_bench

NETWORKS = {
    "wav2lip": Wav2LipGenerator,
    "wav2lip_disc": QualityDiscriminator,
    "sync_expert": SyncExpert,
    "syncnet_v2": SyncNetV2,
    "s3fd": S3FD,
    "hyperlips_base": HyperLipsBaseGenerator,
    "hyperlips_base_disc": BaseDiscriminator,
    "hyperlips_hr": HRDecoder,
    "hyperlips_hr_disc": HRDiscriminator,
    "hyperlips_sync_expert": HyperLipsSyncExpert,
    "face_parsing": FaceParser,
    "videoretalking_lnet": LNet,
    "videoretalking_enet": ENet,
    "videoretalking_dnet": DNet,
    "deep3d_face": FaceCoefficients,
    "parsenet": ParseNet,
    "ganimation": GANimation,
    "arcface": ArcFace,
}
OWN = {
    name: NETWORKS[name] for name in ("deep3d_face", "parsenet", "ganimation", "arcface")
}  # names and shapes are stated nowhere else here
LARGE = "videoretalking_enet"  # 640 MB
KINDS_TRIED = [pytest.param(kind, marks=pytest.mark.slow) if kind == LARGE else kind for kind in NETWORKS]
FLAT = (
    "syncnet_v2",
    "s3fd",
    "face_parsing",
    "parsenet",
    "ganimation",
    "arcface",
)  # the others are saved by training scripts
GOLDEN = {"hyperlips_hr": "hyperlips_hr1", "face_parsing": "hyperlips_parsing"}  # where the name is another
State = dict[str, Tensor]


def shapes_of(kind: str) -> dict[str, list[int]]:
    """Official names and shapes; Deep3DFaceRecon's are torchvision's."""
    if kind not in OWN:
        return golden.names_and_shapes(GOLDEN.get(kind, kind))
    with torch.device("meta"):
        return {name: list(value.shape) for name, value in OWN[kind]().state_dict().items()}


def optimiser_state(state: State) -> dict[str, Any]:
    moments = {"step": 7, "exp_avg": torch.zeros(3), "exp_avg_sq": torch.zeros(3)}
    return {"state": {0: moments}, "param_groups": [{"lr": 1e-4, "betas": (0.9, 0.999), "params": [0]}]}


def trained(state: State, prefix: str = "module.") -> dict[str, Any]:
    if next(iter(state)).startswith("mapping_net."):  # D-Net's script saves three networks
        other = {name: value + 1 for name, value in state.items()}
        return {"net_G": other, "net_G_ema": state, "opt_G": optimiser_state(state), "current_iteration": 7}
    if next(iter(state)).startswith("backbone."):
        return {"net_recon": state, "opt_00": optimiser_state(state)}
    return {
        "state_dict": {f"{prefix}{name}": value for name, value in state.items()},
        "optimizer": optimiser_state(state),
        "global_step": 300_000,
        "global_epoch": 12,
    }


@pytest.fixture(scope="module")
def states() -> Callable[[str], State]:
    """State dict of a kind, with the official names and shapes."""
    known: dict[str, State] = {}

    def state(kind: str) -> State:
        if kind not in known:
            known[kind] = golden.filled(shapes_of(kind))
        return dict(known[kind])

    return state


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory, states: Callable[[str], State]) -> Callable[[str], Path]:
    """A file of a kind as its official scripts save it."""
    folder = tmp_path_factory.mktemp("official")

    def path(kind: str) -> Path:
        file = folder / f"{kind}.pth"
        if not file.is_file():
            torch.save(states(kind) if kind in FLAT else trained(states(kind)), file)
        return file

    return path


def same(network: nn.Module, state: State) -> bool:
    own = network.state_dict()
    return list(own) == list(state) and all(torch.equal(own[name], state[name]) for name in own)


def test_every_kind_has_its_test():
    assert set(KINDS) == set(NETWORKS)


@pytest.mark.parametrize("kind", KINDS_TRIED)
def test_an_official_file_imports(kind, official, states):
    network = import_official(kind, official(kind))
    assert type(network) is NETWORKS[kind]
    assert not any(part.training for part in network.modules())
    assert same(network, states(kind))


def test_official_forward_signatures(official):
    audio, images = torch.rand(1, 1, 80, 16), torch.rand(1, 15, 48, 96)
    with torch.no_grad():
        assert import_official("wav2lip", official("wav2lip"))(audio, torch.rand(1, 6, 96, 96)).shape == (1, 3, 96, 96)
        embeddings = import_official("sync_expert", official("sync_expert"))(audio, images)
        assert [tuple(x.shape) for x in embeddings] == [(1, 512), (1, 512)]
        assert import_official("wav2lip_disc", official("wav2lip_disc"))(torch.rand(1, 3, 1, 96, 96)).shape == (1, 1)
        maps = import_official("s3fd", official("s3fd"))(torch.rand(1, 3, 64, 64))
    assert [x.shape[1] for x in maps] == [2, 4] * 6


@pytest.mark.parametrize("layout", ["no prefix", "flat", "flat with prefix", "old", "legacy", "half"])
def test_other_layouts_import(layout, states, tmp_path):
    state = states("wav2lip_disc") if layout != "old" else states("sync_expert")
    content: dict[str, Any] = trained(state)
    if layout == "no prefix":
        content = trained(state, "")
        content["optimizer"] = None  # as the scripts save it when asked to
    elif layout == "flat":
        content = state
    elif layout == "flat with prefix":
        content = content["state_dict"]
    elif layout == "old":  # before batch norms counted
        content["state_dict"] = {
            name: value for name, value in content["state_dict"].items() if not name.endswith("num_batches_tracked")
        }
    elif layout == "half":
        content["state_dict"] = {name: value.half() for name, value in content["state_dict"].items()}
        state = {name: value.half().float() for name, value in state.items()}
    path = tmp_path / "file.pth"
    torch.save(content, path, _use_new_zipfile_serialization=layout != "legacy")
    assert same(import_official("sync_expert" if layout == "old" else "wav2lip_disc", path), state)


def small_e_net(monkeypatch: pytest.MonkeyPatch) -> ENet:
    """A network that the kind then makes in the place of the large one."""
    kind, lnet = KINDS["videoretalking_enet"], {"width": 0.125, "blocks": 1}
    sizes = {"width": 0.0625, "image_size": 64, "lnet_width": 0.125, "lnet_blocks": 1, "adversarial_weight": 0.0}

    def module(network: ENet, _: None) -> VideoReTalkingENet:
        made = VideoReTalkingENet(**sizes)
        made.generator = network
        return made

    small = replace(kind, build=lambda _: ENet(LNet(**lnet), 0.0625, 16), module=module)
    monkeypatch.setitem(KINDS, kind.name, small)
    return small.build({})


def test_an_e_net_s_file_may_leave_its_l_net_to_another_file(monkeypatch, tmp_path, caplog):
    whole = small_e_net(monkeypatch).state_dict()
    own = {name: value for name, value in whole.items() if not name.startswith("low_res.")}
    torch.save(trained(whole), tmp_path / "whole.pth")
    assert same(import_official("videoretalking_enet", tmp_path / "whole.pth"), whole)
    torch.save(trained(own), tmp_path / "ENet.pth")
    network = import_official("videoretalking_enet", tmp_path / "ENet.pth")
    assert not network.training
    assert "has no weights of the part low_res, which gives NaN until it is replaced" in caplog.text
    assert all(torch.equal(network.state_dict()[name], value) for name, value in own.items())
    assert all(value.isnan().all() for value in network.low_res.parameters())
    lnet = VideoReTalkingLNet(width=0.125, blocks=1)
    network.low_res.load_state_dict(lnet.generator.state_dict())
    assert same(network.low_res, lnet.generator.state_dict())
    missing = "low_res.encoder.first_inp.model.0.bias"
    torch.save(trained({name: value for name, value in whole.items() if name != missing}), tmp_path / "part.pth")
    with pytest.raises(ValueError, match=rf"Missing: {missing}\. Unknown: none"):
        import_official("videoretalking_enet", tmp_path / "part.pth")
    # As a method: whole by itself, without L-Net together with one.
    assert run_bench("import", "videoretalking_enet", tmp_path / "whole.pth", "--out", tmp_path / "whole.ckpt") == 0
    assert same(load_method(tmp_path / "whole.ckpt").generator, whole)
    assert run_bench("import", "videoretalking_enet", tmp_path / "ENet.pth", "--out", tmp_path / "enet.ckpt") == 1
    assert "Expected the checkpoint of its first stage" in caplog.text
    save_module(lnet, tmp_path / "lnet.ckpt")
    base = ("--base", tmp_path / "lnet.ckpt", "--out", tmp_path / "enet.ckpt")
    assert run_bench("import", "videoretalking_enet", tmp_path / "ENet.pth", *base) == 0
    method = load_method(tmp_path / "enet.ckpt")
    assert isinstance(method, VideoReTalkingENet)
    assert same(method.generator.low_res, lnet.generator.state_dict())
    assert all(torch.equal(method.generator.state_dict()[name], value) for name, value in own.items())


def test_a_d_net_is_the_averaged_one(states, tmp_path):
    torch.save({"net_G": states("videoretalking_dnet")}, tmp_path / "DNet.pt")
    with pytest.raises(
        ValueError, match=r"entry 'net_G' is a dict\. Expected tensors alone, or .* net_G_ema: DNet\.pt"
    ):
        import_official("videoretalking_dnet", tmp_path / "DNet.pt")


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("how", ["scripted", "traced", "inside DataParallel"])
def test_a_torchscript_archive_imports(how, states, tmp_path):
    network = SyncExpert()
    network.load_state_dict(states("sync_expert"))
    network.eval()
    inputs = torch.rand(1, 1, 80, 16), torch.rand(1, 15, 48, 96)
    if how == "scripted":
        archive = torch.jit.script(network)
    elif how == "traced":
        archive = torch.jit.trace(network, inputs)
    else:
        archive = torch.jit.trace(_Parallel(network), inputs)
    archive.save(str(tmp_path / "file.pt"))
    imported = import_official("sync_expert", tmp_path / "file.pt")
    state = imported.state_dict()
    assert all(torch.equal(state[name], value) for name, value in states("sync_expert").items())


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
def test_every_reader_takes_a_torchscript_archive(states, tmp_path):
    network = SyncNetV2()
    network.load_state_dict(states("syncnet_v2"))
    torch.jit.script(nn.Sequential(*network.children())).save(str(tmp_path / "other.pt"))
    with pytest.raises(ValueError, match=r"other\.pt: does not fit\. Missing: netcnnaud\.0\.weight, .* and \d+ more"):
        load_syncnet(tmp_path / "other.pt")
    network.register_buffer("wide", torch.zeros(1).expand(1 << 40))
    torch.jit.script(network).save(str(tmp_path / "wide.pt"))
    with pytest.raises(ValueError, match=r"wide\.pt: does not fit\. Missing: none\. Unknown: wide\."):
        load_syncnet(tmp_path / "wide.pt")
    with pytest.raises(ValueError, match=r"wide\.pt: entry 'wide' is a Tensor"):
        import_official("syncnet_v2", tmp_path / "wide.pt")


class _Parallel(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, audio: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
        return self.module(audio, faces)


# What goes wrong


def save_changed(states: Callable[[str], State], kind: str, path: Path, change: Callable[[State], None]) -> Path:
    state = states(kind)
    change(state)
    torch.save(trained(state) if kind not in FLAT else state, path)
    return path


@pytest.mark.parametrize("kind", KINDS_TRIED)
def test_wrong_names_and_shapes_are_listed(kind, states, tmp_path):
    first, *_, last = [name for name in states(kind) if name.endswith(".bias")]

    def change(state: State) -> None:
        state["renamed.bias"] = state.pop(first)
        state[last] = torch.zeros(3, 2)

    path = save_changed(states, kind, tmp_path / "wrong.pth", change)
    with pytest.raises(ValueError) as raised:
        import_official(kind, path)
    text = str(raised.value)
    assert f"{path}: is not a {kind}" in text
    assert f"Missing: {first}." in text
    assert "Unknown: renamed.bias." in text
    assert f"{last} (3, 2) instead of {tuple(states(kind)[last].shape)}" in text
    assert KINDS[kind].documented in text


@pytest.mark.parametrize("kind", KINDS_TRIED)
def test_truncated_files_are_named(kind, official, tmp_path):
    path = tmp_path / "short.pth"
    whole = official(kind).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        ValueError, match=rf"short\.pth: cannot be read as a weight file .*{len(whole) // 2} bytes: trunc"
    ):
        import_official(kind, path)


@pytest.mark.parametrize("content", [b"", b"404: not found", b"\x80\x02", b"PK\x03\x04", bytes(range(64, 128))])
def test_files_of_another_sort_are_named(content, tmp_path):
    (tmp_path / "page.pth").write_bytes(content)
    with pytest.raises(ValueError, match=r"page\.pth: cannot be read as a weight file.*Download it again"):
        import_official("s3fd", tmp_path / "page.pth")


def test_a_truncated_legacy_file_is_named(states, tmp_path):
    path = tmp_path / "short.pth"
    torch.save(states("syncnet_v2"), path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match=r"short\.pth: cannot be read as a weight file"):
        import_official("syncnet_v2", path)


class _Malicious:
    """Unpickling it writes a file."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.proof}",)


@pytest.mark.parametrize("form", ["torch.save", "legacy", "pickle", "TorchScript"])
@pytest.mark.parametrize("kind", KINDS_TRIED)
def test_code_in_a_file_is_named_and_not_run(kind, form, states, tmp_path):
    proof, path = tmp_path / "proof", tmp_path / "evil.pth"
    content = {"state_dict": {"x.weight": torch.zeros(2)}, "optimizer": _Malicious(proof)}
    if form == "pickle":
        path.write_bytes(pickle.dumps(_Malicious(proof)))
    elif form == "TorchScript":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a/constants.pkl", pickle.dumps(()))
            archive.writestr("a/data.pkl", pickle.dumps(_Malicious(proof), protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "torch.save")
    with pytest.raises(ValueError, match=r"evil\.pth: asks for (posix|nt|os)\.system, .* nothing of it was run"):
        import_official(kind, path)
    assert not proof.exists()


def test_code_in_a_file_is_named_by_every_reader(states, tmp_path):
    torch.save({**states("syncnet_v2"), "evil": _Malicious(tmp_path / "proof")}, tmp_path / "evil.pth")
    for read in (load_syncnet, load_checkpoint):
        with pytest.raises(ValueError, match=r"evil\.pth: asks for (posix|nt|os)\.system, .* nothing of it was run"):
            read(tmp_path / "evil.pth")


def test_a_number_in_a_pickle_asks_for_no_memory(tmp_path):
    path = tmp_path / "memo.pth"
    path.write_bytes(b"\x80\x02K\x01r\xff\xff\xff\x01.")  # the value 1 goes to place 33 million of a list
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"memo\.pth: cannot be read as a weight file"):
        import_official("s3fd", path)
    assert tracemalloc.get_traced_memory()[1] < 50_000_000
    tracemalloc.stop()


def test_the_malicious_pickle_is_a_real_one(tmp_path):
    pickle.loads(pickle.dumps(_Malicious(tmp_path / "proof")))
    assert (tmp_path / "proof").exists()


def test_other_content_is_named(states, tmp_path):
    path = tmp_path / "file.pth"

    def message(content: Any) -> str:
        torch.save(content, path)
        with pytest.raises(ValueError, match=r"file\.pth: ") as raised:
            import_official("wav2lip_disc", path)
        return str(raised.value)

    assert "holds a list. Expected a dictionary" in message([1, 2])
    assert "its entry state_dict is a int" in message({"state_dict": 3})
    assert "entry 'global_step' is a int" in message({"global_step": 3})
    state = states("wav2lip_disc")
    name = next(iter(state))
    assert f"two entries are called {name}" in message({**state, f"module.{name}": state[name]})
    assert f"NaN or infinity in {name}." in message({**state, name: torch.full_like(state[name], np.nan)})


def test_unknown_kinds_and_missing_files(tmp_path):
    with pytest.raises(
        ValueError, match=r"kind 'wav2lips'\. Expected one of .*s3fd, .*wav2lip, .*bench import KIND FILE"
    ):
        import_official("wav2lips", tmp_path / "x.pth")
    with pytest.raises(FileNotFoundError, match=r"x\.pth: no such file\. Expected .*s3fd.*face-alignment"):
        import_official("s3fd", tmp_path / "x.pth")


# The command


@pytest.fixture(scope="module")
def imported(official, tmp_path_factory) -> Callable[[str], Path]:
    """A checkpoint written by the command."""
    folder = tmp_path_factory.mktemp("imported")

    def path(kind: str) -> Path:
        file = folder / f"{kind}.ckpt"
        if not file.is_file():
            assert run_bench("import", kind, official(kind), "--out", file) == 0
        return file

    return path


def test_the_command_tells_sha256_and_source(official, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    source = official("wav2lip_disc")
    assert run_bench("import", "wav2lip_disc", source, "--out", tmp_path / "a" / "disc.pth") == 0
    assert hashlib.sha256(source.read_bytes()).hexdigest() in caplog.text
    assert "documented at github.com/Rudrabha/Wav2Lip" in caplog.text
    assert "non-commercial" in caplog.text
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["disc.pth"]


def test_a_generator_becomes_a_method(imported, official, states):
    origin = load_checkpoint(imported("wav2lip"))[RECORD]["origin"]
    source = official("wav2lip")
    assert origin == {
        "kind": "wav2lip",
        "file": source.name,
        "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
    }
    method = load_method(imported("wav2lip"))
    assert isinstance(method, Wav2Lip)
    assert not method.training
    assert method.discriminator is None
    assert same(method.generator, states("wav2lip"))


def test_a_generator_with_its_discriminator(official, states, tmp_path):
    out = tmp_path / "gan.ckpt"
    assert run_bench("import", "wav2lip", official("wav2lip"), "--out", out, "--disc", official("wav2lip_disc")) == 0
    method = load_method(out)
    assert same(method.generator, states("wav2lip"))
    assert method.discriminator is not None
    assert same(method.discriminator, states("wav2lip_disc"))


@pytest.mark.slow
def test_an_l_net_becomes_a_method(imported, official, states):
    method = load_method(imported("videoretalking_lnet"))
    assert isinstance(method, VideoReTalkingLNet)
    assert not method.training
    assert same(method.generator, states("videoretalking_lnet"))
    with pytest.raises(ValueError, match=r"Leave out --disc"):
        import_file("videoretalking_lnet", official("videoretalking_lnet"), Path("out"), official("wav2lip_disc"))


def test_an_expert_becomes_the_expert_of_a_training(imported, states):
    assert same(load_module(imported("sync_expert"), [SyncExpertModule]).network, states("sync_expert"))
    method = Wav2Lip(width=0.125, sync_expert=str(imported("sync_expert")))
    method.setup("fit")
    assert method.sync_expert is not None
    assert same(method.sync_expert, states("sync_expert"))


def test_the_others_are_read_by_their_loaders_and_again_by_import(imported, states):
    assert same(load_syncnet(imported("syncnet_v2")), states("syncnet_v2"))
    assert same(load_s3fd(imported("s3fd")), states("s3fd"))
    for kind in ("wav2lip_disc", "syncnet_v2", "s3fd"):
        assert same(import_official(kind, imported(kind)), states(kind))


def test_the_command_ends_with_1_and_leaves_nothing(official, tmp_path, caplog):
    out = tmp_path / "out.ckpt"
    assert run_bench("import", "sync_expert", official("wav2lip_disc"), "--out", out) == 1
    assert "is not a sync_expert" in caplog.text
    assert run_bench("import", "s3fd", official("s3fd"), "--out", out, "--disc", official("wav2lip_disc")) == 1
    assert "Leave out --disc" in caplog.text
    assert not out.exists()
    before = official("s3fd").read_bytes()
    assert run_bench("import", "s3fd", official("s3fd"), "--out", official("s3fd")) == 1
    assert "is the official file itself" in caplog.text
    assert official("s3fd").read_bytes() == before
    assert run_bench("import", "s3fd", official("s3fd")) == 2


def test_a_tensor_whose_strides_stand_for_more_than_the_file_holds_is_no_state():
    assert is_state({"weight": torch.zeros(4, 4)})
    assert not is_state({"weight": torch.zeros(1).expand(1 << 40)})
