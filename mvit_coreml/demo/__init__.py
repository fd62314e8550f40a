"""Two small trained checkpoints, a few pictures for them, and the scripts that made both."""
