# SPDX-License-Identifier: Apache-2.0
"""The metric networks, loaded from the weight files that there are."""

from pathlib import Path
from typing import Any

from lipsync_bench.datamodules.weights.store import Store
from lipsync_bench.evaluation.options import MetricOptions
from lipsync_bench.metrics.metric import Network
from lipsync_bench.metrics.registry import COLUMNS, NETWORKS

__all__ = ["MetricNetworks", "way_to"]

EXPERT = "expert"


def way_to(network: Network) -> str:
    """What has a network's columns computed: a command or an option of `bench evaluate`."""
    if network.weights:
        return f"bench weights fetch {network.weights}"
    return f"--{EXPERT} CKPT" if network.option == EXPERT else f"--metrics {network.option}"


class MetricNetworks:
    """The metric networks whose weights are here, loaded.

    Args:
        options: The metrics that have to be asked for.
        store: The weight files.
        device: Where the networks run.

    Attributes:
        loaded: The networks by name, as their metrics load them.
        identity: SHA-256 of each network's weights by the name of its row field; empty without the network.

    Raises:
        FileNotFoundError: A file that was named is missing; the message says where it comes from.
        ValueError: A file holds something else, or is for an unknown metric.
    """

    def __init__(self, options: MetricOptions, store: Store, device: str = "cpu") -> None:
        optional = {network.option for _, network in NETWORKS if network.option not in ("", EXPERT)}
        unknown = sorted(set(options.metrics) - optional)
        if unknown:
            raise ValueError(
                f"--metrics {','.join(unknown)}: no such metric. Expected one of {', '.join(sorted(optional))}; "
                "all others are computed by default, or once their weights are here: bench weights list"
            )
        self.loaded: dict[str, Any] = {}
        self.identity = {network.sha256_field: "" for _, network in NETWORKS if network.recorded}
        for metric, network in NETWORKS:
            if network.weights:
                found = store.find(network.weights)
                given: Path | str | None = None if found is None else found.path
            elif network.option == EXPERT:
                given = options.expert
            else:
                given = options.metrics.get(network.option)
            if given is None or (network.beside and network.beside not in self.loaded):
                continue
            self.loaded[network.name], sha256 = metric.load(network, given, device)
            if network.recorded:
                self.identity[network.sha256_field] = sha256

    def release(self) -> None:
        """Drop the networks when all clips are scored, except those that pooled columns need at the end."""
        kept = {column.network for column in COLUMNS if column.kind == "pooled"}
        self.loaded = {name: network for name, network in self.loaded.items() if name in kept}
