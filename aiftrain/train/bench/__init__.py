"""Measures a machine: `python -m aiftrain.train.bench RUN_FOLDER` in the place of the trainer, on every rank."""
