"""Who goes to which side of a split, and why."""
