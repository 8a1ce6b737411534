# SPDX-License-Identifier: Apache-2.0
"""D-Net, which gives a face another expression."""
