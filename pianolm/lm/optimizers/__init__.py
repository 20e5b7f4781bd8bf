"""Optimizers of the language models, one file each: `optimizer.name` is the name of the file.

Each has `make(model, settings)`, which returns the optimizer. Its YAML file in conf/optimizer holds default values.
"""
