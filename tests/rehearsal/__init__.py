# SPDX-License-Identifier: Apache-2.0
"""The dress rehearsal: what a researcher does who has the data sets and the official weights, on stand-ins for both."""
