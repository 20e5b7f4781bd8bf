"""Plugins of Hydra, which looks for them in this package: `hydra/launcher=ray` and `hydra/sweeper=optuna`."""
