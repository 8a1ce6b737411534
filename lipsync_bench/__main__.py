# SPDX-License-Identifier: Apache-2.0
"""`python -m lipsync_bench fit ...` does what `lightning fit ...` does.

lightning-sdk installs a script that is also called `lightning`; this spelling reaches ours whatever is on the path.
"""

from lipsync_bench.cli.lightning import main

if __name__ == "__main__":
    main()
