# SPDX-License-Identifier: Apache-2.0
"""Processes that work together wait for each other."""

import os
import socket
import subprocess
import sys
from pathlib import Path


def test_processes_wait_for_each_other_any_number_of_times(tmp_path):
    """Without torchrun, which would keep the meeting place; the first process keeps it itself then."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    script = (
        "import sys, time; from pathlib import Path; from lipsync_bench.processes import wait_for_all\n"
        "for k in range(3):\n"
        "    time.sleep(0.3 * (sys.argv[1] == '1')); Path(sys.argv[2], f'{k}-{sys.argv[1]}').touch(); wait_for_all()\n"
        "    assert len(list(Path(sys.argv[2]).glob(f'{k}-*'))) == 2\n"
    )
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(rank), str(tmp_path)],
            cwd=Path(__file__).parents[2],
            env={**os.environ, **place, "RANK": str(rank)},
        )
        for rank in range(2)
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
