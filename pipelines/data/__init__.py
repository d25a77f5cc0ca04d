"""Reading, auditing and splitting examples."""
