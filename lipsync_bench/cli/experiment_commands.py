# SPDX-License-Identifier: Apache-2.0
"""The subcommands of `bench experiments`: the YAMLs that come with the package, shown and copied."""

import sys
from pathlib import Path

from lipsync_bench.datamodules.files.disk import write_atomic
from lipsync_bench.datamodules.files.texts import read_text
from lipsync_bench.experiment_files import (
    HERE,
    experiment_folders,
    experiment_names,
    installed_experiments,
    plain_name,
    run_file,
)

_WIDTH = 120  # of what is listed

__all__ = ["experiments_copy", "experiments_list"]


def _about(path: Path) -> str:
    """The first sentence of a YAML's comment."""
    lines = read_text(path, "a YAML", "Correct it").splitlines()
    comment = " ".join(line.lstrip("# ") for line in lines[: next((i for i, x in enumerate(lines) if x[:1] != "#"), 0)])
    return comment.partition(". ")[0].rstrip(".").removeprefix("Overlay: ")


def experiments_list() -> int:
    """Show the YAMLs there are, by the names that lightning fit -c and the options of bench take.

    Those in experiments/ of the working folder come before the package's of the same name.
    """
    groups = {kind: experiment_names(kind) for kind in ("", *experiment_folders())}
    width = max(len(f"{kind}/{name}") for kind, names in groups.items() for name in names)
    titles = {
        "": "Runs: lightning fit -c NAME",
        "benchmarks": "Benchmarks: bench evaluate --dataset NAME",
        "protocols": "Protocols: bench evaluate --protocol NAME",
        "systems": "Systems: bench dub --checkpoint NAME, bench evaluate --methods.MINE NAME",
        "tables": "Papers' tables: bench table NAME",
    }
    for kind, names in groups.items():
        plain = kind in titles
        sys.stdout.write(f"{titles.get(kind, f'Overlays: lightning fit -c RUN -c {kind}/NAME')}\n")
        for name in names:
            shown = name if plain else f"{kind}/{name}"
            about = _about(run_file(f"{kind}/{name}" if kind else name))
            sys.stdout.write(f"  {shown:{width}}  {about}"[:_WIDTH].rstrip() + "\n")
    return 0


def experiments_copy(name: str, /, *, out: Path | None = None, overwrite: bool = False) -> int:
    """Copy a YAML of the package, to change it.

    In experiments/ of the working folder it is found before the package's.

    Args:
        name: As bench experiments list shows it; those of benchmarks, protocols, systems and tables
            with their folder: benchmarks/lrs2.
        out: The file to write; experiments/NAME.yaml if not given.
        overwrite: Replace a file that is there.
    """
    plain = f"{plain_name(name)}.yaml"
    source, target = run_file(name), out or HERE / plain
    if target.exists() and target.samefile(source):  # the copy that is there hides the package's
        source = installed_experiments() / plain
    if target.exists() and not overwrite:
        raise FileExistsError(f"{target} is there already. Expected a new file. Set --out FILE or --overwrite")
    if target.exists() and target.samefile(source):
        raise ValueError(f"{target} is the package's own file. Expected another place. Set --out FILE")
    write_atomic(target, source.read_bytes())
    sys.stdout.write(f"{target}\n")
    return 0
