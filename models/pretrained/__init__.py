# SPDX-License-Identifier: Apache-2.0
"""Networks that are never trained here: they measure or cut faces, with official weights."""
