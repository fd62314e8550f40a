"""The size-quality curve of a checkpoint."""
