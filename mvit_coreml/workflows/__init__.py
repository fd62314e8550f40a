"""The stages in order: what the commands do, readable top to bottom."""
