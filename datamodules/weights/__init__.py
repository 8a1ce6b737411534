# SPDX-License-Identifier: Apache-2.0
"""Official weight files: what is known of each, where copies lie, and what another file is."""
