"""The beat tracker: expressive timing for scores, LightningModule and LightningDataModule."""
