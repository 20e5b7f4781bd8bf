"""Training that every stage shares: Trainer, hardware, checkpoints, resuming, progress, throughput."""
