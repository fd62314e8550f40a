"""The command line."""

from mvit_coreml.cli.main import COMMANDS, cli, main

__all__ = ["COMMANDS", "cli", "main"]
