# SPDX-License-Identifier: Apache-2.0
"""What options and fields may hold. The groups of options check themselves, from the shell and from Python alike."""

import math
from collections.abc import Sequence

MAX_CROP_PX = 8192
"""Side of a stored crop: a broken JPEG that says 65535 must not take 12 GB."""

__all__ = ["MAX_CROP_PX", "one_of", "within"]


def within(option: str, value: float | None, least: float, most: float = math.inf) -> None:
    """Raise ValueError for a number outside `least` to `most`, or NaN; None is no number."""
    if value is not None and not least <= value <= most:
        expected = f"{least:g} or more" if math.isinf(most) else f"{least:g} to {most:g}"
        raise ValueError(f"{option} is {value}. Expected {expected}. Correct --{option.replace('_', '-')}")


def one_of(option: str, value: str, choices: Sequence[str]) -> None:
    """Raise ValueError for a value that is none of the choices."""
    if value not in choices:
        raise ValueError(f"{option} {value!r}. Expected {' or '.join(choices)} (--{option.replace('_', '-')})")
