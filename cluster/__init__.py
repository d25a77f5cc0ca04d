"""Where things run: addresses, Ray, jobs."""
