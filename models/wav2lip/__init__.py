# SPDX-License-Identifier: Apache-2.0
"""Wav2Lip (Prajwal et al., ACM MM 2020) and its lip-sync expert."""
