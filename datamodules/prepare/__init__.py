# SPDX-License-Identifier: Apache-2.0
"""From videos to prepared clips: `bench prepare`."""
