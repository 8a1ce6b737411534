# SPDX-License-Identifier: Apache-2.0
"""A registry of files that are small enough for tests, and their contents."""

import hashlib

from lipsync_bench.datamodules.weights.registry import WeightFile

__all__ = ["ALPHA", "BETA", "GAMMA", "OLD", "small_registry"]


def _bytes(seed: int, size: int) -> bytes:
    return b"".join(hashlib.sha256(f"{seed} {place}".encode()).digest() for place in range(size // 32 + 1))[:size]


ALPHA, BETA, GAMMA, OLD = _bytes(1, 300_000), _bytes(2, 2_000), _bytes(3, 3_000), _bytes(4, 300_000)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def small_registry(
    official: tuple[str, ...] = (), mirrors: tuple[str, ...] = (), **changes: object
) -> dict[str, WeightFile]:
    """alpha is fully known, beta has no public size, gamma no public hash. The addresses are alpha's."""
    known = {"licence": "for tests only", "documented": "example.org"}
    alpha = {
        "aliases": ["alias.pth"],
        "what": "a network",
        "size": len(ALPHA),
        "sha256": _sha256(ALPHA),
        "sources": 2,
        "official": list(official),
        "mirrors": list(mirrors),
        "other": {_sha256(OLD): "the version of last year"},
        **changes,
    }
    files = [
        WeightFile.model_validate({"id": "alpha", "file": "alpha.pth", **known, **alpha}),
        WeightFile(id="beta", file="beta.pt", sha256=_sha256(BETA), sources=1, **known),
        WeightFile(id="gamma", file="gamma.pth", official=list(official), mirrors=list(mirrors), **known),
    ]
    return {file.id: file for file in files}
