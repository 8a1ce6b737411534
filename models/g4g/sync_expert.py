# SPDX-License-Identifier: Apache-2.0
"""The lip-sync expert of G4G: Wav2Lip's, trained on G4G's crop."""

from lipsync_bench.datamodules.faces.crop_rules.g4g import LandmarkCrop
from lipsync_bench.datamodules.recipes.recipe import Recipe
from lipsync_bench.models.wav2lip.sync_expert import SyncExpertModule

__all__ = ["G4GSyncExpertModule"]


class G4GSyncExpertModule(SyncExpertModule):
    """Trains the lip-sync expert of G4G on the lower half of its crop, rows 208 and below of 416, as 48 x 96 pixels.

    G4G: A Generic Framework for High Fidelity Talking Face Generation with Fine-grained Intra-modal Alignment. 2024.
    https://arxiv.org/abs/2402.18122

    The paper says that there is a pretrained expert and names none; DINet's takes DeepSpeech. One that was trained on
    another crop does not fit (choice). The rest is `SyncExpertModule`'s.

    Args:
        width: factor on the channels.
        lr: learning rate of Adam.
    """

    experiment = "experiments/g4g_sync_expert.yaml"

    def published(self) -> Recipe:
        """G4G's crop, averaged over areas to the expert's size."""
        return Recipe(LandmarkCrop(enlarge=1.1), (self.image_size, self.image_size), resize="area")
