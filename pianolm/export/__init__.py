"""Models as other programs and the Hugging Face hub take them: files, card, and a tokenizer for transformers."""
