"""Generation, for evaluation and serving alike."""
