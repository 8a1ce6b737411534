# SPDX-License-Identifier: Apache-2.0
"""Methods of other repositories: a benchmark states the command that makes a video, and it is run for each pair."""
