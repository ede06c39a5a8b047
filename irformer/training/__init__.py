"""The LightningModule, schedules, callbacks and loggers, and the run that puts them together."""
