"""Near-duplicates: sketches, candidates, exact similarity, clusters."""
