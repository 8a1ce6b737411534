# SPDX-License-Identifier: Apache-2.0
"""`lightning fit ...`, and `python -m lipsync_bench fit ...`, which does the same.

lightning-sdk installs a script that is also called `lightning`; this spelling reaches ours whatever is on the path.
"""

from lipsync_bench.cli.calm import calm

__all__ = ["main"]


def main() -> None:
    """Entry point of the console script `lightning`."""
    calm()
    from lipsync_bench.cli.lightning import main as run  # which loads torch

    run()


if __name__ == "__main__":
    main()
