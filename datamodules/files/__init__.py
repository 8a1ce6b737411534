# SPDX-License-Identifier: Apache-2.0
"""Users' files: read within bounds, written completely or not at all."""
