# SPDX-License-Identifier: Apache-2.0
"""Share of the frames in which no face is found."""

from lipsync_bench.metrics.metric import Column, Description, FrameScorer, ScoredClip, Scorer, View

__all__: list[str] = []


class _Scorer(FrameScorer):
    def update(self, view: View) -> None:
        self.add("detection_failure", 1.0 - view.face_found)


def scorer(clip: ScoredClip) -> Scorer:
    """Scores the candidate's frames."""
    return _Scorer()


METRIC = Description(
    columns=(
        Column(
            "detection_failure",
            "Face not found",
            "share",
            False,
            3,
            (0, 1),
            "none",
            "this suite: frames without a face",
            order=130,
        ),
    ),
    about={
        "detection_failure": "Share of the frames in which no face is found; 0 is good.",
    },
    checked="share of frames in which Face Mesh (or the protocol's own detector) finds no face",
)
