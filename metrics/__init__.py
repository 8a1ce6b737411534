# SPDX-License-Identifier: Apache-2.0
"""Metrics of talking-face videos, by their classes; the pure functions stand beside them in the files.

A class is imported when it is first asked for: some bring dlib, torchvision or scikit-image, which take seconds.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from metrics.cpbd import CPBD
    from metrics.expert_sync import ExpertSync
    from metrics.fid import FID
    from metrics.jitter import Jitter
    from metrics.lmd import LMD
    from metrics.lpips import LPIPS
    from metrics.lse import LSE
    from metrics.mse import MSE
    from metrics.psnr import PSNR
    from metrics.psnr_uint8 import PSNRUint8
    from metrics.ssim import SSIM

__all__ = ["CPBD", "FID", "LMD", "LPIPS", "LSE", "MSE", "PSNR", "SSIM", "ExpertSync", "Jitter", "PSNRUint8"]

_FILES = {
    "CPBD": "cpbd",
    "ExpertSync": "expert_sync",
    "FID": "fid",
    "Jitter": "jitter",
    "LMD": "lmd",
    "LPIPS": "lpips",
    "LSE": "lse",
    "MSE": "mse",
    "PSNR": "psnr",
    "PSNRUint8": "psnr_uint8",
    "SSIM": "ssim",
}


def __getattr__(name: str) -> type:
    if name not in _FILES:
        raise AttributeError(f"module 'metrics' has no attribute {name!r}")
    return getattr(importlib.import_module(f"metrics.{_FILES[name]}"), name)
