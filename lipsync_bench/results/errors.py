# SPDX-License-Identifier: Apache-2.0
"""What a results folder can refuse."""

__all__ = ["OtherResultsError"]


class OtherResultsError(ValueError):
    """A folder holds results that cannot be added to: of other weights or data, of another version, or damaged.

    Who named the folder by another argument than `out` says so.
    """
