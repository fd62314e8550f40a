"""Reference models of the three families, their configurations and outputs."""
