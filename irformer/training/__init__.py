"""Training: the LightningModule, losses, schedules, callbacks, loggers, and the run that combines them."""
