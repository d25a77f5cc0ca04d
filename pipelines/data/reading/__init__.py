"""From files and packages to canonical rows."""
