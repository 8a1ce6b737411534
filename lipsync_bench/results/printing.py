# SPDX-License-Identifier: Apache-2.0
"""Numbers, and letters that number, as every table prints them."""

import math
from string import ascii_lowercase

NOTHING = "–"

__all__ = ["NOTHING", "fixed", "letters", "value_text"]


def fixed(value: float, digits: int) -> str:
    """A finite value with so many digits behind the point; zero has no sign."""
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def value_text(value: float, digits: int) -> str:
    """A value in a cell: a dash for none, "identical" for an infinite one (images without any difference)."""
    if math.isnan(value):
        return NOTHING
    return "identical" if math.isinf(value) else fixed(value, digits)


def letters(number: int) -> str:
    """From 0: a, b, ..., z, aa, ab, ..."""
    high, low = divmod(number, len(ascii_lowercase))
    return (letters(high - 1) if high else "") + ascii_lowercase[low]
