# SPDX-License-Identifier: Apache-2.0
"""Learned perceptual distance (LPIPS), one value per image."""

import contextlib
import io
import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import lpips as package
import torch
from torch import Tensor, nn

from lipsync_bench.metrics.frame_mean import FrameMean
from lipsync_bench.metrics.image.checks import DATA_RANGE, checked_pair
from lipsync_bench.metrics.image.scorer import PairScorer
from lipsync_bench.metrics.metric import INF, Column, Description, Network, ScoredClip, Scorer, Value, View
from lipsync_bench.models.core.weight_files import TORCHVISION, WeightsFile, WithoutInit

__all__ = ["LPIPS", "TRUNKS", "LPIPSNet", "LPIPSNetwork", "lpips"]

LPIPSNet = Literal["alex", "vgg"]

TRUNKS: dict[LPIPSNet, tuple[str, str]] = {  # torchvision's name and file
    "alex": ("alexnet", "alexnet-owt-7be5be79.pth"),
    "vgg": ("vgg16", "vgg16-397923af.pth"),
}
_MIN_PX: dict[LPIPSNet, int] = {"alex": 31, "vgg": 16}  # below, a pooling has nothing left


class LPIPSNetwork(nn.Module):
    """The network of the package `lpips` 0.1.4: a trunk with ImageNet weights and the package's own heads (v0.1).

    It is frozen, stays in eval mode, and may be shared by any number of metrics.

    Args:
        net: Trunk, "alex" (AlexNet; the authors' advice for evaluation) or "vgg" (VGG-16; for losses).
        weights: Where the trunk's ImageNet weights are: "torchvision" for torchvision's cache of downloads, else a
            folder with files of the same names. Random weights are not offered: their distance would not be LPIPS.

    Attributes:
        net: The trunk.
        weights: SHA-256 of the trunk's file.
        min_px: Smallest height and width.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file cannot be read or does not hold this trunk.
    """

    def __init__(self, net: LPIPSNet, weights: str = TORCHVISION) -> None:
        super().__init__()
        if net not in get_args(LPIPSNet):
            raise ValueError(f"net is {net!r}. Expected one of {', '.join(get_args(LPIPSNet))}. Set net")
        trunk, name = TRUNKS[net]
        file = WeightsFile(
            name,
            weights,
            f"torchvision's ImageNet weights of {trunk}, {name}",
            f"Run where there is a network: bench weights fetch {trunk}; or name its folder with "
            "LPIPSNetwork(weights=DIR)",
        )
        state = file.read()
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), WithoutInit():
            warnings.simplefilter("ignore")  # the package calls torchvision in an outdated way
            self.network = package.LPIPS(net=net, pnet_rand=True, verbose=False)
        features = nn.Sequential(*(layer for part in self.network.net.children() for layer in part))
        self.net: LPIPSNet = net
        self.min_px = _MIN_PX[net]
        self.weights = file.fill(features, {key: f"features.{key}" for key in features.state_dict()}, state)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "LPIPSNetwork":
        """Stay in eval mode: otherwise the heads drop features at random."""
        return super().train(False)

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """RGB images (B, 3, H, W) in [-1, 1], float32 -> (B,)."""
        return self.network(pred, target).flatten()


def lpips(pred: Tensor, target: Tensor, network: LPIPSNetwork) -> Tensor:
    """LPIPS of each image: the summed, head-weighted squared differences of normalised features at five depths.

    Args:
        pred: (B, 3, H, W) RGB, uint8 or float in 0..255, 31 pixels or more on each side (16 for vgg), not resized.
        target: as `pred`.
        network: `LPIPSNetwork("alex")` or `("vgg")`: two numbers, not one. The images are moved to its device.

    Returns:
        (B,) float64 (computed in float32), 0 for identical images.

    Raises:
        ValueError: wrong shape, dtype or range, gray, or too small.

    Example:
        >>> import torch
        >>> network = LPIPSNetwork("alex")  # doctest: +SKIP
        >>> images = torch.full((2, 3, 64, 64), 100, dtype=torch.uint8)
        >>> lpips(images, images, network)  # doctest: +SKIP
        tensor([0., 0.], dtype=torch.float64)
    """
    checked = checked_pair(pred, target)
    shape = tuple(pred.shape)
    if shape[1] != 3:
        raise ValueError(
            f"pred and target have shape {shape}. Expected RGB, (B, 3, H, W). Use images.expand(-1, 3, -1, -1) for "
            "gray ones"
        )
    if min(shape[2:]) < network.min_px:
        raise ValueError(
            f"pred and target are {shape[2]} x {shape[3]} pixels. Expected at least {network.min_px} x "
            f"{network.min_px} for {network.net}. Resize both first"
        )
    device = next(network.parameters()).device
    # Pair by pair: a batch can change the last digits, and VGG's maps of one 720p frame take 0.4 GB. On a GPU cuDNN's
    # default TF32 would keep three digits.
    values = []
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for pair in zip(*checked, strict=True):
            values.append(network(*(image[None].to(device, torch.float32) / (DATA_RANGE / 2) - 1 for image in pair)))
    return torch.cat(values).to(pred.device, torch.float64)


class LPIPS(FrameMean):
    r"""Mean over frames of LPIPS v0.1 (Zhang, Isola, Efros, Shechtman, Wang, CVPR 2018, arXiv 1801.03924).

    .. math:: d = \sum_l \frac{1}{H_l W_l} \sum_p \left\lVert w_l \odot (\hat{x}_{lp} - \hat{y}_{lp}) \right\rVert_2^2

    x and y are the trunk's features after five of its ReLUs, each divided by its length over the channels; w are the
    learned heads.

    * Input: pairs of frames (B, 3, H, W), RGB, uint8 or float in 0..255, no resizing inside: the value depends on the
      size. As for PSNR, pass decoded frames to score a video after encoding.
    * Average: over the positions of each feature map, summed over the five, then over frames, whatever clip they come
      from.
    * Two metrics, named apart: protocol `lpips_alex` and `lpips_vgg`. G4G does not say which one it printed; HyperLips'
      loss is the second.
    * Reference: the package `lpips` 0.1.4, float32, with torchvision's ImageNet trunk (`IMAGENET1K_V1`).
    * Known differences: torchmetrics 1.9 guards the division by another small number, equal to float32 rounding;
      version v0.0 of the heads has a fault in its input's scale.

    Args:
        network: Chooses the protocol; it stays on its own device and is not part of this metric's parameters or
            checkpoint.

    Example:
        >>> metric = LPIPS(LPIPSNetwork("alex"))  # doctest: +SKIP
        >>> metric.update(pred, target)  # doctest: +SKIP
        >>> distance = metric.compute()  # doctest: +SKIP
    """

    higher_is_better = False
    is_differentiable = True

    def __init__(self, network: LPIPSNetwork, **kwargs: Any) -> None:
        super().__init__(f"lpips_{network.net}", **kwargs)
        # In a tuple nn.Module does not see it: an enclosing module's train(), parameters() and checkpoints leave it
        # alone.
        self._network = (network,)
        self.weights = network.weights

    def update(self, pred: Tensor, target: Tensor) -> None:
        """Add the frames of one batch; see `lpips` for the arguments."""
        (network,) = self._network
        self.add(lpips(pred, target, network))


class _Scorers(Scorer):
    """One scorer for each network."""

    def __init__(self, networks: Mapping[str, LPIPSNetwork]) -> None:
        self._scorers = [
            PairScorer(name, partial(lpips, network=network), 0.0, all_threads=True)
            for name, network in networks.items()
        ]

    def update(self, view: View) -> None:
        for scorer in self._scorers:
            scorer.update(view)

    def result(self) -> dict[str, Value]:
        return {name: value for scorer in self._scorers for name, value in scorer.result().items()}


def load(name: str, given: str | Path, device: str) -> tuple[LPIPSNetwork, str]:
    """`lpips_alex` or `lpips_vgg`; see `LPIPSNetwork`."""
    (net,) = (net for net in TRUNKS if name == f"lpips_{net}")
    network = LPIPSNetwork(net, str(given)).to(device)
    return network, network.weights


def scorer(clip: ScoredClip) -> Scorer | None:
    """Scores the crops with each LPIPS network that was loaded."""
    names = [f"lpips_{net}" for net in TRUNKS]
    networks = {name: clip.networks[name] for name in names if name in clip.networks}
    return _Scorers(networks) if clip.paired and networks else None


METRIC = Description(
    columns=(
        Column("lpips_alex", "LPIPS (alex)", "", False, 3, (0, INF), "target", network="lpips_alex", order=60),
        Column("lpips_vgg", "LPIPS (vgg)", "", False, 3, (0, INF), "target", network="lpips_vgg", order=70),
    ),
    about={
        "lpips_alex": "Difference from the real frame as AlexNet sees it; 0 is identical.",
        "lpips_vgg": "Difference from the real frame as VGG-16 sees it; 0 is identical.",
    },
    source="Zhang et al., CVPR 2018, lpips 0.1.4 (v0.1)",
    checked="the package lpips 0.1.4 on the same frames, 1e-6",
    networks=(
        Network("lpips_alex", "alexnet"),
        Network("lpips_vgg", "vgg16"),
    ),
)
