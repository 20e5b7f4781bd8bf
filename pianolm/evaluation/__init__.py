"""Measures of tokenizers and models, one file each."""
