"""Inference engines: a Llama with a key/value cache, in NumPy for CPUs and in torch for GPUs."""
