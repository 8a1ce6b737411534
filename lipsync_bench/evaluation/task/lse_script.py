# SPDX-License-Identifier: Apache-2.0
"""Which of Wav2Lip's two scripts gives LSE on a data set: evaluation and the papers' tables look here."""

from typing import Literal

LSEScript = Literal["wav2lip_lrs", "wav2lip_real"]

LSE_SCRIPTS: dict[str, LSEScript] = {
    "lrs2": "wav2lip_lrs",
    "hdtf": "wav2lip_real",
    "mead_neutral": "wav2lip_real",
    "custom": "wav2lip_real",
    "adnerf": "wav2lip_real",
}
"""By data set, as the papers call it: "wav2lip_lrs" squeezes whole frames to 224 pixels, for videos that are cropped to
the face; "wav2lip_real" finds and tracks faces, for all others. Only Wav2Lip's paper says which it took, for LRS2; the
others are by the size of their frames. HyperLips' ground truth on MEAD (LSE-C 2.161) looks like whole frames of 1080p
that were squeezed: there the paper's own values are of the script that does not fit."""

__all__ = ["LSE_SCRIPTS", "LSEScript", "lse_script"]


def lse_script(dataset: str) -> LSEScript:
    """The script for a data set, as the papers call it; that on whole frames where nothing is known."""
    return LSE_SCRIPTS.get(dataset, "wav2lip_lrs")
