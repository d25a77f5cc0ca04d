"""Personal data and secrets: found, masked."""
