# SPDX-License-Identifier: Apache-2.0
"""What the parts of a recipe may be. No heavy import: the help of commands lists them."""

from typing import Literal

CropName = Literal["mesh", "mediapipe", "dlib", "s3fd", "ffhq", "atvg", "g4g"]
Codec = Literal["jpeg", "jpeg420", "raw"]
"""How the faces of a track are stored, see `clips.track`."""
Enhance = Literal["none", "gfpgan"]
MelPadding = Literal["reflect", "constant"]
Pads = tuple[int, int, int, int]
Paste = Literal["box", "feather", "laplacian", "parser", "parser_released", "parser_pyramid", "quad", "mask"]
ReferenceKind = Literal["same", "first", "frame", "random", "stabilised"]

__all__ = ["Codec", "CropName", "Enhance", "MelPadding", "Pads", "Paste", "ReferenceKind"]
