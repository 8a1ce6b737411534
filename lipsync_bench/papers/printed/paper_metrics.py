# SPDX-License-Identifier: Apache-2.0
"""The metrics of the papers' tables, and our column for each."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from lipsync_bench.evaluation.task.lse_script import LSE_SCRIPTS, lse_script
from lipsync_bench.metrics.registry import NETWORKS
from lipsync_bench.metrics.registry import column as our_column

__all__ = ["PAPER_METRICS", "PaperMetric"]


@dataclass(frozen=True)
class PaperMetric:
    """One metric as the papers print it.

    Args:
        title: Heading in tables.
        unit: Unit of the value, empty for pure numbers.
        higher_is_better: Direction.
        kind: "frames": a formula or network on frames, cut by the protocol's crop. "sync": SyncNet on lips and audio.
            "ratings", "votes": people's, each the name of the option of `bench table` that takes their file.
        column: Our column in leaderboard.csv; empty for what people say.
        unstated: A sentence on a choice of ours that no paper states; empty if there is none.
        others: Our column in a paper's tables or on a data set, by name, where it is another one.
        diagnostic: Our column that may explain the paper's values but does not compare methods; empty without one.
    """

    title: str
    unit: str
    higher_is_better: bool
    kind: Literal["frames", "sync", "ratings", "votes"]
    column: str = ""
    unstated: str = ""
    others: Mapping[str, str] = field(default_factory=dict)
    diagnostic: str = ""

    def column_of(self, paper: str, dataset: str) -> str:
        """Our column in a paper's tables on a data set, both as the tables call them."""
        return self.others.get(paper) or self.others.get(dataset, self.column)

    def files(self, paper: str, datasets: Iterable[str]) -> tuple[str, ...]:
        """The official files that its columns need, by their ids in the store; empty for a formula."""
        tracks = any(self.column_of(paper, dataset).endswith("_real") for dataset in datasets)
        return (*((self.weights,) if self.weights else ()), *(("sfd_face",) if tracks else ()))

    @property
    def network(self) -> str:
        """The metric network, by the name of its weights in rows (`<network>_sha256`); empty for a formula."""
        return our_column(self.column).network if self.column else ""

    @property
    def weights(self) -> str:
        """The network's official file, by its id in the store; empty for a formula."""
        return next((network.weights for _, network in NETWORKS if network.name == self.network), "")

    @property
    def study(self) -> str:
        """What people gave, "ratings" or "votes"; empty for measurements."""
        return self.kind if self.kind in ("ratings", "votes") else ""

    @property
    def pooled(self) -> bool:
        """Whether it is one value of all clips together, which counts frames and has no interval."""
        return bool(self.column) and our_column(self.column).kind == "pooled"

    @property
    def heading(self) -> str:
        """Title with unit and an arrow in the better direction."""
        return f"{self.title}{f' ({self.unit})' if self.unit else ''} {'↑' if self.higher_is_better else '↓'}"


_TRACKED = tuple(dataset for dataset in LSE_SCRIPTS if lse_script(dataset) == "wav2lip_real")
_SCRIPT = (
    "The papers do not say which of Wav2Lip's two scripts gave LSE; ours is the one on face tracks (real) on "
    f"{', '.join(_TRACKED)}, whose frames are large, and else the one on whole frames (LRS)."
)


def _lse(letter: str) -> dict[str, str]:
    return {dataset: f"lse_{letter}_{LSE_SCRIPTS[dataset]}" for dataset in LSE_SCRIPTS}


PAPER_METRICS = {
    "psnr": PaperMetric("PSNR", "dB", True, "frames", "psnr", diagnostic="psnr_uint8"),
    "ssim": PaperMetric("SSIM", "", True, "frames", "ssim"),
    "lmd": PaperMetric(
        "LMD",
        "px",
        False,
        "frames",
        "lmd",
        unstated="LMD's lips are centred on each other first in LipFormer's tables (lmd_centred), as in the paper that "
        "it cites for LMD; HyperLips does not say, and ours are not.",
        others={"lipformer": "lmd_centred"},
    ),
    "lpips": PaperMetric(
        "LPIPS",
        "",
        False,
        "frames",
        "lpips_alex",
        unstated="The papers do not state the net of LPIPS; ours is alex.",
    ),
    "mse": PaperMetric("MSE", "", False, "frames", "mse"),
    "fid": PaperMetric(
        "FID",
        "",
        False,
        "frames",
        "fid",
        unstated="The papers do not say which real frames FID is against; ours are those of the videos dubbed.",
    ),
    "cpbd": PaperMetric(
        "CPBD",
        "",
        True,
        "frames",
        "cpbd",
        unstated="The papers do not say which program computed CPBD; ours agrees with the Python package cpbd.",
    ),
    "lse_c": PaperMetric("LSE-C", "", True, "sync", "lse_c_wav2lip_lrs", _SCRIPT, _lse("c")),
    "lse_d": PaperMetric("LSE-D", "", False, "sync", "lse_d_wav2lip_lrs", _SCRIPT, _lse("d")),
    "visual_mos": PaperMetric("Visual quality", "1-5", True, "ratings"),
    "sync_mos": PaperMetric("Lip sync", "1-5", True, "ratings"),
    "realness_mos": PaperMetric("Realness", "1-5", True, "ratings"),
    "visual_votes": PaperMetric("Best visual quality", "% of votes", True, "votes"),
    "sync_votes": PaperMetric("Best lip sync", "% of votes", True, "votes"),
}
