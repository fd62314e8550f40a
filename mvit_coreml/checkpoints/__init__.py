"""From a hub id, folder or file to a :class:`~mvit_coreml.checkpoints.checkpoint.Checkpoint`."""
