"""A metric: a function `scorer` and, as the last statement, its description. This one measures how red the face is."""

import numpy as np

from lipsync_bench.metrics.metric import Column, Description, FrameScorer, ScoredClip, View


class _Scorer(FrameScorer):
    """FrameScorer averages one value a frame; derive from Scorer for anything else."""

    def update(self, view: View) -> None:
        """The crops are uint8 RGB (H, W, 3); view.target_crops are those of the real video."""
        self.add("redness", np.array([crop[:, :, 0].mean() for crop in view.crops]))


def scorer(clip: ScoredClip) -> _Scorer:
    """A new scorer for one candidate on one clip; None where the metric does not apply."""
    return _Scorer()


# Read without importing this file: literals and the names of lipsync_bench.metrics.metric only.
METRIC = Description(
    columns=(Column("redness", "Redness", "levels", None, 1, (0, 255), "none", "lipsync_example"),),
    about={"redness": "How red the frames are."},
    checked="nothing, it is an example",
)
