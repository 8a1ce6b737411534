# SPDX-License-Identifier: Apache-2.0
"""The sessions of a method, with what its recipe says of the frames: how faces are pasted, and what enhances them."""

from lipsync_bench.datamodules.recipes.recipe import Recipe
from lipsync_bench.datamodules.weights.store import Store
from lipsync_bench.inference.enhancing import EnhancedSession, make_enhancer
from lipsync_bench.inference.pasting import make_paste
from lipsync_bench.models.core.module import TalkingFaceModule
from lipsync_bench.models.core.session import Session, Video

__all__ = ["Sessions"]


class Sessions:
    """Makes the session of each video.

    Args:
        module: A method in evaluation mode, on its device.
        recipe: How it is fed, `module.recipe` or a change of it.
        store: Where the weights of face parser and enhancement are looked for.
        device: Where these run.

    Raises:
        FileNotFoundError: Weights are not here that enhancement or method need.
        ValueError: They are those of something else.
    """

    def __init__(self, module: TalkingFaceModule, recipe: Recipe, store: Store, device: str = "cpu") -> None:
        self._module, self._recipe = module, recipe
        module.find_networks(store)
        self._paste = make_paste(recipe, store, device)
        self._enhancer = None if recipe.enhance == "none" else make_enhancer(store, device)
        self.paste = self._paste.name if self._enhancer is None else f"{self._paste.name}+{self._enhancer.name}"
        """In rows and marks: "box", "parsing and the start of the parser's SHA-256", "feather+gfpgan-1.3" ..."""

    def of(self, video: Video) -> Session:
        """The session of a video; the caller closes it.

        Raises:
            ValueError: The geometry lacks what crop rule or enhancement read; or as the method's session.
        """
        session = self._module.session(video, self._recipe, self._paste)
        session.steps_left_out += self._paste.left_out
        return session if self._enhancer is None else EnhancedSession(session, video.geometry, self._enhancer)
