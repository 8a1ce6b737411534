# SPDX-License-Identifier: Apache-2.0
"""How adversarial terms fared in runs with `lipsync_bench.callbacks.WatchAdversarial`: a table and curves.

    python -m benchmarks.adversarial_terms --run NAME=runs/FOLDER [--run ...] --out curves.png

Prints the table in Markdown; reads the newest `lightning_logs/*/metrics.csv` of each run.
"""

import argparse
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

VALUES = {
    "train/logit_real": "D's logit, true faces",
    "train/logit_fake": "D's logit, generated faces",
    "train/adversarial_gradient": "gradient on the frames",
    "train/l1": "train L1",
}
ROWS = 10  # of the table


def _history(folder: Path) -> pd.DataFrame:
    """What was watched, by batch."""
    files = sorted(folder.glob("lightning_logs/*/metrics.csv"), key=lambda path: path.stat().st_mtime)
    log = pd.read_csv(files[-1]).dropna(subset=["train/logit_real"])
    log.index = log["step"] + 1  # of batches, here
    return log[[*VALUES]]


def _table(name: str, log: pd.DataFrame) -> str:
    shown = log.iloc[len(log) // ROWS - 1 :: len(log) // ROWS]
    lines = [f"| {name}: batches | " + " | ".join(VALUES.values()) + " |", "|---:" * (1 + len(VALUES)) + "|"]
    lines += [
        f"| {batch} | " + " | ".join(f"{value:.3g}" for value in row) + " |" for batch, *row in shown.itertuples()
    ]
    return "\n".join(lines) + "\n\n"


def _plot(runs: dict[str, pd.DataFrame], path: Path) -> None:
    figure, (logits, gradient) = plt.subplots(1, 2, figsize=(9, 3))
    for number, (name, log) in enumerate(runs.items()):
        logits.plot(log.index, log["train/logit_real"], f"C{number}-", label=f"{name}, true")
        logits.plot(log.index, log["train/logit_fake"], f"C{number}--", label=f"{name}, generated")
        gradient.plot(log.index, log["train/adversarial_gradient"], f"C{number}-", label=name)
    logits.set_yscale("symlog")
    gradient.set_yscale("symlog", linthresh=1e-6)
    for axis, title in ((logits, "mean logit of the discriminator"), (gradient, "gradient norm on the frames")):
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("batches")
        axis.legend(fontsize=7)
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Print the table and draw the curves."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--run", action="append", required=True, metavar="NAME=FOLDER")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    runs = {name: _history(Path(folder)) for name, folder in (run.split("=", 1) for run in given.run)}
    sys.stdout.write("".join(_table(name, log) for name, log in runs.items()))
    _plot(runs, given.out)


if __name__ == "__main__":
    main()
