"""The velocity codec: networks, LightningModule and LightningDataModule."""
