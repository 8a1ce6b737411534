# SPDX-License-Identifier: Apache-2.0
"""Methods that run elsewhere: their pairs as files, and commands of other repositories that are run for each pair."""
