"""What runs: a verb a stage, a folder for the parts."""
