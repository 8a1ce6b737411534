# SPDX-License-Identifier: Apache-2.0
"""The commands: their arguments, messages and endings."""
