# SPDX-License-Identifier: Apache-2.0
"""The `bench` command: its subcommands, and how it ends."""

import logging
import os
import sys
from collections.abc import Sequence

from lipsync_bench.cli.calm import calm
from lipsync_bench.cli.command_line import Subcommands, WrongUsage, command_line, parse, sub_app
from lipsync_bench.cli.data_commands import base_frames, coefficients, cut, prepare, synthetic
from lipsync_bench.cli.doctor import doctor
from lipsync_bench.cli.endings import errors_in_a_line
from lipsync_bench.cli.experiment_commands import experiments_copy, experiments_list
from lipsync_bench.cli.logs import show_logs
from lipsync_bench.cli.method_commands import demo, dub, import_, mouth_reference
from lipsync_bench.cli.scoring_commands import evaluate, export, leaderboard_merge, report, sync, table
from lipsync_bench.cli.weights_commands import (
    weights_fetch,
    weights_list,
    weights_pack,
    weights_verify,
    weights_where,
)

WRONG_USAGE = 2
INTERRUPTED = 130
READER_LEFT = 141  # 128 and the number of SIGPIPE
SUBCOMMANDS: dict[str, Subcommands] = {
    "Start here": {"demo": demo, "doctor": doctor},
    "Data": {
        "prepare": prepare,
        "synthetic": synthetic,
        "cut": cut,
        "base-frames": base_frames,
        "coefficients": coefficients,
    },
    "Evaluation": {
        "evaluate": evaluate,
        "export": export,
        "table": table,
        "report": report,
        "leaderboard": sub_app("leaderboard", "Join several results in one leaderboard.", {"merge": leaderboard_merge}),
        "sync": sync,
    },
    "Methods": {
        "dub": dub,
        "mouth-reference": mouth_reference,
        "import": import_,
        "experiments": sub_app(
            "experiments",
            "The YAMLs of runs, benchmarks, protocols and tables.",
            {"list": experiments_list, "copy": experiments_copy},
        ),
        "weights": sub_app(
            "weights",
            "Official weight files: which there are, where they are, whether they are right; download; pack your own.",
            {
                "list": weights_list,
                "where": weights_where,
                "verify": weights_verify,
                "fetch": weights_fetch,
                "pack": weights_pack,
            },
        ),
    },
}
ABOUT = """Audio-driven talking-face methods and the evaluation that ranks them.

What a subcommand takes: bench SUBCOMMAND --help. Training: lightning fit --help."""

_log = logging.getLogger("lipsync_bench.bench")  # under python -m `__name__` is another, whose messages nobody shows

__all__ = ["SUBCOMMANDS", "app", "main"]

app = command_line("bench", ABOUT, SUBCOMMANDS)


def main(args: Sequence[str] | None = None) -> None:
    """Entry point of the console script `bench`. Ends with 0, 1 on an error, 2 on wrong usage, 130 when interrupted."""
    if args is None:
        calm()
    show_logs()
    try:
        with errors_in_a_line():
            try:
                sys.exit(parse(app, sys.argv[1:] if args is None else args)())
            except WrongUsage as error:
                _log.error("error: %s", error)
                sys.exit(WRONG_USAGE)
            finally:
                sys.stdout.flush()  # here, where a reader that has left, or a full disk, can be noticed
    except BrokenPipeError:  # such as head, which has seen enough: end as Unix tools do
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(READER_LEFT)
    except KeyboardInterrupt:
        _log.error("interrupted; the same command resumes")
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
