# SPDX-License-Identifier: Apache-2.0
"""Runs a command in the process group that it leads, and ends the whole group when the process that started it is gone,
however that ended: its standard input is a pipe from there. Run as a script; imports only what starts at once.
"""

import os
import signal
import sys
import threading

__all__: list[str] = []


def _end_with_parent() -> None:
    os.read(0, 1)  # returns when the other end is closed
    os.killpg(0, signal.SIGKILL)


def _main(words: list[str]) -> int:
    nothing = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)]
    try:
        child = os.posix_spawnp(words[0], words, os.environ, file_actions=nothing, setsigdef=[signal.SIGPIPE])
    except OSError as error:
        sys.stdout.write(f"{words[0]}: cannot be started ({error.strerror})\n")
        return 127
    threading.Thread(target=_end_with_parent, daemon=True).start()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    ended_with = _main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(ended_with)
