# SPDX-License-Identifier: Apache-2.0
"""The error of a results folder that cannot be used."""

__all__ = ["OtherResultsError"]


class OtherResultsError(ValueError):
    """A folder holds results that cannot be extended: of other weights or data, of another version, or damaged.

    A caller whose argument for the folder is not `out` adds the name of its own.
    """
