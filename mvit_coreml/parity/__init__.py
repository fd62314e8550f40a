"""Whether a package answers like the checkpoint it came from."""
