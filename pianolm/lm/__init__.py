"""Networks: the velocity codec, the language model, and sampling from it."""
