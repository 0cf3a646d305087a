"""The command `torchfgsm translate`: one library's configuration in the words of another."""

from __future__ import annotations

import argparse
import json

from torchfgsm.cli.inputs.option_values import parsed
from torchfgsm.libraries.configuration import LIBRARIES, check_library
from torchfgsm.translation.reading import TranslationError
from torchfgsm.translation.translating import translate


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    known = ", ".join(LIBRARIES)
    parser.add_argument(
        "--from", dest="origin", required=True, metavar="LIBRARY", help=f"one of {known}"
    )
    parser.add_argument("--to", required=True, metavar="LIBRARY", help="another of them")
    parser.add_argument(
        "--set", dest="options", nargs="+", action="extend", default=[], metavar="NAME=VALUE",
        help="options by the library's own names, or fields of its recipe",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="write JSON to stdout")
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Prints the translation and returns the exit code, 0.

    Raises:
        TranslationError: No configuration of the other library does the same.
        ValueError: Bad options.
    """
    check_library(options.origin)
    check_library(options.to)
    try:
        found = translate(parsed(options.options), to=options.to, source=options.origin)
    except TranslationError:
        raise
    except (TypeError, ValueError) as error:
        raise ValueError(f"--from {options.origin}: {error} (options: --set)") from None
    print(json.dumps(found.to_dict(), indent=2) if options.json else found.to_text())
    return 0
