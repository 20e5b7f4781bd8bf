"""The stages: what each does stands in its own module, how they hang together in `graph`."""
