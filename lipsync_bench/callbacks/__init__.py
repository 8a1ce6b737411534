# SPDX-License-Identifier: Apache-2.0
"""Trainer callbacks: of how fast a run is, what is kept of it, what it shows, and of its learning rate. Only the last
changes what is computed, but for the order in which a processor adds.
"""

from lipsync_bench.callbacks.keeping import AverageWeights, LastCheckpoint
from lipsync_bench.callbacks.learning_rate import FallingLearningRate
from lipsync_bench.callbacks.sample_clips import SampleClips
from lipsync_bench.callbacks.speed import ChannelsLast, CompileNetworks, WaitsForData
from lipsync_bench.callbacks.watching import NetworkSizes, WatchAdversarial

__all__ = [
    "AverageWeights",
    "ChannelsLast",
    "CompileNetworks",
    "FallingLearningRate",
    "LastCheckpoint",
    "NetworkSizes",
    "SampleClips",
    "WaitsForData",
    "WatchAdversarial",
]
