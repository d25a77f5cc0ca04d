"""The split as a versioned table: written, read, compared, restored."""
