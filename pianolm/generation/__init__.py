"""Playing a trained model: generator, sampling, engines, prompts, output."""
