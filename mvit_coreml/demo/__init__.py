"""Two small trained checkpoints, a few pictures for them, and ``mvit-coreml demo``."""
