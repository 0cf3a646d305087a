"""The command line: the subcommands of `torchfgsm`."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchfgsm import failures
from torchfgsm.configuration import LIBRARIES
from torchfgsm.option_values import number
from torchfgsm.version import __version__

if TYPE_CHECKING:
    from torchfgsm.parity.cases import Case
    from torchfgsm.parity.run import Converted, Expected
    from torchfgsm.parity.verdict import Verdict

EQUAL, DIFFERENT, COULD_NOT_COMPARE = 0, 1, 2
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

    return failures.run(command, COULD_NOT_COMPARE)


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
    demo.set_defaults(command=_demo)
    env = commands.add_parser(
        "env", help="show versions, devices and settings, as a bug report needs them"
    )
    env.add_argument("--json", action="store_true", help="write JSON to stdout")
    env.set_defaults(command=_env)
    _add_translate(commands)
    return parser


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
    from torchfgsm.dataset_attack import arguments

    attack = commands.add_parser(
        "attack", help="write the adversarial examples of a whole file of data"
    )
    _add_model_options(attack)
    arguments.add_options(attack)


def _add_explain(commands: Any) -> None:
    from torchfgsm.explanation import command

    explain = commands.add_parser(
        "explain", help="say which choice makes two libraries differ on your own model and data"
    )
    _add_model_options(explain)
    command.add_options(explain)


def _add_translate(commands: Any) -> None:
    from torchfgsm.translation import command

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
    from torchfgsm.converters import command

    return command.run(options)


def _compare(options: argparse.Namespace) -> int:
    from torchfgsm import converters
    from torchfgsm.converters.conversion import check_packages
    from torchfgsm.converters.errors import told_as
    from torchfgsm.originals.keras2 import TOLERANCE, keras2_file
    from torchfgsm.parity import user
    from torchfgsm.parity.originals_side import Originals
    from torchfgsm.parity.run import Converted, live

    libraries = user.libraries(options.against)
    given = Path(options.model)
    user.check_model_file(given)
    check_packages()
    arrays = user.read_arrays(Path(options.data))
    with (
        tempfile.TemporaryDirectory(prefix="torchfgsm-compare-") as name,
        told_as(Path(name) / f"{given.stem}.keras", given),
        Originals(allow_unsafe=options.allow_unsafe) as originals,
    ):
        path = keras2_file(given, Path(name), allow_unsafe=options.allow_unsafe)
        if path != given:
            failures.say(f"{given}: rebuilt for Keras 2.15, outputs equal within {TOLERANCE:g}")
        failures.say(f"converting {given} ...")
        model = converters.load(
            path, data=user.inputs_of(arrays), allow_unsafe=options.allow_unsafe
        )
        failures.say(model.verification.verdict)
        data = user.data_for(model, arrays)
        cases = user.cases(libraries, data, options.eps, model.found_heads[0])
        for line in user.what_is_compared(cases, model.found_heads[0]):
            failures.say(line)
        models = Converted({user.NAME: path}, {user.NAME: data}, lambda _: model)
        run_live = live(originals, models)

        def expected(case: Case) -> Mapping[str, Any]:
            with told_as(path, given):
                return run_live(case)

        return _run(cases, models, expected, originals.versions, options.json)


def _env(options: argparse.Namespace) -> int:
    from torchfgsm import machine

    described = machine.describe()
    print(json.dumps(described, indent=2) if options.json else machine.to_text(described))
    return EQUAL


def _demo(options: argparse.Namespace) -> int:
    from torchfgsm.converters.conversion import check_packages
    from torchfgsm.parity.cases import all_cases, main_cases

    check_packages()
    cases = all_cases() if options.all or options.recorded else main_cases()
    return _demo_recorded(cases, options) if options.recorded else _demo_live(cases, options)


def _demo_recorded(cases: Sequence[Case], options: argparse.Namespace) -> int:
    from torchfgsm import converters
    from torchfgsm.parity import recorded
    from torchfgsm.parity.run import Converted

    recording = recorded.load()
    versions = recording.facts["versions"]
    failures.say("comparing with recorded results of " + _versions_text(versions))

    def load(path: Path) -> Any:
        return converters.load(path, verify=False)

    models = Converted(recording.paths, recording.data(), load)
    return _run(cases, models, recording.expected, lambda name: versions[name], options.json)


def _demo_live(cases: Sequence[Case], options: argparse.Namespace) -> int:
    from torchfgsm import converters
    from torchfgsm.parity import digits
    from torchfgsm.parity.originals_side import Originals
    from torchfgsm.parity.run import Converted, live

    with tempfile.TemporaryDirectory(prefix="torchfgsm-demo-") as name, Originals() as originals:
        folder = Path(name)
        failures.say("training small Keras models on scikit-learn's digits ...")
        accuracies = digits.train_models(folder)
        for model, accuracy in accuracies.items():
            failures.say(f"  {model}: {accuracy:.1%} of the training images")
        paths = {model: folder / f"{model}.keras" for model in digits.MODELS}
        data = {model: digits.batch(model, digits.COUNT) for model in digits.MODELS}
        models = Converted(paths, data, converters.load)
        return _run(cases, models, live(originals, models), originals.versions, options.json)


def _run(
    cases: Iterable[Case],
    models: Converted,
    expected: Expected,
    versions_of: Callable[[str], Mapping[str, Any]],
    as_json: bool,
) -> int:
    """Judges each case and prints the table; a case that cannot run does not end the others."""
    from torchfgsm.originals import EnvironmentUnavailable, WorkerError
    from torchfgsm.parity import table
    from torchfgsm.parity.originals_side import NotComparableError
    from torchfgsm.parity.run import verdict

    start = time.monotonic()
    verdicts: list[Verdict] = []
    failed: list[tuple[Case, str]] = []
    if not as_json:
        print(table.heading(), flush=True)
    for case in cases:
        try:
            verdicts.append(verdict(case, models, expected(case)))
        except (EnvironmentUnavailable, NotComparableError, WorkerError) as error:
            failed.append((case, failures.one_line(error)))
            failures.say(f"torchfgsm: {case.name}: could not compare: {failures.one_line(error)}")
            continue
        if not as_json:
            print(table.line(verdicts[-1]), flush=True)
    libraries = dict.fromkeys(v.case.library for v in verdicts)
    versions = {name: dict(versions_of(name)) for name in libraries}
    if as_json:
        print(json.dumps(table.to_dict(verdicts, versions, failed), indent=2))
    else:
        print(f"\n{_versions_text(versions)}\n{table.notes(versions, verdicts)}")
        print(f"{table.summary(verdicts, failed)}, {time.monotonic() - start:.0f} s")
    if failed or not verdicts:
        return COULD_NOT_COMPARE
    return EQUAL if all(v.passed for v in verdicts) else DIFFERENT


def _versions_text(versions: Mapping[str, Mapping[str, Any]]) -> str:
    names = {"nsl": "NSL", "cleverhans3": "CleverHans"}
    parts = []
    for library, found in versions.items():
        under = found.get("tensorflow") and f"TensorFlow {found['tensorflow']}"
        under = under or f"torch {found.get('torch')}"
        parts.append(f"{names.get(library, library)} {found['library_version']} ({under})")
    return ", ".join(parts)


if __name__ == "__main__":
    sys.exit(main())
