"""The configuration: a dataclass for every group, and the check of a composed configuration.

The dataclasses are Hydra structured configs: they hold types, ranges and one sentence an option. The YAML files in
`conf/` hold values. `pianolm.config.check` tells every problem of a command line or a composed configuration at once.
Nothing here imports torch.
"""
