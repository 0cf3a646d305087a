"""The command line: the subcommands of `torchfgsm`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from torchfgsm.cli import ending
from torchfgsm.cli.inputs.option_values import number
from torchfgsm.libraries.configuration import LIBRARIES
from torchfgsm.originals import TENSORFLOWS
from torchfgsm.version import __version__

_LIBRARIES = ",".join(LIBRARIES)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: The command line; by default the process' own.

    Returns:
        0: done or equal. 1: different. 2: could not be done, or was broken off, with one line on
            stderr. 70: a fault of this package's own, with its trace on stderr.
    """

    def command() -> int:
        options = _parser().parse_args(arguments)
        code: int = options.command(options)
        return code

    return ending.run(command, ending.COULD_NOT_COMPARE)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="torchfgsm",
        description="FGSM and adversarial training as in NSL and CleverHans, in PyTorch.",
        epilog="Exit codes: 0 done or equal, 1 different, 2 could not be done, 70 a fault of "
        "torchfgsm itself.",
    )
    parser.add_argument("--version", action="version", version=f"torchfgsm {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    compare = commands.add_parser(
        "compare", help="compare the port with the originals on your own Keras model and data"
    )
    compare.add_argument("model", help="a .keras or .h5 file or a SavedModel folder")
    compare.add_argument(
        "--data",
        required=True,
        metavar="FILE.npz",
        help="arrays named as the model's inputs (or x where there is one), and y: class numbers",
    )
    compare.add_argument(
        "--against",
        default=_LIBRARIES,
        metavar="LIBRARIES",
        help=f"comma-separated; default {_LIBRARIES}",
    )
    compare.add_argument(
        "--eps",
        type=number,
        help="step in the data's units, such as 0.1 or 8/255; default a tenth of their range",
    )
    _add_allow_unsafe(compare)
    compare.add_argument("--json", action="store_true", help="write JSON to stdout")
    _add_tensorflow(compare)
    compare.set_defaults(command=_compare)
    _add_convert(commands)
    _add_attack(commands)
    _add_explain(commands)
    demo = commands.add_parser(
        "demo", help="train, convert, attack and compare small models of real digits"
    )
    demo.add_argument(
        "--recorded",
        action="store_true",
        help="compare with recorded results of the originals, without TensorFlow",
    )
    demo.add_argument("--all", action="store_true", help="every case, not only the main ones")
    demo.add_argument("--json", action="store_true", help="write JSON to stdout")
    _add_tensorflow(demo)
    demo.set_defaults(command=_demo)
    env = commands.add_parser(
        "env", help="show versions, devices and settings, as a bug report needs them"
    )
    env.add_argument("--json", action="store_true", help="write JSON to stdout")
    env.set_defaults(command=_env)
    _add_translate(commands)
    return parser


def _add_tensorflow(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tensorflow",
        choices=tuple(TENSORFLOWS),
        default=next(iter(TENSORFLOWS)),
        help="the TensorFlow that the originals run on; 2.15, a second witness, needs Python 3.10 "
        "or 3.11; default 2.21",
    )


def _add_convert(commands: Any) -> None:
    convert = commands.add_parser(
        "convert", help="write a TensorFlow or Keras model as ONNX that loads as a torch module"
    )
    convert.add_argument(
        "model", help="a .keras, .h5, .pb, .tflite or .onnx file or a SavedModel folder"
    )
    convert.add_argument(
        "-o", "--output", metavar="OUT.onnx", help="file to write; without it the model is checked"
    )
    _add_model_options(convert)
    convert.add_argument("--dtype", choices=("float32", "float64"), help="default: the model's")
    convert.add_argument("--data", metavar="FILE.npz", help="inputs to compare on too, by name")
    convert.add_argument(
        "--verify-training", action="store_true", help="compare training steps with Keras too"
    )
    convert.add_argument("--force", action="store_true", help="replace an older output file")
    convert.add_argument("--json", action="store_true", help="write JSON to stdout")
    convert.set_defaults(command=_convert)


def _add_attack(commands: Any) -> None:
    from torchfgsm.cli.attack import arguments

    attack = commands.add_parser(
        "attack", help="write the adversarial examples of a whole file of data"
    )
    _add_model_options(attack)
    arguments.add_options(attack)


def _add_explain(commands: Any) -> None:
    from torchfgsm.cli import explain as command

    explain = commands.add_parser(
        "explain", help="say which choice makes two libraries differ on your own model and data"
    )
    _add_model_options(explain)
    command.add_options(explain)


def _add_translate(commands: Any) -> None:
    from torchfgsm.cli import translate as command

    translate = commands.add_parser(
        "translate", help="give one library's configuration in the words of another"
    )
    command.add_options(translate)


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--inputs", metavar="NAMES", help="a frozen graph's inputs: a:0,b:0")
    parser.add_argument("--outputs", metavar="NAMES", help="a frozen graph's outputs: c:0")
    parser.add_argument(
        "--custom-objects", metavar="FILE.py", help="defines the model's own layers; it is run"
    )
    _add_allow_unsafe(parser)
    parser.add_argument("--no-verify", action="store_true", help="do not compare with the original")
    parser.add_argument(
        "--timeout", type=float, default=600.0, metavar="SECONDS", help="for one step; default 600"
    )


def _add_allow_unsafe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--allow-unsafe", action="store_true", help="run what code the model's file holds"
    )


def _convert(options: argparse.Namespace) -> int:
    from torchfgsm.cli import convert as command

    return command.run(options)


def _compare(options: argparse.Namespace) -> int:
    from torchfgsm.cli import compare as command

    return command.compare(options)


def _demo(options: argparse.Namespace) -> int:
    from torchfgsm.cli import compare as command

    return command.demo(options)


def _env(options: argparse.Namespace) -> int:
    from torchfgsm.cli import env

    described = env.describe()
    print(json.dumps(described, indent=2) if options.json else env.to_text(described))
    return ending.EQUAL


if __name__ == "__main__":
    sys.exit(main())
