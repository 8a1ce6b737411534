# SPDX-License-Identifier: Apache-2.0
"""The tables of VideoReTalking and G4G from trained runs to printed rows, on an imitation of HDTF.

Every network is trained for two steps at a small width; the networks of others have made-up weights. The protocols are
the package's, but that VideoReTalking's wants clips of 20 seconds: LIPSYNC_REHEARSAL_SECONDS=20 makes such. Face tracks
of SyncNet's script have 100 frames or more, so that 5 seconds are the least.

`make rehearsal_tables` runs it, which takes too long for continuous integration.
"""

import csv
import io
import math
import os
import shutil
from itertools import product
from typing import ClassVar

import pytest

from tests.rehearsal.test_rehearsal import STEPS, Rehearsal, pytestmark
from tests.rehearsal.trees import make_hdtf, make_lrs2
from tests.rehearsal.weights import make_backbones, make_expression, make_faces_everywhere, make_weights

__all__ = ["pytestmark"]

SECONDS = int(os.environ.get("LIPSYNC_REHEARSAL_SECONDS", "5"))
SMILES = [f"videoretalking_smile_{share}" for share in ("00", "02", "04", "06", "08", "10")]
OURS = {
    "videoretalking-1": ["wav2lip", "wav2lip_gan", "videoretalking"],
    "videoretalking-3": [
        "videoretalking_lnet_no_cross_attention", "videoretalking_lnet", "videoretalking_l_e", "videoretalking",
    ],
    "videoretalking-4": SMILES,
    "g4g-1": ["wav2lip", "videoretalking", "dinet", "g4g"],
    "g4g-2": ["g4g_no_alignment", "g4g_no_supervision", "g4g_no_fusion", "g4g"],
}  # fmt: skip
"""Methods of each table that are here, by the name of their rows."""
MEASURED = {"videoretalking": ("cpbd", "lse_d", "lse_c"), "g4g": ("psnr", "ssim", "lpips", "mse", "lse_d", "lse_c")}
"""Columns that have a number. FID is not among them, which needs 2048 frames or more."""
NO_VGG = {"perceptual_weight": 0.0}
G4G = {"image_scale": 0.25, "init_from": "null", **NO_VGG}
TRAININGS: list[tuple[list[str], dict[str, object]]] = [
    (["sync_expert"], {}),
    (["wav2lip"], {}),
    (["wav2lip_gan"], {}),
    (["videoretalking_lnet"], {"blocks": 1, **NO_VGG}),
    (["videoretalking_enet"], {"lnet_blocks": 1, "lnet_width": 0.125, **NO_VGG}),
    (["g4g_sync_expert"], {}),
    (["g4g"], G4G),
    (["dinet"], G4G),
]
"""Runs on LRS2 and on HDTF, with what is small of each."""
ABLATIONS: list[tuple[list[str], dict[str, object]]] = [
    (["videoretalking_lnet", "videoretalking/no_cross_attention"], {"blocks": 1, **NO_VGG}),
    (["g4g_104"], {}),
    (["g4g_208"], NO_VGG),
    (["g4g_416"], NO_VGG),
    (["g4g"], {"image_scale": 0.25, **NO_VGG}),  # from the stage before, in place of the run without
    *((["g4g", f"g4g/{name}"], G4G) for name in ("no_alignment", "no_supervision", "no_fusion")),
]
"""Runs on HDTF alone: those of Tables 2 and 3, and G4G's stages, each from the one before."""


class Tables(Rehearsal):
    """The folder of the data sets, the runs and the results."""

    weights: ClassVar[dict[str, str]] = {
        "s3fd": "s3fd.pth", "sfd_face": "sfd_face.pth", "syncnet_v2": "syncnet_v2.model", "alexnet": "alexnet.pth",
        "deep3d_face": "deep3d_face.pth", "videoretalking_expression": "expression.mat",
    }  # fmt: skip
    """File of each network of others."""

    def given(self, *ids: str) -> list[str]:
        """The options that name these files; all without any."""
        return [word for id in ids or self.weights for word in ("--weights", f"{id}=weights/{self.weights[id]}")]

    def train(self, names: list[str], small: dict[str, object], overlay: str = "") -> None:
        """A run of two batches or four: `max_steps` counts the steps of both optimisers where there are two.

        Args:
            names: An experiment, and overlays of the method.
            small: Arguments that keep the network small.
            overlay: Of the data set, where it is not the experiment's.
        """
        more: dict[str, object] = {"trainer.max_steps": 2 * STEPS, "trainer.val_check_interval": STEPS}
        more |= {"trainer.limit_val_batches": 1, "trainer.num_sanity_val_steps": 0, "trainer.accelerator": "cpu"}
        more |= {"trainer.log_every_n_steps": 1, "trainer.enable_progress_bar": "false"}
        more |= {"data.init_args.batch_size": 2, "data.init_args.num_workers": 0, "data.init_args.val_length": 2}
        if names != ["videoretalking_dnet"]:  # of a folder of any clips
            more["data.init_args.check_counts"] = "warn"
            more |= {} if overlay else {"data.init_args.max_missing": 1}
        more |= {f"model.init_args.{name}": value for name, value in {"width": 0.125, **small}.items()}
        files = [names[0], *([f"overlays/{overlay}"] if overlay else []), *names[1:]]
        chosen = [word for file in files for word in ("-c", file)]
        self.run("lightning", "fit", *chosen, *(f"--{name}={value}" for name, value in more.items()))

    def table(self, id: str) -> list[dict[str, str]]:
        """The rows of a paper's table, run from what is there."""
        self.run("bench", "table", id, "--run", "--limit", "1", *self.given(), "--format", "csv", "--out", f"{id}.csv")
        return list(csv.DictReader(io.StringIO((self.folder / f"{id}.csv").read_text())))


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """The folder after preparation and training."""
    folder = tmp_path_factory.mktemp("tables")
    here = Tables(folder)
    make_lrs2(folder / "source" / "LRS2", folder / "made" / "lrs2")
    make_hdtf(folder / "source" / "HDTF", folder / "made" / "hdtf", SECONDS)
    make_weights(folder / "weights")
    make_faces_everywhere(folder / "weights")
    make_expression(folder / "weights")
    make_backbones(folder / "torch" / "hub" / "checkpoints")
    alexnet = folder / "torch" / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth"
    shutil.copyfile(alexnet, folder / "weights" / "alexnet.pth")
    here.allow_few_clips("lrs2", "hdtf")
    if SECONDS != 20:
        here.run("bench", "experiments", "copy", "protocols/videoretalking")
        path = folder / "experiments" / "protocols" / "videoretalking.yaml"
        text = path.read_text().replace("seconds: {hdtf: 20}", f"seconds: {{hdtf: {SECONDS}}}")
        path.write_text(text.replace("version: 2", "version: 902"))
    networks = "wav2lip,videoretalking_enet,videoretalking_lnet,g4g_104,g4g_208,g4g_416,g4g_sync_expert"
    for name, source in (("lrs2", "LRS2"), ("hdtf", "HDTF")):
        here.run(
            *("bench", "prepare", "--dataset", name, "--source", f"source/{source}", "--out", f"data/{name}"),
            *("--for", networks, "--workers", "2", *here.given("s3fd")),
        )
    here.run(
        *("bench", "prepare", "--dataset", "folder", "--source", "made/lrs2", "--out", "data/voxceleb"),
        *("--for", "videoretalking_dnet", "--workers", "2", *here.given("s3fd")),
    )
    here.run("bench", "coefficients", "--root", "data/voxceleb", *here.given("deep3d_face"))
    for names, small in TRAININGS:
        here.train(names, small)
    here.train(["videoretalking_dnet"], NO_VGG)
    for names, small in TRAININGS:
        if names != ["g4g"]:
            here.train(names, small, "hdtf")
    for names, small in ABLATIONS:
        here.train(names, small, "hdtf")
    return here


@pytest.mark.parametrize("id", OURS)
def test_a_table_is_run_without_a_hand(tables: Tables, id: str) -> None:
    rows = tables.table(id)
    datasets = {row["dataset"] for row in rows}
    assert datasets == ({"lrs2", "hdtf"} if id.endswith("-1") else {"hdtf"})
    wanted = {row["metric"] for row in rows} & {*MEASURED[id.partition("-")[0]]}
    assert wanted
    for dataset, method in product(datasets, OURS[id]):
        ours = [row for row in rows if (row["dataset"], row["method"]) == (dataset, method) and row["ours"]]
        assert wanted <= {row["metric"] for row in ours if math.isfinite(float(row["ours"]))}
