"""How people reach Sluice: the command line and the panel."""
