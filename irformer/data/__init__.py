"""Images on disk, training samples, test sets, the catalog of public sets, and the LightningDataModule over them."""
