"""A data set: a class derived from ClipDataModule, whose literals say where its videos lie."""

from collections.abc import Sequence

from lipsync_bench.datamodules.clip_datamodule import ClipDataModule
from lipsync_bench.datamodules.datasets.splits import Split


class Plays(ClipDataModule):
    """Say here how large it is, under what licence and where it comes from."""

    name = "plays"  # as the entry point is called; read without importing this file, as is `videos`
    videos = "{speaker}/takes/{clip}"

    def split_ids(self, prepared: Sequence[str]) -> dict[Split, list[str]]:
        """Of each speaker the first clip is for testing, the second for validation. Without this: splits/*.txt."""
        speakers = sorted({name.split("/")[0] for name in prepared})
        clips = [[name for name in prepared if name.startswith(f"{speaker}/")] for speaker in speakers]
        return {
            "train": [name for names in clips for name in names[2:]],
            "val": [name for names in clips for name in names[1:2]],
            "test": [name for names in clips for name in names[:1]],
        }
