# SPDX-License-Identifier: Apache-2.0
"""Networks that a module uses and does not train: declared once, loaded when they are needed."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

import torch
from torch import Tensor, nn

from lipsync_bench.datamodules.files.disk import sha256
from lipsync_bench.models.core.checkpoint_files import RECORD
from lipsync_bench.models.core.exact_training import ExactTraining

_Network = TypeVar("_Network")
_log = logging.getLogger(__name__)

__all__ = ["Frozen", "FrozenParts", "frozen"]


class Frozen(Generic[_Network]):
    """A frozen network as an attribute of its module: loaded when it is first read, None where it is not wanted.

    Declared by the method that loads it, which gives None where it is not wanted:

        @frozen("vgg19")
        def vgg_loss(self) -> VGGLoss | None:
            return VGGLoss(self.perceptual_weights) if self.weights["vgg"] > 0 else None

    The network's attribute `source_sha256` is the SHA-256 of the file that its weights were read from, or "random"; it
    is stored in the record of a checkpoint.

    Args:
        load: the method.
        sha256_key: key in the record of a checkpoint under which `source_sha256` is stored.
        argument: of the module's constructor, if it names the checkpoint that the network comes from.
        make_without_weights: makes the network from the module and a checkpoint's record. If it is given, checkpoints
            contain the weights of this network, and its file is not needed to load them.
        recorded_attributes: further attributes of the network that the record stores, by their keys there;
            `make_without_weights` reads them.
        training_mode: whether it stays in training mode (its batch norms use the statistics of a batch), not in
            evaluation mode.
    """

    name: str

    def __init__(
        self,
        load: Callable[[Any], _Network],
        sha256_key: str,
        argument: str = "",
        make_without_weights: Callable[[Any, Mapping[str, Any]], nn.Module] | None = None,
        recorded_attributes: Mapping[str, str] | None = None,
        training_mode: Callable[[Any], bool] = lambda module: False,
    ) -> None:
        self.load, self.argument, self.training_mode = load, argument, training_mode
        self.sha256_key, self.make_without_weights = sha256_key, make_without_weights
        self.recorded_attributes = {sha256_key: "source_sha256", **(recorded_attributes or {})}

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, module: None, owner: Any = None) -> "Frozen[_Network]": ...

    @overload
    def __get__(self, module: "FrozenParts", owner: Any = None) -> _Network: ...

    def __get__(self, module: Any, owner: Any = None) -> Any:
        if module is None or module.loaded(self.name) is not None:
            return self if module is None else module.loaded(self.name)
        with torch.inference_mode(False):  # a validation may be the first to read it
            network: Any = self.load(module)
            if network is not None and self.argument:
                path = Path(module.hparams[self.argument])
                network.source_sha256 = sha256(path)
                _log.info("%s: %s %s, sha256 %s", type(module).__name__, self.argument, path, network.source_sha256)
            setattr(module, self.name, network)
        return network


def frozen(sha256_key: str, **settings: Any) -> Callable[[Callable[[Any], _Network]], Frozen[_Network]]:
    """Declares the frozen network that a method loads; the arguments are those of `Frozen`."""
    return lambda load: Frozen(load, sha256_key, **settings)


class FrozenParts(ExactTraining):
    """A module with frozen networks, each declared by `frozen`.

    They are no submodules: neither `parameters()`, optimisers and `state_dict` have them, nor what callbacks copy. They
    follow the module to devices and dtypes and not in its mode, and are loaded before training, validation and test
    begin. In a checkpoint, those that it carries lie beside the module's own weights.
    """

    def __init__(self) -> None:
        super().__init__()
        self._frozen: dict[str, nn.Module] = {}

    @classmethod
    def frozen_parts(cls) -> dict[str, Frozen[Any]]:
        """The declarations by name, those of base classes first."""
        declared = (item for kind in reversed(cls.__mro__) for item in vars(kind).items())
        return {name: part for name, part in declared if isinstance(part, Frozen)}

    def loaded(self, name: str) -> Any:
        """A frozen network, or None where it has not been loaded."""
        return self._frozen.get(name)

    def loaded_parts(self) -> dict[str, nn.Module]:
        """All that have been loaded, by name."""
        return dict(self._frozen)

    def __setattr__(self, name: str, value: Any) -> None:
        part = getattr(type(self), name, None)
        if not isinstance(part, Frozen):
            super().__setattr__(name, value)
        elif value is None:
            self._frozen.pop(name, None)
        else:
            value.requires_grad_(False).train(part.training_mode(self))
            self._frozen[name] = value.to(self.device, self.dtype)

    def setup(self, stage: str) -> None:
        super().setup(stage)
        for name, part in self.frozen_parts().items() if stage != "predict" else ():
            try:
                getattr(self, name)
            except (OSError, ValueError):
                if part.make_without_weights is None:  # else a checkpoint that is loaded later may contain the weights
                    raise

    def on_fit_start(self) -> None:
        super().on_fit_start()
        if any(isinstance(module, nn.SyncBatchNorm) for module in self.modules()):  # --trainer.sync_batchnorm true
            for name, network in self._frozen.items():
                self._frozen[name] = nn.SyncBatchNorm.convert_sync_batchnorm(network)

    def checkpoint_state(self) -> dict[str, Tensor]:
        return {**super().checkpoint_state(), **self._carried_state()}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        for name, part in self.frozen_parts().items():
            network = self.loaded(name)
            for key, attribute in part.recorded_attributes.items():
                checkpoint[RECORD][key] = getattr(network, attribute, None)
        checkpoint["state_dict"].update(self._carried_state())
        super().on_save_checkpoint(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state, record = checkpoint["state_dict"], checkpoint.get(RECORD, {})
        carried = []
        for name, part in self.frozen_parts().items():
            names = [key for key in state if key.startswith(f"{name}.")]
            if part.make_without_weights is not None and names and part.recorded_attributes.keys() <= record.keys():
                network: Any = part.make_without_weights(self, record)
                network.source_sha256 = record[part.sha256_key]
                setattr(self, name, network)  # also in the place of one that was read from a file
                carried.append((part, network, names))
        super().on_load_checkpoint(checkpoint)
        for part, network, names in carried:
            self.refuse_another(part.argument, self.hparams[part.argument], network.source_sha256)
            network.load_state_dict({key.removeprefix(f"{part.name}."): state.pop(key) for key in names})

    def _carried(self) -> dict[str, nn.Module]:
        """The loaded networks whose weights checkpoints contain."""
        parts = self.frozen_parts()
        return {name: network for name, network in self._frozen.items() if parts[name].make_without_weights is not None}

    def _carried_state(self) -> dict[str, Tensor]:
        """Their weights, by their names in a checkpoint."""
        states = {name: network.state_dict() for name, network in self._carried().items()}
        return {f"{name}.{key}": value for name, state in states.items() for key, value in state.items()}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Moves and casts the module, and the frozen networks with it."""
        for network in self._frozen.values():
            network._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, Any]:
        """Copies have the networks that checkpoints carry, and load the others again when they need them."""
        return {**super().__getstate__(), "_frozen": self._carried()}
