"""Imports go one way, and `import torchfgsm` stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "torchfgsm"
TENSORFLOW_SIDE = "torchfgsm.converters.tensorflow_side"
HEAVY = {
    "filelock",
    "jinja2",
    "matplotlib",
    "onnx",
    "onnx2torch",
    "onnxruntime",
    "platformdirs",
    "scipy",
    "sklearn",
    "tensorflow",
    "tf2onnx",
    "torchvision",
    "uv",
}


def sources() -> dict[str, Path]:
    """Dotted name -> file of every module of the package, converters' under their own name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[1] != "converters":  # the symlink; its files come below, once
            found[".".join(parts).removesuffix(".__init__")] = path
    for path in sorted((ROOT / "converters").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(("torchfgsm", *parts)).removesuffix(".__init__")] = path
    return found


SOURCES = sources()


def imported(name: str, *, at_import: bool = False) -> set[str]:
    """Dotted names that a module imports, everywhere or only when it is imported itself."""
    tree = ast.parse(SOURCES[name].read_text(encoding="utf-8"))
    inner: set[ast.AST] = set()
    if at_import:
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) or (
                isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
            ):
                inner.update(ast.walk(node))
    found: set[str] = set()
    for node in ast.walk(tree):
        if node in inner:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                # It runs under two names: here, and alone in a worker's process.
                assert within(name, TENSORFLOW_SIDE), f"{name} has a relative import"
                assert node.level == 1, f"{name} imports from above its package"
                module = f"{TENSORFLOW_SIDE}.{module}".rstrip(".")
            assert module
            found.add(module)
            found.update(f"{module}.{alias.name}" for alias in node.names)
    return found


def within(name: str, room: str) -> bool:
    return name == room or name.startswith(f"{room}.")


def members(room: str) -> list[str]:
    found = [name for name in SOURCES if within(name, room)]
    assert found, f"there is no {room}"
    return found


CORE = (
    "presets",
    "recipe",
    "weighting",
    "features",
    "model_call",
    "output_form",
    "output_checks",
    "labels",
    "losses",
    "gradient",
    "model_modules",
    "modes",
    "traces",
    "underflow",
    "keras_mode",
    "dynamo_nodes",
    "norms",
    "call",
    "reference",
    "kernel",
)
ENGINE = (
    *("argument_types", "call_checks", "checks", "default_loss", "engine", "model_gradient"),
    "preparation",
)
DIALECTS = ("attacks", "nsl", "cleverhans", "training")
OUTER = (
    "graphs",
    "cuda_graph",
    "evaluation",
    "scores",
    "scoring",
    "shards",
    "robust_report",
    "progress",
    "extras",
    "failures",
    "whole_file",
    "array_file",
    "dataset_attack",
    "machine",
    "converters",
    "comparison",
    "judgement",
    "label_slope",
    "sign_judgement",
    "originals",
    "parity",
    "configuration",
    "option_values",
    "translation",
    "explanation",
    "cli",
    "__main__",
)
FORBIDDEN = [
    *((low, high) for low in CORE for high in (*ENGINE, *DIALECTS, *OUTER)),
    *((low, high) for low in ENGINE for high in (*DIALECTS, *OUTER)),
    *((low, high) for low in DIALECTS for high in OUTER),
    *((low, "kernel") for low in CORE if low != "kernel"),
    ("cuda_graph", "graphs"),
    ("nsl", "cleverhans"),
    ("cleverhans", "nsl"),
    ("nsl", "attacks"),
    ("cleverhans", "attacks"),
    ("attacks", "nsl"),
    ("attacks", "cleverhans"),
    *(("training", other) for other in ("attacks", "nsl", "cleverhans")),
    *((other, "training") for other in ("attacks", "nsl", "cleverhans")),
    ("distributing", "training"),
    ("cleverhans.v3", "cleverhans.tf2"),
    ("cleverhans.v3", "cleverhans.torch"),
    ("cleverhans.tf2", "cleverhans.torch"),
    ("cleverhans.torch", "cleverhans.tf2"),
    ("cleverhans.ports", "cleverhans.v3"),
    ("converters", "nsl"),
    ("converters", "cleverhans"),
    ("comparison", "converters"),
    *(("configuration", room) for room in ("option_values", "translation", "explanation")),
    ("translation", "explanation"),
]


@pytest.mark.parametrize(("low", "high"), FORBIDDEN)
def test_imports_go_one_way(low: str, high: str) -> None:
    wrong = [
        (name, target)
        for name in members(f"torchfgsm.{low}")
        for target in imported(name)
        if within(target, f"torchfgsm.{high}")
    ]
    assert wrong == []


def test_nothing_imports_the_command_line_but_its_entry() -> None:
    users = {
        name
        for name in SOURCES
        if any(within(target, "torchfgsm.cli") for target in imported(name))
        and not within(name, "torchfgsm.cli")
    }
    assert users <= {"torchfgsm.__main__"}


@pytest.mark.parametrize(
    "name",
    [
        "presets",
        "model_modules",
        "keras_mode",
        "norms",
        "features",
        "output_form",
        "weighting",
        "dynamo_nodes",
    ],
)
def test_innermost_modules_import_nothing_of_the_package(name: str) -> None:
    assert not {t for t in imported(f"torchfgsm.{name}") if within(t, "torchfgsm")}


def test_the_parser_sees_every_kind_of_import() -> None:
    assert "torchfgsm.engine.run" in imported("torchfgsm.attacks")
    assert "torch" in imported("torchfgsm.norms")
    assert "torchfgsm.recipe" in imported("torchfgsm")


# Converters are imported on demand by those who convert; workers run inside of TensorFlow.
LIGHT = [n for n in SOURCES if not within(n, "torchfgsm.converters") and ".workers" not in n]


@pytest.mark.parametrize("name", LIGHT)
def test_heavy_packages_are_imported_inside_functions(name: str) -> None:
    heavy = {target for target in imported(name, at_import=True) if target.split(".")[0] in HEAVY}
    assert heavy == set()


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )


def test_a_fresh_import_loads_nothing_heavy() -> None:
    code = (
        "import sys, torchfgsm, torchfgsm.nsl, torchfgsm.cleverhans.v3, torchfgsm.cleverhans.tf2\n"
        "import torchfgsm.cleverhans.torch, torchfgsm.losses\n"
        f"heavy = {[*sorted(HEAVY), 'torch._dynamo']!r}\n"
        "own = [m for m in sys.modules if m.startswith('torchfgsm.')]\n"
        "print([m for m in heavy if m in sys.modules], 'torchfgsm.cli' in own, len(own) > 9)"
    )
    done = run(code)
    assert done.stdout.strip() == "[] False True", done.stderr


def test_the_package_exports_its_public_names_only() -> None:
    import torchfgsm

    assert set(torchfgsm.__all__) >= {
        "Recipe",
        "Weighting",
        "attack",
        "fgsm",
        "pgd",
        "perturb",
        "capture",
        "__version__",
    }
    for name in torchfgsm.__all__:
        assert hasattr(torchfgsm, name)
        # A module and an exported function never share a name: one would hide the other.
        assert f"torchfgsm.{name}" not in SOURCES


def test_converters_are_refused_under_the_bare_name() -> None:
    done = run("import converters")
    assert done.returncode == 1
    assert "ImportError" in done.stderr
    assert "imported as torchfgsm.converters" in done.stderr


def test_modules_have_names_that_say_their_job() -> None:
    vague = {"utils", "util", "base", "common", "helpers", "helper", "misc"}
    assert [name for name in SOURCES if vague & set(name.split("."))] == []


@pytest.mark.parametrize("name", ["engine", "attacks", "gradient", "model_gradient"])
def test_norms_are_decided_in_their_own_room(name: str) -> None:
    tree = ast.parse(SOURCES[f"torchfgsm.{name}"].read_text(encoding="utf-8"))
    compared = [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare) and "norm" in ast.unparse(node.left)
    ]
    assert compared == []
