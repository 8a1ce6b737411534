# SPDX-License-Identifier: Apache-2.0
"""SyncNet v2, the network behind LSE-D, LSE-C and the audio-video offset.

Joon Son Chung, Andrew Zisserman: Out of Time: Automated Lip Sync in the Wild. ACCV Workshops 2016.
Official code: github.com/joonson/syncnet_python (MIT); the weights come from Oxford VGG.
"""

from pathlib import Path

from torch import Tensor, nn

from lipsync_bench.datamodules.files.weights import load_weights
from lipsync_bench.datamodules.weights.official_weights import OfficialWeights

_EXPECTED = (
    "the file syncnet_v2.model of Oxford VGG (www.robots.ox.ac.uk/~vgg), path software/lipsync/data/syncnet_v2.model, "
    "about 54.5 MB"
)
_REPAIR = "Name it with --weights syncnet_v2=PATH, or run: bench weights fetch syncnet_v2"

__all__ = ["SyncNetV2", "load_syncnet"]


def _audio_stream() -> nn.Sequential:
    def layer(inputs: int, outputs: int, kernel: int | tuple[int, int], padding: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, kernel, padding=padding), nn.BatchNorm2d(outputs), nn.ReLU()]

    return nn.Sequential(
        *layer(1, 64, 3, 1),  # 13 x 20 (coefficient, time)
        nn.MaxPool2d(1, 1),  # changes nothing, but later layers are numbered after it
        *layer(64, 192, 3, 1),
        nn.MaxPool2d(3, (1, 2)),  # 11 x 9
        *layer(192, 384, 3, 1),
        *layer(384, 256, 3, 1),
        *layer(256, 256, 3, 1),
        nn.MaxPool2d(3, 2),  # 5 x 4
        *layer(256, 512, (5, 4), 0),  # 1 x 1
    )


def _lip_stream() -> nn.Sequential:
    def layer(
        inputs: int, outputs: int, kernel: tuple[int, int, int], stride: tuple[int, int, int], padding: int
    ) -> list[nn.Module]:
        conv = nn.Conv3d(inputs, outputs, kernel, stride, (0, padding, padding))
        return [conv, nn.BatchNorm3d(outputs), nn.ReLU()]

    same, halved = (1, 1, 1), (1, 2, 2)
    return nn.Sequential(
        *layer(3, 96, (5, 7, 7), halved, 0),  # 1 x 109 x 109 (time, height, width)
        nn.MaxPool3d((1, 3, 3), halved),  # 54
        *layer(96, 256, (1, 5, 5), halved, 1),  # 26
        nn.MaxPool3d((1, 3, 3), halved, (0, 1, 1)),  # 13
        *layer(256, 256, (1, 3, 3), same, 1),
        *layer(256, 256, (1, 3, 3), same, 1),
        *layer(256, 256, (1, 3, 3), same, 1),
        nn.MaxPool3d((1, 3, 3), halved),  # 6
        *layer(256, 512, (1, 6, 6), same, 0),  # 1
    )


def _head() -> nn.Sequential:
    return nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 1024))


def load_syncnet(path: Path | str) -> "SyncNetV2":
    """The network with the weights of `syncnet_v2.model` (a flat mapping of names to tensors), frozen, on the CPU.

    Strict but for `num_batches_tracked`, which files of old framework versions lack and which evaluation never
    reads. (The official loader leaves a weight that the file lacks at its random initial value.)

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no mapping of tensors, or names or shapes differ.
    """
    return load_weights(SyncNetV2(), Path(path), _EXPECTED, _REPAIR)


class SyncNetV2(nn.Module):
    """Two streams that map audio and lips to vectors of length 1024, near each other when they belong together.

    ```
    MFCC (B,1,13,20)        - netcnnaud - flatten - netfcaud - (B,1024)
    lips (B,3,5,224,224)    - netcnnlip - flatten - netfclip - (B,1024)
    ```
    Lips are BGR planes in 0..255 (float, neither scaled nor centred); embeddings are **not** normalised. Use it in
    evaluation mode. Other input sizes do not work.
    """

    def __init__(self) -> None:
        super().__init__()
        self.netcnnaud = _audio_stream()
        self.netfcaud = _head()
        self.netfclip = _head()
        self.netcnnlip = _lip_stream()

    def forward_audio(self, mfcc: Tensor) -> Tensor:
        """MFCC windows (B,1,13,20) -> (B,1024)."""
        return self.netfcaud(self.netcnnaud(mfcc).flatten(1))

    def forward_lips(self, lips: Tensor) -> Tensor:
        """Frame windows (B,3,5,224,224) -> (B,1024)."""
        return self.netfclip(self.lip_features(lips))

    def lip_features(self, lips: Tensor) -> Tensor:
        """Frame windows (B,3,5,224,224) -> (B,512), before the head."""
        return self.netcnnlip(lips).flatten(1)


OFFICIAL = (
    OfficialWeights(
        name="syncnet_v2",
        use="bench evaluate --weights syncnet_v2={out}",
        build=lambda _: SyncNetV2(),
    ),
)
