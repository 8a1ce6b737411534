# SPDX-License-Identifier: Apache-2.0
"""The real video of a clip: its frames in chunks with what was found in them, and what of them is compared."""
