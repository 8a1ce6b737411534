# SPDX-License-Identifier: Apache-2.0
"""The metric networks, loaded from the weight files that were given."""

from pathlib import Path
from typing import Any

from lipsync_bench.evaluation.options import WEIGHT_OPTIONS, ScorerFiles
from lipsync_bench.metrics.metric import Network
from lipsync_bench.metrics.registry import COLUMNS, NETWORKS

__all__ = ["MetricNetworks", "flag"]


def flag(network: Network, given: str | Path = "") -> str:
    """The flag of `bench evaluate` that gives the weights of a network."""
    if network.option in WEIGHT_OPTIONS:
        return f"--{network.option} {given}".rstrip()
    return f"--metrics {network.option}{f'={given}' if given else ''}"


class MetricNetworks:
    """The metric networks whose weights were given, loaded.

    Args:
        files: Their weights.
        device: Where they run.

    Attributes:
        loaded: The networks by name, as their metrics load them.
        identity: SHA-256 of each network's weights by the name of its row field; empty without the network.

    Raises:
        FileNotFoundError: A file is missing; the message says where it comes from.
        ValueError: A file holds something else, lacks another one that it needs, or is for an unknown metric.
    """

    def __init__(self, files: ScorerFiles, device: str = "cpu") -> None:
        named = {network.option for _, network in NETWORKS} - WEIGHT_OPTIONS
        unknown = sorted(set(files.metrics) - named)
        if unknown:
            raise ValueError(
                f"--metrics {','.join(unknown)}: no metric of that name. Expected one of {', '.join(sorted(named))}; "
                "all others are computed by default, or with the option that gives their weights"
            )
        self.loaded: dict[str, Any] = {}
        self.identity = {network.sha256_field: "" for _, network in NETWORKS if network.recorded}
        missing: dict[str, FileNotFoundError] = {}
        for metric, network in NETWORKS:
            given = files.given(network.option)
            if given is None:
                continue
            if network.beside and files.given(network.beside) is None:
                raise ValueError(f"--{network.option} without --{network.beside}. Expected both: one needs the other.")
            try:
                self.loaded[network.name], sha256 = metric.load(network, given, device)
            except FileNotFoundError as error:
                missing.setdefault(network.option, error)
                continue
            if network.recorded:
                self.identity[network.sha256_field] = sha256
        found = {network.option for _, network in NETWORKS if network.name in self.loaded}
        for option, reason in missing.items():  # of networks that share an option, one is enough
            if option not in found:
                raise reason

    def release(self) -> None:
        """Drop the networks when all clips are scored, except those that pooled columns need at the end."""
        kept = {column.network for column in COLUMNS if column.kind == "pooled"}
        self.loaded = {name: network for name, network in self.loaded.items() if name in kept}
