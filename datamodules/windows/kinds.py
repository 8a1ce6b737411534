# SPDX-License-Identifier: Apache-2.0
"""Which kind of batch a model is given."""

from lipsync_bench.datamodules.windows.dataset import WindowDataset
from lipsync_bench.datamodules.windows.expert import ExpertWindows
from lipsync_bench.datamodules.windows.generator import GeneratorWindows, PunctualWindows

WindowKind = type[WindowDataset] | str | None

__all__ = ["WindowKind", "choose_kind"]


def choose_kind(window: WindowKind, module: object) -> type[WindowDataset]:
    """What the argument `window` of a data module says; without it what the module says, else that of generators.

    Args:
        window: a kind, or the name of a general one or of the module's own.
        module: the LightningModule that reads the batches, of any project; None where there is none.

    Raises:
        ValueError: no kind, or not the module's, is called so.
    """
    own = getattr(module, "window", None)
    if not (isinstance(own, type) and issubclass(own, WindowDataset)):  # elsewhere it may mean anything
        own = None
    if window is None:
        return own or GeneratorWindows
    if not isinstance(window, str):
        return window
    known = {kind.name: kind for kind in (ExpertWindows, GeneratorWindows, PunctualWindows, own) if kind}
    found = known.get(window)
    if found is None or not issubclass(found, own or WindowDataset):
        expected = f"{own.name}, which {type(module).__name__} reads" if own else f"{', '.join(known)} or a class"
        raise ValueError(
            f"window is {window!r}. Expected {expected}. Leave out --data.init_args.window: the model says what it "
            "reads."
        )
    return found
