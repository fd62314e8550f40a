"""From a reference model to an ML Program package on disk."""
