# SPDX-License-Identifier: Apache-2.0
"""The contract of every metric: class and function, batches, ranks, pickles, clones, bad inputs, examples."""

import doctest
import importlib
import math
import multiprocessing
import pickle
import pkgutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torchmetrics

from lipsync_bench import metrics
from lipsync_bench.datamodules.weights.registry import official_file
from lipsync_bench.metrics import registry
from lipsync_bench.metrics.face.jitter import Jitter, jitter
from lipsync_bench.metrics.face.lmd import LMD, lmd
from lipsync_bench.metrics.frame_mean import FrameMean
from lipsync_bench.metrics.image.cpbd import CPBD, cpbd
from lipsync_bench.metrics.image.fid import FID, fid
from lipsync_bench.metrics.image.inception import FILE as INCEPTION
from lipsync_bench.metrics.image.inception import InceptionFeatures
from lipsync_bench.metrics.image.lpips import LPIPS, TRUNKS, LPIPSNetwork, lpips
from lipsync_bench.metrics.image.mse import MSE, mse
from lipsync_bench.metrics.image.psnr import PSNR, psnr
from lipsync_bench.metrics.image.psnr_uint8 import PSNRUint8, psnr_uint8
from lipsync_bench.metrics.image.ssim import SSIM, ssim
from lipsync_bench.metrics.registry import COLUMNS, METRICS, NETWORKS, column
from lipsync_bench.metrics.sync.expert import ExpertSync
from lipsync_bench.metrics.sync.lse import LSE, score_clip
from lipsync_bench.models.wav2lip.sync_expert import SyncExpert
from tests.metrics.contract import Case, by_function
from tests.quick_networks import QuickSyncNet

BATCHES = 4
REPOSITORY = Path(__file__).parents[2]


class TinyExpert(SyncExpert):
    """A linear network, because it is fast."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, audio: torch.Tensor, faces: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        sides = audio[:, 0, :4].mean(dim=2), faces[:, :4].mean(dim=(2, 3))
        return tuple(torch.nn.functional.normalize(self.scale * side) for side in sides)


class TinyLPIPS(LPIPSNetwork):
    """A mean squared difference, because it is fast."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)
        self.net, self.weights, self.min_px = "alex", "test", 1
        self.scale = torch.nn.Parameter(torch.ones(()), requires_grad=False)

    def forward(self, pred: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return self.scale * (pred - target).square().mean(dim=(1, 2, 3))


class TinyInception(InceptionFeatures):
    """Three means of each image as its features, because it is fast."""

    size = 3

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)
        self.weights = "test"

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.double()[:, :, ::2, 1::2].mean(dim=(2, 3)) / 255


class Frames:
    """The frames of one clip as a function, which can be pickled."""

    def __init__(self, seed: int, count: int = 40) -> None:
        self.frames = np.random.default_rng(seed).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)

    def __call__(self) -> np.ndarray:
        return self.frames


def image_batch(seed: int) -> tuple[Any, ...]:
    pred, target = torch.rand(2, seed + 1, 3, 24, 20, generator=torch.Generator().manual_seed(seed)) * 255
    return pred, target


def set_batch(seed: int) -> tuple[Any, ...]:
    random = torch.Generator().manual_seed(seed)
    return tuple(torch.rand(count, 3, 12, 10, generator=random) * 255 for count in (seed + 5, 7))


def edge_batch(seed: int) -> tuple[Any, ...]:
    return (torch.rand(seed + 1, 3, 64, 70, generator=torch.Generator().manual_seed(seed)) * 255,)


def clip_batch(seed: int) -> tuple[Any, ...]:
    return (torch.rand(seed + 3, 68, 2, generator=torch.Generator().manual_seed(seed)) * 100,)


def landmark_batch(seed: int) -> tuple[Any, ...]:
    pred, ref = torch.rand(2, seed + 1, 68, 2, generator=torch.Generator().manual_seed(seed)) * 100
    return pred, ref


def speech_batch(seed: int) -> tuple[Any, ...]:
    return Frames(seed), np.random.default_rng(seed).integers(-9000, 9000, 40 * 640, dtype=np.int16)


def mel_batch(seed: int) -> tuple[Any, ...]:
    random = torch.Generator().manual_seed(seed)
    return torch.rand(12, 3, 96, 96, generator=random), torch.rand(80, 40, generator=random)


def clip_means(values: list[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([value[name] for value in values])) for name in values[0]}


def lse_by_function(batches: list[tuple[Any, ...]]) -> dict[str, float]:
    scores = [score_clip(QuickSyncNet(), frames(), samples) for frames, samples in batches]
    return clip_means([{"lse_c": score.lse_c, "lse_d": score.lse_d} for score in scores])


def expert_by_function(batches: list[tuple[Any, ...]]) -> dict[str, float]:
    return clip_means([ExpertSync(TinyExpert(), "test").score(*batch) for batch in batches])


def fid_by_function(batches: list[tuple[Any, ...]]) -> float:
    pred, target = (torch.cat([TinyInception()(images) for images in side]) for side in zip(*batches, strict=True))
    return float(fid(pred, target))


CASES = {
    "psnr": Case(PSNR, image_batch, by_function(psnr), "psnr"),
    "ssim": Case(SSIM, image_batch, by_function(ssim), "ssim"),
    "mse": Case(MSE, image_batch, by_function(mse), "mse"),
    "psnr_uint8": Case(PSNRUint8, image_batch, by_function(psnr_uint8), "psnr_uint8"),
    "lpips": Case(
        lambda **options: LPIPS(TinyLPIPS(), **options),
        image_batch,
        by_function(lambda *batch: lpips(*batch, TinyLPIPS())),
        "lpips_alex",
    ),
    "fid": Case(lambda **options: FID(TinyInception(), min_frames=2, **options), set_batch, fid_by_function, "fid"),
    "cpbd": Case(CPBD, edge_batch, by_function(cpbd), "cpbd"),
    "jitter": Case(Jitter, clip_batch, by_function(jitter), "jitter", joined=False),
    "lmd_raw": Case(
        lambda **options: LMD(False, **options),
        landmark_batch,
        by_function(lambda *batch: lmd(*batch, centred=False)),
        "lmd",
    ),
    "lmd_centred": Case(
        lambda **options: LMD(True, **options),
        landmark_batch,
        by_function(lambda *batch: lmd(*batch, centred=True)),
        "lmd_centred",
    ),
    "lse": Case(
        lambda **options: LSE(QuickSyncNet(), "test", **options),
        speech_batch,
        lse_by_function,
        {"lse_c": "lse_c_wav2lip_lrs", "lse_d": "lse_d_wav2lip_lrs"},
        joined=False,
    ),
    "expert_sync": Case(
        lambda **options: ExpertSync(TinyExpert(), "test", **options),
        mel_batch,
        expert_by_function,
        {name: name for name in ("expert_cosine", "expert_confidence", "expert_offset_frames")},
        joined=False,
    ),
}
for path in sorted(Path(__file__).parent.glob("*/test_*.py")):  # of metrics whose own test file says what they are
    if "\nCASES = {" in path.read_text(encoding="utf-8") and path.name != Path(__file__).name:
        CASES |= importlib.import_module(f"tests.metrics.{path.parent.name}.{path.stem}").CASES


def numbers(result: Any) -> Any:
    return {name: float(value) for name, value in result.items()} if isinstance(result, dict) else float(result)


def scored(metric: torchmetrics.Metric, batches: list[tuple[Any, ...]]) -> Any:
    for batch in batches:
        metric.update(*batch)
    return numbers(metric.compute())


@pytest.fixture(params=list(CASES))
def case(request) -> Case:
    return CASES[request.param]


@pytest.fixture
def batches(case) -> list[tuple[Any, ...]]:
    return [case.batch(seed) for seed in range(BATCHES)]


def metric_classes() -> set[type]:
    found = set()
    for module in pkgutil.walk_packages(metrics.__path__, f"{metrics.__name__}."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, type) and issubclass(value, torchmetrics.Metric) and value.__module__ == module.name:
                found.add(value)
    return found - {FrameMean}


def test_every_metric_is_tested_here():
    assert metric_classes() == {type(case.make()) for case in CASES.values()}


def test_package_exports_every_metric():
    for cls in metric_classes():
        assert getattr(metrics, cls.__name__) is cls
    with pytest.raises(AttributeError, match=r"module 'lipsync_bench\.metrics' has no attribute 'PSNRS'"):
        metrics.PSNRS  # noqa: B018


def test_importing_the_package_imports_no_library():
    code = (
        "import sys, lipsync_bench.metrics; print(sorted({'torch', 'numpy', 'dlib', 'torchvision'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert done.stdout.strip() == "[]"


def test_class_equals_function(case, batches):
    assert scored(case.make(), batches) == pytest.approx(case.function(batches), abs=1e-9)


def test_forward_gives_the_batch_and_keeps_the_sum(case, batches):
    metric = case.make()
    for batch in batches:
        assert numbers(metric(*batch)) == pytest.approx(case.function([batch]), abs=1e-9)
    assert numbers(metric.compute()) == pytest.approx(case.function(batches), abs=1e-9)


def test_batch_by_batch_equals_all_at_once(case, batches):
    if not case.joined:
        assert scored(case.make(), batches[::-1]) == pytest.approx(scored(case.make(), batches), abs=1e-12)
        return
    at_once = tuple(torch.cat(side) for side in zip(*batches, strict=True))
    assert scored(case.make(), [at_once]) == pytest.approx(scored(case.make(), batches), abs=1e-12)


def test_pickled_between_updates(case, batches):
    metric = case.make()
    metric.update(*batches[0])
    again = pickle.loads(pickle.dumps(metric))
    assert scored(again, batches[1:]) == scored(metric, batches[1:])


def test_clone_and_reset(case, batches):
    metric = case.make()
    metric.update(*batches[0])
    copy = metric.clone()
    metric.update(*batches[1])
    assert numbers(copy.compute()) == pytest.approx(case.function(batches[:1]), abs=1e-9)
    metric.reset()
    assert scored(metric, batches[2:]) == pytest.approx(case.function(batches[2:]), abs=1e-9)


def test_states_are_float64_sums(case, batches):
    metric = case.make()
    metric.update(*batches[0])
    metric.half()
    assert metric._reductions
    for name, reduction in metric._reductions.items():
        assert getattr(metric, name).dtype == torch.float64
        assert getattr(metric, name).shape == metric._defaults[name].shape  # does not grow
        assert reduction is torchmetrics.utilities.dim_zero_sum


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.joined])
def test_half_precision_inputs_are_scored_in_float64(name):
    case = CASES[name]
    halves = [tuple(side.half() for side in case.batch(seed)) for seed in range(BATCHES)]
    same_values = [tuple(side.double() for side in batch) for batch in halves]
    assert scored(case.make(), halves) == pytest.approx(scored(case.make(), same_values), abs=1e-12)


def columns_of(case: Case) -> dict[str, registry.Column]:
    names = {"value": case.columns} if isinstance(case.columns, str) else case.columns
    return {value: column(name) for value, name in names.items()}


def test_class_and_description_agree(case):
    metric = case.make()
    assert type(metric).full_state_update is False
    assert isinstance(type(metric).is_differentiable, bool)
    assert metric.protocol
    described = {value: column.higher_is_better for value, column in columns_of(case).items()}
    directions = getattr(metric, "directions", {"value": type(metric).higher_is_better})
    assert directions == described
    if "value" not in described:
        assert type(metric).higher_is_better is None


def test_values_lie_within_the_bounds(case, batches):
    result = scored(case.make(), batches)
    values = result if isinstance(result, dict) else {"value": result}
    described = columns_of(case)
    assert set(values) == set(described)
    for name, value in values.items():
        low, high = described[name].bounds
        assert low <= value <= high


def test_takes_the_arguments_of_torchmetrics(case, batches):
    metric = case.make(sync_on_compute=False, compute_with_cache=False)
    assert not metric.sync_on_compute
    assert scored(metric, batches) == pytest.approx(case.function(batches), abs=1e-9)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.module)
def test_a_file_defines_what_its_description_requires(metric):
    module = importlib.import_module(metric.module)
    assert replace(module.METRIC, module=metric.module) == metric  # what the registry read is what the file is
    assert callable(module.scorer)
    assert hasattr(module, "load") == bool(metric.networks)
    pooled = any(column.kind == "pooled" for column in metric.columns)
    assert pooled == hasattr(module, "pool") == hasattr(module, "is_complete") == bool(metric.files[0])
    networks = {network.name for network in metric.networks if network.recorded}
    assert {column.network for column in metric.columns} <= {"", *networks}
    assert metric.checked
    for described in metric.columns:
        assert described.bounds[0] < described.bounds[1]
        assert described.title
        assert described.source


def test_names_of_fields_and_networks_are_unique():
    names = [column.name for column in COLUMNS] + [field.name for field in (*registry.COUNTS, *registry.CURVES)]
    names += [network.sha256_field for _, network in NETWORKS]
    assert len(names) == len(set(names))
    files = {network.name: official_file(network.weights).file for _, network in NETWORKS if network.weights}
    assert {f"lpips_{net}": file for net, (_, file) in TRUNKS.items()}.items() <= files.items()
    assert files["fid"] == INCEPTION


def test_reading_the_descriptions_imports_no_library_that_takes_seconds():
    code = (
        "import sys; from lipsync_bench.metrics.registry import COLUMNS; "
        "print(len(COLUMNS), sorted({'torch', 'torchmetrics', 'torchvision', 'dlib', 'mediapipe', 'skimage', 'scipy', "
        "'librosa', 'cv2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert done.stdout.strip() == f"{len(COLUMNS)} []"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("METRIC = Description(columns=(COLUMN,), checked='-')", "COLUMN.*as the last statement"),
        ("METRIC = Description(columns=(), checked='-')\n\nmore = 1", "cannot be read"),
        ("METRIC = Description(columns=())", "checked"),
        ("METRIC = 3", "METRIC is int. Expected a lipsync_bench.metrics.metric.Description"),
    ],
)
def test_a_description_that_cannot_be_read_is_named(tmp_path, text, message):
    path = tmp_path / "mine.py"
    path.write_text(f'"""Mine."""\n\nCOLUMN = None\n{text}\n')
    with pytest.raises(ValueError, match=rf"mine.py.*{message}"):
        registry.describe(path, tmp_path)


PER_IMAGE = ("psnr", "ssim", "mse", "psnr_uint8", "lpips", "cpbd")


def per_image(**options: Any) -> torchmetrics.MetricCollection:
    return torchmetrics.MetricCollection({name: CASES[name].make(**options) for name in PER_IMAGE})


def sharp_pairs(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    pred, target = torch.rand(2, seed + 1, 3, 64, 70, generator=torch.Generator().manual_seed(seed)) * 255
    return (target if seed == 0 else pred), target  # identical images first: MSE and LPIPS are both 0 there


def one_by_one(seeds: range | list[int]) -> dict[str, float]:
    return {
        name: scored(CASES[name].make(), [sharp_pairs(s)[: 1 if name == "cpbd" else 2] for s in seeds])
        for name in PER_IMAGE
    }


def test_a_metric_collection_equals_its_metrics_alone():
    collection = per_image()
    for seed in range(3):
        collection.update(*sharp_pairs(seed))
        if seed == 1:
            copy = collection.clone(prefix="val_")
    assert numbers(collection.compute()) == one_by_one(range(3))
    assert numbers(copy.compute()) == {f"val_{name}": value for name, value in one_by_one(range(2)).items()}
    collection.reset()
    collection.update(*sharp_pairs(4))
    assert numbers(collection.compute()) == one_by_one([4])
    assert list(per_image()(*sharp_pairs(4))) == list(collection.compute())  # forward


@pytest.mark.parametrize(
    ("name", "best"),
    [
        ("psnr", math.inf),
        ("ssim", 1.0),
        ("mse", 0.0),
        ("psnr_uint8", 100.0),
        ("lpips", 0.0),
        ("fid", 0.0),
        ("lmd_raw", 0.0),
        ("lmd_centred", 0.0),
    ],
)
def test_identical_inputs(name, best):
    case = CASES[name]
    same = case.batch(3)[0]
    assert scored(case.make(), [(same, same)]) == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize(("name", "worst"), [("psnr", 0.0), ("ssim", 1e-4), ("mse", 1.0)])
def test_black_against_white(name, worst):
    black = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    # SSIM of constant images: only the C1 term is left, (0 + C1) / (255^2 + C1).
    assert scored(CASES[name].make(), [(black, black + 255)]) == pytest.approx(worst, abs=1e-6)


GOOD = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)


@pytest.mark.parametrize("name", ["psnr", "ssim", "mse", "psnr_uint8", "lpips"])
@pytest.mark.parametrize(
    ("pred", "target", "message"),
    [
        (GOOD.numpy(), GOOD, r"pred is ndarray. Expected a torch.Tensor"),
        (GOOD.permute(0, 2, 3, 1), GOOD, r"pred has shape \(2, 16, 16, 3\). Expected \(B, C, H, W\).*permute"),
        (GOOD, GOOD[:1], r"pred has shape \(2, 3, 16, 16\), target \(1, 3, 16, 16\). Expected the same frames"),
        (GOOD.int(), GOOD, r"pred has dtype torch.int32. Expected uint8 or a floating type"),
        (GOOD, GOOD - 0.5, r"target has values from -0\.5 to -0\.5. Expected 0..255"),
        (GOOD + 300.0, GOOD, r"pred has values from 300 to 300. Expected 0..255"),
        (GOOD + float("nan"), GOOD, r"pred has values from nan to nan"),
        (GOOD + 1.0, GOOD + 0.5, r"no value above 1, as images in \[0, 1\] do. Expected 0..255. Multiply both by 255"),
        (GOOD[:0], GOOD[:0], r"pred has shape \(0, 3, 16, 16\)"),
    ],
)
def test_wrong_images(name, pred, target, message):
    metric = CASES[name].make()
    with pytest.raises(ValueError, match=message):
        metric.update(pred, target)
    assert metric.frames == 0


@pytest.mark.parametrize(
    ("pred", "ref", "message"),
    [
        (torch.zeros(2, 5, 2), torch.zeros(2, 5, 2), r"landmarks_pred has shape \(2, 5, 2\). Expected \(T, 68, 2\)"),
        (torch.zeros(68, 2), torch.zeros(1, 68, 2), r"landmarks_pred has shape \(68, 2\)"),
        (torch.zeros(2, 68, 2), torch.zeros(3, 68, 2), "landmarks_pred has 2 frames, landmarks_ref 3"),
        (torch.zeros(1, 20, 2), torch.full((1, 20, 2), math.inf), "landmarks_ref has values from inf to inf"),
        (torch.zeros(1, 20, 2, dtype=torch.bool), torch.zeros(1, 20, 2), "landmarks_pred has dtype torch.bool"),
    ],
)
def test_wrong_landmarks(pred, ref, message):
    metric = LMD(centred=True)
    with pytest.raises(ValueError, match=message):
        metric.update(pred, ref)
    assert metric.frames == 0


def test_failed_clip_adds_nothing():
    metric = LSE(QuickSyncNet(), "test")
    with pytest.raises(ValueError, match="clip too short"):
        metric.update(Frames(0, count=5), np.zeros(6400, np.int16))
    assert metric.count == 0


def _rank(rank: int, folder: str) -> None:
    """Rank r scores batches r, r + 2, ...; the synchronised result and the plain counts go to a file."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    results = {}
    for name, case in CASES.items():
        metric = case.make()
        results[name] = scored(metric, [case.batch(seed) for seed in range(rank, BATCHES - 1, 2)])
    results["collection"] = scored(per_image(), [sharp_pairs(seed) for seed in range(rank, 3, 2)])
    Path(folder, f"{rank}.pickle").write_bytes(pickle.dumps(results))
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    # A fork server imports torch once for both ranks; a plain spawn does it twice, which is most of this test's time.
    multiprocessing.set_forkserver_preload([__name__])
    mp.start_processes(_rank, args=(str(tmp_path),), nprocs=2, start_method="forkserver")
    # Three batches: one rank has two of them, the other one.
    expected = {name: case.function([case.batch(seed) for seed in range(BATCHES - 1)]) for name, case in CASES.items()}
    for rank in range(2):
        results = pickle.loads((tmp_path / f"{rank}.pickle").read_bytes())
        assert results.pop("collection") == pytest.approx(one_by_one(range(3)), abs=1e-9)
        assert list(results) == list(CASES)
        for name, result in results.items():
            assert result == pytest.approx(expected[name], abs=1e-9), name


def test_documentation_examples_run():
    attempted = {}
    for module in pkgutil.walk_packages(metrics.__path__, f"{metrics.__name__}."):
        outcome = doctest.testmod(importlib.import_module(module.name))
        assert outcome.failed == 0, module.name
        attempted[module.name] = outcome.attempted
    for cls in metric_classes():
        assert attempted[cls.__module__] > 0, f"{cls.__name__} has no example"
