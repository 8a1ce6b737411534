# SPDX-License-Identifier: Apache-2.0
"""L-Net, which draws the mouth for given audio."""
