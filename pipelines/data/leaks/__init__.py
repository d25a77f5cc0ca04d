"""The verifier: what stands on two sides, found by other means than the split was made by."""
