# SPDX-License-Identifier: Apache-2.0
"""The synthetic corpus as windows."""

from lipsync_bench.datamodules.clip_datamodule import ClipDataModule

__all__ = ["Synthetic"]


class Synthetic(ClipDataModule):
    """Talking heads that the package renders itself, 256 x 256 pixels at 25 fps; 6 speakers with 6 clips of 3 s each.

    For tests, examples and first steps without a data set: lips and voice follow one articulation track, so they are
    in true sync, and a network learns it in minutes. Nothing measured here says how a method does on people.

    As `bench synthetic --out DIR` writes it, laid out like LRS2::

        main/<speaker>/<clip>.mp4, .txt         e.g. main/s01/00001.mp4; the text holds the syllables
        truth/<speaker>/<clip>.npz              opening, jaw, spread and round of each frame, 0..1
        train.txt, val.txt, test.txt            clip lists
        corpus.json                             settings, speakers, licence

    and prepared by `bench prepare --dataset synthetic --source DIR --out ROOT`::

        <root>/manifest.json
        <root>/splits/{train,val,test}.txt
        <root>/<speaker>/<clip>.safetensors

    Splits: the last clip of each speaker is for test, the one before it for validation; every speaker is in all three.
    Licence: the faces are warped from NASA's portrait of Eileen Collins, public domain, as scikit-image ships it
    (`skimage.data.astronaut`); everything else is made by this package. NASA's portraits must not suggest that NASA
    or the astronaut endorses anything.

    Args are those of `ClipDataModule`.
    """

    name: str = "synthetic"
    videos = "main/{speaker}/{clip}"
    lists = True

    def prepare_data(self) -> None:
        """Check that `root` is a prepared folder.

        Raises:
            FileNotFoundError: it is not there, or has no manifest or no clips.
        """
        try:
            super().prepare_data()
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{self.name}: no clips in {self.root}. Expected <speaker>/<clip>.safetensors and manifest.json. Run: "
                f"bench synthetic --out DIR, then: bench prepare --dataset {self.name} --source DIR --out {self.root}"
            ) from error
