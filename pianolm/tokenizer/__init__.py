"""Tokens: the vocabulary, its grammar, the pattern codebook, tempo, velocity, and the tokenizer that joins them."""
