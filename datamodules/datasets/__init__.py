# SPDX-License-Identifier: Apache-2.0
"""One LightningDataModule a data set."""
