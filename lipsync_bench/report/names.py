# SPDX-License-Identifier: Apache-2.0
"""Names that are safe in paths and addresses: clip ids come from users' file names."""

import hashlib
import re
import unicodedata
from collections.abc import Iterable

_LONGEST = 48
_HASH = 8

__all__ = ["slugs"]


def _plain(text: str) -> str:
    ascii_only = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", ascii_only).strip("-")[:_LONGEST].strip("-")


def slugs(names: Iterable[str]) -> dict[str, str]:
    """A unique name of lower-case letters, digits and hyphens for each name, the same in every run.

    Each ends with the start of the name's SHA-256, so that it does not depend on the other names.
    """
    out: dict[str, str] = {}
    taken: set[str] = set()
    for name in sorted(set(names)):
        digest = hashlib.sha256(name.encode(errors="backslashreplace")).hexdigest()
        length = _HASH
        while (slug := "-".join(filter(None, (_plain(name), digest[:length])))) in taken:
            length += 1
        out[name] = slug
        taken.add(slug)
    return out
