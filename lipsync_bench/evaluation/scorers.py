# SPDX-License-Identifier: Apache-2.0
"""The metric networks, loaded from the weight files that were given."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from lipsync_bench.metrics.metric import Network
from lipsync_bench.metrics.registry import COLUMNS, NETWORKS

__all__ = ["NO_SCORERS", "ScorerFiles", "Scorers", "flag"]


@dataclass(frozen=True)
class ScorerFiles:
    """Weights of the metric networks; a metric whose weights are not given is not computed.

    Args:
        syncnet: Official SyncNet weights; without them LSE is not computed.
        syncnet_s3fd: Official face-detector weights of the SyncNet pipeline; with both, LSE is also computed on face
            tracks.
        expert: Checkpoint of a sync expert of this suite.
        lpips: Folder with ImageNet weights of AlexNet or VGG-16, or "torchvision".
        inception: Folder with pytorch-fid's Inception weights, or "torchvision"; for FID.
        detector_weights: S3FD's weights, for protocols that cut by its boxes.
        metrics: Metrics that are computed only if named, such as `csim_dlib`, with the file of their weights; empty for
            the installed file.
    """

    syncnet: Path | None = None
    syncnet_s3fd: Path | None = None
    expert: Path | None = None
    lpips: str | None = None
    inception: str | None = None
    detector_weights: Path | None = None
    metrics: Mapping[str, str] = field(default_factory=dict)

    def given(self, option: str) -> str | Path | None:
        """The value given for an option of a network; None if it was not given."""
        given: str | Path | None = self.metrics.get(option) if option not in _FLAGS else getattr(self, option)
        return given


NO_SCORERS = ScorerFiles()
"""No network: only PSNR, SSIM, LMD and other metrics without weights."""
_FLAGS = {field.name for field in fields(ScorerFiles)} - {"metrics"}


def flag(network: Network, given: str | Path = "") -> str:
    """The flag of `bench evaluate` that gives the weights of a network."""
    if network.option in _FLAGS:
        return f"--{network.option} {given}".rstrip()
    return f"--metrics {network.option}{f'={given}' if given else ''}"


class Scorers:
    """The loaded metric networks: those whose weights were given.

    Args:
        files: Their weights.
        device: Where they run.

    Attributes:
        networks: The networks by name, as their metrics load them.
        identity: SHA-256 of each network's weights by the name of its row field; empty without the network.

    Raises:
        FileNotFoundError: A file is missing; the message says where it comes from.
        ValueError: A file holds something else, lacks another one that it needs, or is for an unknown metric.
    """

    def __init__(self, files: ScorerFiles, device: str = "cpu") -> None:
        named = {network.option for _, network in NETWORKS} - _FLAGS
        unknown = sorted(set(files.metrics) - named)
        if unknown:
            raise ValueError(
                f"--metrics {','.join(unknown)}: no metric of that name. Expected one of {', '.join(sorted(named))}; "
                "all others are computed by default, or with the option that gives their weights"
            )
        self.networks: dict[str, Any] = {}
        self.identity = {network.sha256_field: "" for _, network in NETWORKS if network.recorded}
        missing: dict[str, FileNotFoundError] = {}
        for metric, network in NETWORKS:
            given = files.given(network.option)
            if given is None:
                continue
            if network.beside and files.given(network.beside) is None:
                raise ValueError(f"--{network.option} without --{network.beside}. Expected both: one needs the other.")
            try:
                self.networks[network.name], sha256 = metric.load(network, given, device)
            except FileNotFoundError as error:
                missing.setdefault(network.option, error)
                continue
            if network.recorded:
                self.identity[network.sha256_field] = sha256
        found = {network.option for _, network in NETWORKS if network.name in self.networks}
        for option, reason in missing.items():  # of networks that share an option, one is enough
            if option not in found:
                raise reason

    def release(self) -> None:
        """Drop the networks when all clips are scored, except those that pooled columns need at the end."""
        kept = {column.network for column in COLUMNS if column.kind == "pooled"}
        self.networks = {name: network for name, network in self.networks.items() if name in kept}
