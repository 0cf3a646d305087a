"""Plants small faults in the modules that all results hang on, and says which the tests miss.

Each mutant has one change in one place. A fork imports it in place of the module and runs the quick
tests of that module; it is killed when one fails, when they cannot start, or when they take too
long. Mutants are drawn with a seed, so that two runs of one version plant the same faults. What
became of each goes to benchmarks/results/mutation.csv. Its column `reason` says why a survivor
lives; it is written by hand and kept by the next run.

Called as `python tests/support/mutate.py [--count N] [--seed S] [--again]`.
"""

from __future__ import annotations

import argparse
import ast
import csv
import gc
import importlib.abc
import importlib.machinery
import os
import random
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from types import ModuleType

from mutants import ROOT, Mutant, mutants

OUT = ROOT / "benchmarks" / "results" / "mutation.csv"
SECONDS = 180.0
TOGETHER = 2
ATTACKS = ("attacks", "cleverhans3", "nsl", "parity_recorded", "cleverhans4", "norms")
# Module -> test files, those that are most likely to fail first.
TESTS = {
    "core.norms": (
        "norms",
        "norms_ball",
        "hostile_numbers",
        *ATTACKS[:-1],
        "cleverhans3_iterated",
        "nsl_pgd",
    ),
    "core.recipe": ("recipe", "public_api", "refusals", *ATTACKS),
    "core.gradient": (
        "gradient",
        *ATTACKS,
        "no_trace",
        "refusals",
        "cleverhans3_iterated",
        "training",
        "compile",
    ),
    "judging.comparison": ("comparison", "judgement"),
    "losses.formulas": ("losses", "cleverhans3_losses", *ATTACKS, "nsl_keras"),
    "losses.keras": (
        "losses",
        "cleverhans3_losses",
        "nsl_keras",
        *ATTACKS,
        "refusals",
        "public_api",
    ),
    "losses.per_example": ("losses", "cleverhans3_losses", *ATTACKS, "nsl_keras", "refusals"),
}


class _InPlace(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Imports a mutant in place of its module."""

    def __init__(self, mutant: Mutant) -> None:
        self.name, self.tree = f"torchfgsm.{mutant.module}", mutant.tree

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != self.name:
            return None
        return importlib.machinery.ModuleSpec(name, self, origin="a mutant")

    def get_code(self, fullname: str) -> object:  # type: ignore[override]
        return compile(self.tree, f"<{fullname}, mutated>", "exec")

    def get_source(self, fullname: str) -> str:
        return ast.unparse(self.tree)


def _tried(mutant: Mutant | None, files: Sequence[str]) -> int:
    """Runs the tests in this process, with the mutant if there is one; pytest's exit status."""
    import pytest
    from hypothesis import Phase, settings

    # The same draws for each, and no time for shrinking what fails.
    settings.register_profile(
        "mutants", derandomize=True, database=None, phases=(Phase.explicit, Phase.generate)
    )
    settings.load_profile("mutants")
    if mutant is not None:
        sys.meta_path.insert(0, _InPlace(mutant))
    options = [
        "-x",
        "-q",
        "--assert=plain",
        "-p",
        "no:cacheprovider",
        "-m",
        "not slow and not live",
    ]
    # One by one: most faults fall to the first file, and collecting all takes longer than that.
    return next(filter(None, (int(pytest.main([*options, file])) for file in files)), 0)


def _files(names: Iterable[str]) -> list[str]:
    return [str(next((ROOT / "tests").rglob(f"test_{name}.py"))) for name in names]


def _forked(mutant: Mutant | None, files: Sequence[str]) -> int:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)
            os.dup2(nowhere, 2)
            status = _tried(mutant, files)
        finally:
            os._exit(status)
    return child


def verdicts(drawn: Sequence[Mutant]) -> Iterator[tuple[Mutant, str, float]]:
    """(mutant, "killed", "timeout" or "survived", seconds) as they come, a few at a time."""
    waiting = list(reversed(drawn))
    running: dict[int, tuple[Mutant, float]] = {}
    while waiting or running:
        while waiting and len(running) < TOGETHER:
            mutant = waiting.pop()
            running[_forked(mutant, _files(TESTS[mutant.module]))] = (mutant, time.monotonic())
        time.sleep(0.05)
        for child, (mutant, start) in list(running.items()):
            done, status = os.waitpid(child, os.WNOHANG)
            seconds = time.monotonic() - start
            if done:
                del running[child]
                yield mutant, "killed" if status else "survived", seconds
            elif seconds > SECONDS:
                os.kill(child, 9)
                os.waitpid(child, 0)
                del running[child]
                yield mutant, "timeout", seconds


def _recorded() -> list[dict[str, str]]:
    if not OUT.exists():
        return []
    with OUT.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _write(rows: Sequence[dict[str, str]]) -> None:
    with OUT.open("w", encoding="utf-8", newline="") as file:
        names = ("module", "line", "change", "verdict", "reason")
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    """Draws mutants, tries them and records what became of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=300, help="how many are drawn")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--again", action="store_true", help="only recorded survivors, once more")
    arguments = parser.parse_args()
    _prepare()
    files = sorted({file for names in TESTS.values() for file in _files(names)})
    if os.waitpid(_forked(None, files), 0)[1]:
        sys.exit(f"tests fail without a fault: pytest {' '.join(files)}")
    every = [mutant for module in TESTS for mutant in mutants(module)]
    rows = {(row["module"], row["change"]): row for row in _recorded()}
    reasons = {key: row["reason"] for key, row in rows.items()}
    if arguments.again:
        once_more = {key for key, row in rows.items() if row["verdict"] == "survived"}
        drawn = [mutant for mutant in every if mutant.key in once_more]
    else:
        rows = {}
        drawn = random.Random(arguments.seed).sample(every, min(arguments.count, len(every)))
    possible = len(every)
    del every
    gc.collect()
    gc.freeze()  # else each fork searches all these trees for garbage
    for number, (mutant, verdict, seconds) in enumerate(verdicts(drawn), 1):
        reason = reasons.get(mutant.key, "") if verdict == "survived" else ""
        rows[mutant.key] = {
            "module": mutant.module,
            "line": str(mutant.line),
            "change": mutant.change,
            "verdict": verdict,
            "reason": reason,
        }
        print(f"{number}/{len(drawn)} {verdict} in {seconds:.1f} s: {mutant.module}:{mutant.line} "
              f"{mutant.change}", flush=True)  # fmt: skip
    ordered = sorted(
        rows.values(), key=lambda row: (row["module"], int(row["line"]), row["change"])
    )
    _write(ordered)
    lived = [row for row in ordered if row["verdict"] == "survived"]
    died = 1 - len(lived) / len(ordered)
    print(f"{possible} mutants can be made; of {len(ordered)} drawn {died:.1%} died")
    sys.exit(died < 0.95 or any(not row["reason"] for row in lived))


def _prepare() -> None:
    """Imports once what every fork needs, but nothing of the package."""
    import hypothesis  # noqa: F401
    import pytest  # noqa: F401
    import torch

    torch.set_num_threads(1)  # a fork has no other threads
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    assert not any(name.startswith("torchfgsm.") for name in sys.modules)


if __name__ == "__main__":
    main()
