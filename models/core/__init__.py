# SPDX-License-Identifier: Apache-2.0
"""What every LightningModule of this package is built on."""
