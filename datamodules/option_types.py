# SPDX-License-Identifier: Apache-2.0
"""How typed words become values, where several groups of options need the same."""

import re
from collections.abc import Sequence
from typing import Annotated

from cyclopts import Parameter, Token

__all__ = ["Whole", "Words"]


def _whole(kind: object, tokens: Sequence[Token]) -> int:
    """cyclopts rounds 1.5 to 2."""
    try:
        return int(tokens[-1].value)
    except ValueError as error:
        raise ValueError(f"{tokens[-1].value!r} is no whole number. Expected one") from error


def _words(kind: object, tokens: Sequence[Token]) -> tuple[str, ...]:
    lists = (re.fullmatch(r"\[([^][]*)\]", token.value) for token in tokens)
    texts = (found[1] if found else token.value for found, token in zip(lists, tokens, strict=True))
    return tuple(word for text in texts for part in text.split(",") if (word := part.strip(" \t\"'")))


Whole = Annotated[int, Parameter(converter=_whole)]
Words = Annotated[Sequence[str], Parameter(converter=_words)]
"""As a,b or [a,b], or the option given several times."""
