# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from lipsync_bench.callbacks import ChannelsLast
from lipsync_bench.cli import demo
from lipsync_bench.cli.lightning import BenchCLI
from lipsync_bench.datamodules import Synthetic
from lipsync_bench.datamodules.media.video import probe, read_frames
from lipsync_bench.inference.preview import LABEL_PX, PICTURE_PX, write_preview
from lipsync_bench.models import SyncExpertModule, VideoReTalkingENet, Wav2Lip, list_methods
from lipsync_bench.models.core.checkpoints import save_module
from lipsync_bench.models.core.inputs import FaceInputs

SYNTHETIC = list((Path(__file__).parents[3] / "experiments" / "synthetic").glob("*.yaml"))


def test_a_demo_never_touches_a_folder_that_is_not_its_own(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="holds no demo"):
            demo._claim(tmp_path, 0, overwrite)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_demo_is_gone_on_with_under_the_same_seed_only(tmp_path):
    out = tmp_path / "demo"
    demo._claim(out, 3, overwrite=False)
    (out / "made").touch()
    demo._claim(out, 3, overwrite=False)
    assert (out / "made").exists()
    with pytest.raises(ValueError, match=r"another seed.*--overwrite"):
        demo._claim(out, 4, overwrite=False)
    demo._claim(out, 4, overwrite=True)
    assert not (out / "made").exists()
    assert json.loads((out / "demo.json").read_text()) == {"seed": 4}


def test_a_demo_trains_what_the_yamls_of_a_method_name():
    assert demo.trainings("wav2lip") == ["sync_expert", "wav2lip"]
    assert demo.trainings("hyperlips") == ["hyperlips_sync_expert", "hyperlips_base", "hyperlips_hr"]
    assert demo.trainings("hyperlips_base") == ["hyperlips_sync_expert", "hyperlips_base"]
    assert demo.trainings("lipformer") == ["sync_expert", "lipformer_codebook", "lipformer"]
    assert demo.trainings("videoretalking_lnet") == ["sync_expert", "videoretalking_lnet"]
    assert demo.trainings("videoretalking_enet") == ["sync_expert", "videoretalking_lnet_32", "videoretalking_enet"]
    with pytest.raises(ValueError, match=r"no demo of 'wav2'\. Expected one of dinet, .*wav2lip\. Set --method"):
        demo.trainings("wav2")


def test_a_variant_of_a_run_has_an_overlay_of_its_own():
    names = ["videoretalking_lnet", "synthetic/videoretalking_lnet", "synthetic/videoretalking_lnet_32"]
    assert demo._names("videoretalking_lnet_32") == names
    assert demo._arguments("videoretalking_lnet_32", "model")["image_size"] == 32
    assert demo._arguments("videoretalking_lnet_32", "model")["width"] == 0.25


@pytest.mark.parametrize("method", sorted({name.partition("_")[0] for name in list_methods()}))
def test_every_stage_of_a_demo_has_its_two_files_and_data_that_it_finds(method, tmp_path, monkeypatch):
    """The command of each stage, as far as reading its configuration."""
    commands = []
    monkeypatch.setattr(demo.subprocess, "run", lambda command, **_: commands.append(command))
    runs = demo.trainings(method)
    for name in runs:
        (tmp_path / "runs" / name).mkdir(parents=True)
        demo._fit(tmp_path, name, seed=3)
        assert (tmp_path / "runs" / name / "done").is_file()
    assert len(commands) == len(runs)
    for command in commands:
        cli = BenchCLI([*command[4:], "--trainer.logger=false", f"--trainer.default_root_dir={tmp_path}"], run=False)
        data = cli.datamodule
        clips = data if isinstance(data, Synthetic) else data.clips
        assert clips.root == Path("clips")
        assert data.seed == 3


def test_the_shift_table_has_every_held_out_clip_at_every_shift(corpus, tmp_path):
    torch.manual_seed(0)
    save_module(SyncExpertModule(width=0.125, recipe={"crop": "mesh"}), tmp_path / "expert.ckpt")
    clips = Synthetic(root=corpus / "clips").clips("test")
    table = demo._shift_table(tmp_path / "expert.ckpt", clips)
    assert len(table) == len(clips) * len(demo.SHIFTS_FRAMES)
    for _, found in table.groupby("clip"):  # moving the sound moves what is found, whatever the network has learnt
        assert found["found_frames"].nunique() > 1
    loss = demo._expert_loss(tmp_path / "expert.ckpt", corpus / "clips", seed=0)
    assert 0.3 < loss < 3


def test_the_preview_shows_the_columns_side_by_side_with_sound(tmp_path):
    red, blue = (np.full((40, 60, 3), colour, np.uint8) for colour in ((200, 0, 0), (0, 0, 200)))
    count = write_preview(tmp_path / "p.mp4", {"a": [red] * 30, "b": [blue] * 25}, np.zeros(16000, np.int16))
    assert count == 25
    info = probe(tmp_path / "p.mp4")
    assert (info.width, info.height, info.has_audio) == (2 * PICTURE_PX, PICTURE_PX + LABEL_PX, True)
    frame = next(read_frames(tmp_path / "p.mp4"))
    assert frame[LABEL_PX + PICTURE_PX // 2, PICTURE_PX // 2].argmax() == 0
    assert frame[LABEL_PX + PICTURE_PX // 2, 3 * PICTURE_PX // 2].argmax() == 2


def test_channels_last_computes_the_same():
    torch.manual_seed(0)
    module = Wav2Lip(width=0.125).eval()
    mels, faces = torch.rand(2, 1, 80, 16), torch.rand(2, 3, 96, 96)
    before = module.generate(FaceInputs.of(mels, faces, faces.flip(0))).frames
    ChannelsLast().on_fit_start(None, module)
    assert (
        module.generator.face_encoder_blocks[1][0].conv_block[0].weight.is_contiguous(memory_format=torch.channels_last)
    )
    torch.testing.assert_close(
        module.generate(FaceInputs.of(mels, faces, faces.flip(0))).frames, before, atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("run", sorted(path.stem for path in SYNTHETIC))
def test_every_run_of_the_demo_keeps_the_best_of_its_validations(run, capsys):
    """Its published numbers are of these checkpoints."""
    files = [word for file in demo._files(run) for word in ("-c", str(file))]
    stages = [
        f"--model.init_args.{name}=x.ckpt" for name, x in demo._arguments(run, "model").items() if "run:" in str(x)
    ]
    with pytest.raises(SystemExit):
        BenchCLI(["fit", *files, *stages, "--print_config"])
    (saver,) = [
        c for c in yaml.safe_load(capsys.readouterr().out)["trainer"]["callbacks"] if "Checkpoint" in c["class_path"]
    ]
    assert saver["init_args"]["filename"] == "best"
    assert saver["init_args"]["monitor"].startswith("val/")
    assert (saver["init_args"]["save_top_k"], saver["init_args"]["enable_version_counter"]) == (1, False)


def test_a_demo_ranks_the_best_checkpoint_or_the_last(tmp_path):
    run = tmp_path / "runs" / "mine"
    run.mkdir(parents=True)
    assert demo._weights(tmp_path, "mine") == run / "last.ckpt"
    (run / "best.ckpt").touch()
    assert demo._weights(tmp_path, "mine") == run / "best.ckpt"


def test_channels_last_leaves_weights_of_five_dimensions():
    module: Any = VideoReTalkingENet(image_size=64, width=0.03125, lnet_width=0.125, lnet_blocks=1)
    before = [weight.clone() for weight in module.parameters()]
    ChannelsLast().on_fit_start(None, module)
    assert {weight.dim() for weight in module.parameters()} >= {4, 5}
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))
