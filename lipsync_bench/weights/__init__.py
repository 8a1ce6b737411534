# SPDX-License-Identifier: Apache-2.0
"""Official weight files as networks and as checkpoints of this package: what `bench import` does.

What there is of them, the modules of their networks say (`OFFICIAL`); here it is collected and used.
"""

import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from lipsync_bench import datamodules, models
from lipsync_bench.datamodules.files.disk import atomic_path, sha256
from lipsync_bench.datamodules.files.weights import in_order, is_state, read_torch
from lipsync_bench.datamodules.foreign import Foreign, imported, joined
from lipsync_bench.datamodules.lookup import modules_with
from lipsync_bench.datamodules.weights.official_weights import OfficialWeights
from lipsync_bench.models.core.checkpoints import load_module, read_origin, save_module

_log = logging.getLogger(__name__)

__all__ = ["KINDS", "import_file", "import_official", "official_network", "official_state"]


def _kinds() -> dict[str, OfficialWeights]:
    names = [
        name
        for package in (datamodules, models)
        for name in modules_with(package.__name__, package.__path__, "OFFICIAL =")
    ]
    ours: dict[str, OfficialWeights] = {}
    theirs: list[tuple[str, Foreign, OfficialWeights]] = []
    for module, entry in imported(names):
        if entry is None:
            ours |= {record.name: record for record in module.OFFICIAL}
        else:
            theirs += [(record.name, entry, record) for record in module.OFFICIAL]
    return dict(sorted(joined("kind of weights", ours, theirs).items()))


KINDS = _kinds()


def _kind(name: str) -> OfficialWeights:
    if name not in KINDS:
        raise ValueError(f"kind '{name}'. Expected one of {', '.join(KINDS)}. Run: bench import KIND FILE --out CKPT")
    return KINDS[name]


def official_state(kind: OfficialWeights, path: Path) -> dict[str, Tensor]:
    """The state dict inside a file, under its official names."""
    entries = read_torch(path, kind.expected, "Download it again, or name another path")
    outer = next((key for key in kind.outer if isinstance(entries, Mapping) and key in entries), None)
    inner = entries if outer is None else entries[outer]
    if not isinstance(inner, Mapping):
        raise ValueError(
            f"{path}: {'holds' if outer is None else f'its entry {outer} is'} a {type(inner).__name__}. Expected a "
            f"dictionary of tensors: {kind.expected}. Name another file"
        )
    state: dict[str, Tensor] = {}
    for key, value in inner.items():
        if not is_state({key: value}):
            raise ValueError(
                f"{path}: entry {key!r} is a {type(value).__name__}. Expected tensors alone, or one of the outer keys "
                f"{', '.join(kind.outer)}: {kind.expected}. Name another file"
            )
        name = kind.rename(key)
        if name is None:
            continue
        if name in state:
            raise ValueError(f"{path}: two entries are called {name}. Expected one: {kind.expected}. Name another file")
        state[name] = value
    return state


def _fill(kind: OfficialWeights, path: Path, network: nn.Module, state: Mapping[str, Tensor]) -> None:
    if kind.by_order:
        state = in_order(network.state_dict(), state)
    differences = kind.differences(network, state)
    if differences:
        raise ValueError(
            f"{path}: is not a {kind.name}. {differences}. Expected {kind.expected}. Name another kind "
            f"({', '.join(KINDS)}) or file"
        )
    broken = [name for name, value in state.items() if not bool(torch.isfinite(value).all())]
    if broken:
        raise ValueError(
            f"{path}: NaN or infinity in {', '.join(broken)}. Expected numbers: {kind.expected}. Download it again"
        )
    network.load_state_dict(state, strict=False)  # compared above
    if kind.lacks_part(state):
        for value in network.get_submodule(kind.optional).state_dict().values():
            if value.is_floating_point():
                value.fill_(torch.nan)  # rather than random weights, which nobody would notice
        _log.warning("%s: has no weights of the part %s, which gives NaN until it is replaced", path, kind.optional)


def official_network(kind: OfficialWeights, path: Path, state: dict[str, Tensor]) -> nn.Module:
    """As `import_official`, of a file that `official_state` has read."""
    network = kind.build(state)
    _fill(kind, path, network, state)
    return network.eval()


def import_official(kind: str, path: Path | str) -> nn.Module:
    """The network of an official weight file, at full width, on the CPU in evaluation mode.

    Its state-dict names and its `forward` are the official ones: (audio, faces) for generators and experts, in BGR. The
    file may be what the training scripts save (with optimiser state and "module." before the names), a flat
    dictionary, or a TorchScript archive. Nothing in it is executed. A part that the file may lack (E-Net's L-Net,
    called `low_res`) holds NaN then, until it is replaced.

    Args:
        kind: A name in `KINDS`.
        path: The file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: An unknown kind; a file that is truncated, damaged, or asks for code to be called; names that are
            missing or unknown, or other shapes, all listed.
    """
    record, path = _kind(kind), Path(path)
    return official_network(record, path, official_state(record, path))


def _tell(record: OfficialWeights, path: Path, network: nn.Module) -> dict[str, str]:
    """Logs what an official file is; what of it goes into the checkpoint."""
    count, digest = sum(parameter.numel() for parameter in network.parameters()), sha256(path)
    _log.info("%s: %s, %s parameters, sha256 %s", path, record.name, f"{count:,}".replace(",", " "), digest)
    _log.info("  documented at %s; weights: %s", record.documented, record.licence)
    if record.dead:
        _log.info("  loaded, but without influence on the output: %s", record.dead)
    return {"kind": record.name, "file": path.name, "sha256": digest}


def import_file(kind: str, path: Path, out: Path, disc: Path | None = None, base: Path | None = None) -> None:
    """Writes an official weight file as a checkpoint of this package, and logs what it is.

    A generator or a lip-sync expert becomes a checkpoint like those of `lightning fit`, with the official file's name
    and SHA-256 in its record (`origin`); the others become a flat
    `torch.save` dictionary with official names, which their loaders (`load_syncnet`, `load_s3fd`) read, as they read
    the original.

    Args:
        kind: A name in `KINDS`.
        path: The official file.
        out: The checkpoint; replaced if it is there.
        disc: For a generator that is to be trained further with its discriminator: official file of that.
        base: For the second stage of a method: checkpoint of the first, which becomes part of it.

    Raises:
        FileNotFoundError, ValueError: As `import_official`; `out` is an input; `disc` or `base` for a kind without,
            or no `base` for a file that needs it.
    """
    record = _kind(kind)
    if disc is not None and not record.partner:
        raise ValueError(f"--disc {disc} with kind {kind}. Expected a generator's kind. Leave out --disc")
    for source in (path, disc, base):
        if source is not None and out.exists() and source.exists() and out.samefile(source):
            raise ValueError(f"--out {out} is the official file itself. Expected another path. Set --out CKPT")
    state = official_state(record, path)
    if record.needs_first_stage(state) if base is None else record.first_stage is None:
        expected = "none for this kind" if record.first_stage is None else "the checkpoint of its first stage"
        raise ValueError(f"--base {base} with kind {kind}. Expected {expected}. Set or leave out --base BASE.ckpt")
    network = official_network(record, path, state)
    origin = _tell(record, path, network)
    partner = None
    if disc is not None:
        partner = import_official(record.partner, disc)
        origin["discriminator_sha256"] = _tell(KINDS[record.partner], disc, partner)["sha256"]
    if record.module is not None:
        module = record.module(network, partner)
        if base is not None and record.first_stage is not None:
            origin["base_sha256"] = sha256(base)
            origin["base_origin_sha256"] = read_origin(base).get("sha256", "")
            module.attach_base(load_module(base, [record.first_stage]).generator, origin["base_sha256"])
        save_module(module, out, origin)
    else:
        with atomic_path(out) as temporary:
            torch.save(network.state_dict(), temporary)
    _log.info("%s: written. Use: %s", out, record.use.format(out=out))
