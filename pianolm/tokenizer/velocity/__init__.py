"""Velocity codecs: one code for the velocities of a cell, read beside the cell's pattern. NumPy only.

`pianolm.velvq` trains codecs and exports them. They are applied here, so that tokenizing needs no torch. There are two
forms: `segment` (the default, a vector quantizer over the segments of a cell) and `frame` (a VQ-VAE over its frames).
"""

from pianolm.tokenizer.velocity.codec import (
    CONFIG_FILE,
    FORMS,
    WEIGHTS_FILE,
    VelocityCodec,
    check_codec_path,
)

__all__ = ["CONFIG_FILE", "FORMS", "WEIGHTS_FILE", "VelocityCodec", "check_codec_path"]
