# SPDX-License-Identifier: Apache-2.0
"""E-Net, which enlarges the face and keeps its identity."""
