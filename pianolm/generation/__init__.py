"""Generation with a trained model: sampling, inference engines, prompts, and the files of a run."""
