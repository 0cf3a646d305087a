"""The command line: `main` runs one command of `torchfgsm`."""

from torchfgsm.cli.commands import main

__all__ = ["main"]
