# SPDX-License-Identifier: Apache-2.0
"""Frechet inception distance (FID) between two sets of frames: one value for all of them."""

import logging
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from lipsync_bench.datamodules.files.disk import atomic_path
from lipsync_bench.metrics.image.inception import InceptionFeatures
from lipsync_bench.metrics.image.scorer import image
from lipsync_bench.metrics.metric import INF, Column, Description, Network, ScoredClip, Scorer, Value, View

__all__ = ["FID", "MIN_FRAMES", "fid", "frechet_distance"]

_log = logging.getLogger(__name__)
MIN_FRAMES = 2048  # with fewer than it has features the covariance is singular


def _root(matrix: Tensor) -> Tensor:
    """Symmetric square root of a symmetric matrix whose eigenvalues are, up to rounding, not negative."""
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.clamp(min=0).sqrt() @ vectors.mT


def frechet_distance(mean_1: Tensor, covariance_1: Tensor, mean_2: Tensor, covariance_2: Tensor) -> Tensor:
    """Squared Frechet distance of two normal distributions: `|m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2)`.

    The trace of the root is the sum of the square roots of the eigenvalues of S1 S2. These equal the eigenvalues of the
    symmetric S1^(1/2) S2 S1^(1/2), which are real even where the covariances are singular: nothing has to be added to a
    diagonal, and no imaginary part has to be dropped.

    Args:
        mean_1: (D,) float64.
        covariance_1: (D, D) float64.
        mean_2: (D,) float64.
        covariance_2: (D, D) float64.

    Returns:
        Scalar, float64, 0 or more.

    Example:
        >>> import torch
        >>> one = torch.eye(2, dtype=torch.float64)
        >>> frechet_distance(torch.zeros(2).double(), one, torch.tensor([3.0, 4.0]).double(), 4 * one)
        tensor(27., dtype=torch.float64)
    """
    root = _root(covariance_1)
    product = root @ covariance_2 @ root
    trace = torch.linalg.eigvalsh((product + product.mT) / 2).clamp(min=0).sqrt().sum()
    distance = (mean_1 - mean_2).square().sum() + covariance_1.trace() + covariance_2.trace() - 2 * trace
    return distance.clamp(min=0)  # rounding may give -1e-13 for equal sets


def fid(pred_features: Tensor, target_features: Tensor) -> Tensor:
    """FID of two sets of features: the distance of the normal distributions with their means and covariances (N - 1).

    Args:
        pred_features: (N, D), N at least 2, floating.
        target_features: (M, D), M at least 2.

    Returns:
        Scalar, float64.

    Raises:
        ValueError: wrong shape or dtype, or not finite.

    Example:
        >>> import torch
        >>> target = torch.tensor([[0.0, 0.0], [0.0, 2.0], [2.0, 0.0], [2.0, 2.0]])
        >>> fid(target + 1, target)
        tensor(2.0000, dtype=torch.float64)
    """
    sides = [_checked(name, x) for name, x in (("pred_features", pred_features), ("target_features", target_features))]
    if sides[0].shape[1] != sides[1].shape[1] or min(len(side) for side in sides) < 2:
        raise ValueError(
            f"pred_features has shape {tuple(sides[0].shape)}, target_features {tuple(sides[1].shape)}. Expected "
            "two rows or more and as many columns. Take both from one InceptionFeatures"
        )
    moments = [moment for side in sides for moment in (side.mean(dim=0), torch.cov(side.T).reshape(side.shape[1], -1))]
    return frechet_distance(*moments)


def _checked(name: str, features: Tensor) -> Tensor:
    if features.ndim != 2 or 0 in features.shape or not features.is_floating_point():
        raise ValueError(
            f"{name} has shape {tuple(features.shape)} and dtype {features.dtype}. Expected (N, D), floating. Take "
            "them from InceptionFeatures"
        )
    if not features.isfinite().all():
        raise ValueError(f"{name} is not finite everywhere. Expected finite features. Check the frames or the weights")
    return features.to(torch.float64)


class FID(Metric):
    r"""Frechet inception distance (Heusel, Ramsauer, Unterthiner, Nessler, Hochreiter, NeurIPS 2017, arXiv 1706.08500).

    .. math:: \mathrm{FID} = \lVert \mu_1 - \mu_2 \rVert^2
        + \mathrm{tr}\left(S_1 + S_2 - 2 (S_1 S_2)^{1/2}\right)

    mu and S are mean and covariance (N - 1) of the 2048 features of two sets of frames.

    * Input: frames (B, 3, H, W), RGB, uint8 or float in 0..255, of any size; pred and target may differ in number and
      size. pytorch-fid reads frames from files, that is 8-bit frames: pass those to compare with it.
    * Average: none. All frames of all clips give one number; a clip has no FID, and FIDs are not averaged.
    * Protocol `fid_pytorch_fid`, named so because the resize changes the value: that of Wav2Lip and those who follow
      it, see `inception.inception_input`.
    * Biased upwards with few frames, so that real videos do not reach zero: report the number of frames, and beside it
      the value of one half of the real videos against the other. Below `min_frames` there is no value.
    * Only n, sum and sum of outer products are kept, 67 MB for both sides, in float64: memory does not grow, and the
      states of several ranks add up exactly.
    * Reference: pytorch-fid 0.3 with `scipy.linalg.sqrtm`, and the eigenvalues of torch-fidelity 0.4, on given features
      (1e-8).
    * Known differences: the distance is the same in all three; where SciPy's root is not finite pytorch-fid adds 1e-6
      to both diagonals, which is not needed here.

    Args:
        network: Computes the features; it stays on its own device and is not part of this metric's
            parameters or checkpoint.
        min_frames: Fewest frames on each side, 2 or more. Below 2048 the covariance of 2048 features is singular: say
            the number of frames wherever such a value is printed.
        **kwargs: Arguments of `torchmetrics.Metric`.

    Example:
        >>> metric = FID(InceptionFeatures())  # doctest: +SKIP
        >>> for pred, target in batches:  # doctest: +SKIP
        ...     metric.update(pred, target)
        >>> distance = metric.compute()  # doctest: +SKIP
    """

    higher_is_better = False
    is_differentiable = False
    full_state_update = False

    pred_count: Tensor
    pred_sum: Tensor
    pred_outer: Tensor
    target_count: Tensor
    target_sum: Tensor
    target_outer: Tensor

    def __init__(self, network: InceptionFeatures, min_frames: int = MIN_FRAMES, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if min_frames < 2:
            raise ValueError(f"min_frames is {min_frames}. Expected at least 2. Use the default {MIN_FRAMES}")
        # In a tuple nn.Module does not see it: an enclosing module's train(), parameters() and checkpoints leave it
        # alone.
        self._network = (network,)
        self.weights = network.weights
        self.protocol = "fid_pytorch_fid"
        self.min_frames = min_frames
        for side in ("pred", "target"):
            for state, shape in (("count", ()), ("sum", (network.size,)), ("outer", (network.size, network.size))):
                self.add_state(f"{side}_{state}", torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, pred: Tensor | None, target: Tensor | None) -> None:
        """Add to one side or both.

        Args:
            pred: Frames (B, 3, H, W), see the class, or features (N, D) that the network computed from frames: so
                the target's are computed only once for all candidates. None adds nothing.
            target: as `pred`.

        Raises:
            ValueError: wrong shape, dtype or range, or features that are not finite; nothing was added.
        """
        given = {"pred": pred, "target": target}
        found = {side: self._features(side, images) for side, images in given.items() if images is not None}
        for side, features in found.items():
            for state, value in (("sum", features.sum(dim=0)), ("outer", features.mT @ features)):
                getattr(self, f"{side}_{state}").add_(value)
            getattr(self, f"{side}_count").add_(len(features))

    def _features(self, side: str, given: Tensor) -> Tensor:
        (network,) = self._network
        ready = isinstance(given, Tensor) and given.ndim == 2
        name = f"{side}_features" if ready else f"features of {side}"
        features = _checked(name, given if ready else network(given)).to(self.pred_sum.device)
        if features.shape[1] != network.size:
            raise ValueError(
                f"{name} has shape {tuple(features.shape)}. Expected {network.size} columns. Take them from the "
                "network this FID was made with"
            )
        return features

    def compute(self) -> Tensor:
        """The distance of all frames seen, float64.

        Raises:
            RuntimeError: fewer than `min_frames` on either side.
        """
        counts = int(self.pred_count), int(self.target_count)
        if min(counts) < self.min_frames:
            raise RuntimeError(
                f"FID of {counts[0]} frames against {counts[1]}. Expected at least {self.min_frames} on each side: "
                "with fewer it says little about the images. Score more clips, or lower FID(min_frames=N) and print N"
            )
        return frechet_distance(
            *self._moments(self.pred_count, self.pred_sum, self.pred_outer),
            *self._moments(self.target_count, self.target_sum, self.target_outer),
        )

    @staticmethod
    def _moments(count: Tensor, total: Tensor, outer: Tensor) -> tuple[Tensor, Tensor]:
        mean = total / count
        return mean, (outer - count * torch.outer(mean, mean)) / (count - 1)

    @property
    def frames(self) -> int:
        """Frames seen of the prediction (of this process, unless states are synchronised)."""
        return int(self.pred_count)

    @property
    def target_frames(self) -> int:
        """Frames seen of the target (of this process, unless states are synchronised)."""
        return int(self.target_count)


class _DroppedError(Exception):
    """Discards the file that is being written."""


class _Features(Scorer):
    """Writes the features of the crops to disk as they come and names the file when the clip is finished.

    They are float32, 8 kB a frame. FID needs the features of all clips at once: as files they survive a killed run like
    the rows, are shared by all ranks, and are read one clip at a time.
    """

    def __init__(self, network: InceptionFeatures, path: Path) -> None:
        self._network, self._path = network, path
        self._open = ExitStack()
        self._temporary: Path | None = None

    def update(self, view: View) -> None:
        if self._temporary is None:
            self._temporary = self._open.enter_context(atomic_path(self._path))
        with self._temporary.open("ab") as file:
            for crop in view.crops:
                file.write(self._network(image(crop)).cpu().numpy().astype("<f4").tobytes())

    def result(self) -> dict[str, Value]:
        return {}

    def close(self, keep: bool) -> None:
        with suppress(_DroppedError), self._open:
            if not keep:
                raise _DroppedError


def load(name: str, given: str | Path, device: str) -> tuple[InceptionFeatures, str]:
    """Inception with pytorch-fid's weights."""
    network = InceptionFeatures(weights=str(given)).to(device)
    return network, network.weights


def scorer(clip: ScoredClip) -> Scorer | None:
    """Stores the features of the candidate's crops for `pool`."""
    network = clip.networks.get("fid")
    return None if network is None else _Features(network, clip.path(*METRIC.files))


def is_complete(network: InceptionFeatures, path: Path, crops: int) -> bool:
    """Whether the file has the features of all crops."""
    return path.stat().st_size == 4 * network.size * crops


def pool(network: InceptionFeatures, pred: Sequence[Path], target: Sequence[Path]) -> tuple[float, int]:
    """FID and the number of frames on the smaller side; NaN with fewer than `MIN_FRAMES`."""
    if lost := [path for path in (*pred, *target) if not path.is_file()]:
        _log.warning(
            "no FID: %d feature files are missing, such as %s. Evaluate their method again", len(lost), lost[0]
        )
        return float("nan"), 0
    frames = min(sum(path.stat().st_size // (4 * network.size) for path in side) for side in (pred, target))
    if frames < MIN_FRAMES:
        _log.warning("no FID of %d frames; expected at least %d on each side. Score more clips", frames, MIN_FRAMES)
        return float("nan"), frames
    metric = FID(network, MIN_FRAMES)
    for side, paths in (("pred", pred), ("target", target)):
        for path in paths:
            values = np.fromfile(path, "<f4")
            if values.size % network.size or not np.isfinite(values).all():
                raise ValueError(
                    f"{path}: damaged. Expected {network.size} finite features of each frame. Remove the file, then "
                    "evaluate its method again"
                )
            features = torch.from_numpy(values.reshape(-1, network.size))
            if len(features):
                metric.update(features if side == "pred" else None, features if side == "target" else None)
    return float(metric.compute()), frames


METRIC = Description(
    columns=(
        Column(
            "fid",
            "FID",
            "",
            False,
            2,
            (0, INF),
            "target",
            "Heusel et al., NeurIPS 2017, pytorch-fid 0.3",
            kind="pooled",
            network="fid",
            order=80,
        ),
    ),
    about={
        "fid": "How far all generated frames are from all real ones, by Inception's features; one number.",
    },
    checked="SciPy's matrix root and torch-fidelity's eigenvalues on given features, 1e-8; needs 2048 frames",
    networks=(Network("fid", "inception_fid"),),
    files=("features", ".f32"),
)
