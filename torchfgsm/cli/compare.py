"""`torchfgsm compare` and `torchfgsm demo`: cases run and judged one after the other."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torchfgsm.cli import ending
from torchfgsm.cli.ending import COULD_NOT_COMPARE, DIFFERENT, EQUAL
from torchfgsm.originals import TENSORFLOWS
from torchfgsm.parity.cases import Case
from torchfgsm.parity.run import Converted, Expected
from torchfgsm.parity.verdict import Verdict


def compare(options: argparse.Namespace) -> int:
    """Compares the port with the originals on a model and data of the user's; the exit code."""
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
        Originals(
            allow_unsafe=options.allow_unsafe, runtime=TENSORFLOWS[options.tensorflow]
        ) as originals,
    ):
        path = keras2_file(given, Path(name), allow_unsafe=options.allow_unsafe)
        if path != given:
            ending.say(f"{given}: rebuilt for Keras 2, outputs equal within {TOLERANCE:g}")
        ending.say(f"converting {given} ...")
        model = converters.load(
            path, data=user.inputs_of(arrays), allow_unsafe=options.allow_unsafe
        )
        ending.say(model.verification.verdict)
        data = user.data_for(model, arrays)
        cases = user.cases(libraries, data, options.eps, model.found_heads[0])
        for line in user.what_is_compared(cases, model.found_heads[0]):
            ending.say(line)
        models = Converted({user.NAME: path}, {user.NAME: data}, lambda _: model)
        run_live = live(originals, models)

        def expected(case: Case) -> Mapping[str, Any]:
            with told_as(path, given):
                return run_live(case)

        return _run(cases, models, expected, originals.versions, options.json)


def demo(options: argparse.Namespace) -> int:
    """Compares the port with the originals on the demo's models; the exit code."""
    from torchfgsm.converters.conversion import check_packages
    from torchfgsm.originals import EnvironmentUnavailable
    from torchfgsm.parity.cases import all_cases, main_cases

    check_packages()
    cases = all_cases() if options.all or options.recorded else main_cases()
    if options.recorded:
        return _demo_recorded(cases, options)
    try:
        return _demo_live(cases, options)
    except EnvironmentUnavailable as error:
        ending.say(f"torchfgsm: {ending.one_line(error)}")
        ending.say("the originals cannot run here, so that their recorded results stand for them")
        return _demo_recorded(cases, options)


def _demo_recorded(cases: Sequence[Case], options: argparse.Namespace) -> int:
    from torchfgsm import converters
    from torchfgsm.parity import recorded
    from torchfgsm.parity.run import Converted

    recording = recorded.load()
    versions = recording.facts["versions"]
    ending.say("comparing with recorded results of " + _versions_text(versions))

    def load(path: Path) -> Any:
        return converters.load(path, verify=False)

    models = Converted(recording.paths, recording.data(), load)
    return _run(cases, models, recording.expected, lambda name: versions[name], options.json)


def _demo_live(cases: Sequence[Case], options: argparse.Namespace) -> int:
    from torchfgsm import converters
    from torchfgsm.parity import digits
    from torchfgsm.parity.originals_side import Originals
    from torchfgsm.parity.run import live

    runtime = TENSORFLOWS[options.tensorflow]
    with (
        tempfile.TemporaryDirectory(prefix="torchfgsm-demo-") as name,
        Originals(runtime=runtime) as originals,
    ):
        folder = Path(name)
        ending.say("training small Keras models on scikit-learn's digits ...")
        accuracies = digits.train_models(folder)
        for model, accuracy in accuracies.items():
            ending.say(f"  {model}: {accuracy:.1%} of the training images")
        models = digits.in_folder(folder, digits.COUNT, converters.load)
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
            failed.append((case, ending.one_line(error)))
            ending.say(f"torchfgsm: {case.name}: could not compare: {ending.one_line(error)}")
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
