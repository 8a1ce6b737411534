# SPDX-License-Identifier: Apache-2.0
"""How every table prints numbers and group letters."""

import math
from string import ascii_lowercase

NOTHING = "–"

__all__ = ["NOTHING", "fixed", "letters", "value_text"]


def fixed(value: float, digits: int) -> str:
    """A finite value with that many decimals; zero has no sign."""
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def value_text(value: float, digits: int) -> str:
    """A value in a cell: a dash if it is missing, "identical" if it is infinite (PSNR of identical images)."""
    if math.isnan(value):
        return NOTHING
    return "identical" if math.isinf(value) else fixed(value, digits)


def letters(number: int) -> str:
    """The letters of a number from 0: a, b, ..., z, aa, ab, ..."""
    high, low = divmod(number, len(ascii_lowercase))
    return (letters(high - 1) if high else "") + ascii_lowercase[low]
