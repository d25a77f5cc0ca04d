"""Base models: finding, loading, exporting."""
