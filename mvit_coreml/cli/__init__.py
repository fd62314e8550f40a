"""The command line."""

from mvit_coreml.cli.group import COMMANDS, cli, main

__all__ = ["COMMANDS", "cli", "main"]
