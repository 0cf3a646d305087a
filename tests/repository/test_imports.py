"""Imports go one way, and `import torchfgsm` stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter

import pytest
from rooms import FLOORS, ROOT, room_of, sources, table

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


def modules_imported(name: str, *, at_import: bool = False) -> set[str]:
    """The package's modules that a module imports, without the rooms they lie in."""
    found = imported(name, at_import=at_import) & set(SOURCES)
    outer = {target for target in found if any(within(t, target) and t != target for t in found)}
    return found - outer - {name}


def test_every_module_is_in_a_room() -> None:
    assert [n for n in SOURCES if not room_of(n)] == ["torchfgsm", "torchfgsm.__main__"]
    assert {room_of(name) for name in SOURCES} - {""} == set(FLOORS)


@pytest.mark.parametrize("room", FLOORS)
def test_imports_go_down(room: str) -> None:
    wrong = [
        (name, target)
        for name in members(f"torchfgsm.{room}")
        if room_of(name) == room
        for target in imported(name)
        if within(target, "torchfgsm") and target != "torchfgsm"
        if room_of(target) != room
        if not room_of(target) or FLOORS[room_of(target)] >= FLOORS[room]
    ]
    assert wrong == []


# What a floor allows, and must not be: the dialects and training go to the engine themselves.
APART = [
    *((low, "core.attacks") for low in ("nsl", "cleverhans", "training")),
    ("core.engine", "core.attacks"),
    ("models.distributing", "training"),
    ("graphs.cuda_graph", "graphs.captured_attack"),
    ("cleverhans.v3", "cleverhans.tf2"),
    ("cleverhans.v3", "cleverhans.torch"),
    ("cleverhans.tf2", "cleverhans.torch"),
    ("cleverhans.torch", "cleverhans.tf2"),
    ("cleverhans.ports", "cleverhans.v3"),
    *(("core.step", f"core.{high}") for high in ("engine", "model_gradient", "preparation")),
    *(("core.engine", f"core.{high}") for high in ("model_gradient", "preparation", "checks")),
]


@pytest.mark.parametrize(("low", "high"), APART)
def test_neighbours_that_keep_apart(low: str, high: str) -> None:
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
        "core.presets",
        "core.norms",
        "core.weighting",
        "core.dynamo_nodes",
        "models.modules",
        "models.keras_mode",
        "models.features",
        "losses.output_form",
    ],
)
def test_innermost_modules_import_nothing_of_the_package(name: str) -> None:
    assert not {t for t in imported(f"torchfgsm.{name}") if within(t, "torchfgsm")}


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = {name: modules_imported(name, at_import=True) for name in SOURCES}
    order = TopologicalSorter(graph)
    try:
        order.prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(reversed(error.args[1])))


def test_the_table_of_rooms_is_what_is_tested() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert table() in page, "python tests/support/rooms.py"


def test_the_parser_sees_every_kind_of_import() -> None:
    assert "torchfgsm.core.engine.run" in imported("torchfgsm.core.attacks")
    assert "torch" in imported("torchfgsm.core.norms")
    assert "torchfgsm.core.recipe" in imported("torchfgsm")


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


def test_explaining_translating_and_evaluating_are_loaded_when_first_used() -> None:
    code = (
        "import sys, torchfgsm\n"
        "own = {m.split('.')[1] for m in sys.modules if m.startswith('torchfgsm.')}\n"
        "print(sorted(own & {'explanation', 'translation', 'evaluation', 'libraries', 'parity'}))\n"
        "print(set(torchfgsm.__all__) <= set(dir(torchfgsm)))\n"
        "from torchfgsm import *\n"
        "print(explain is torchfgsm.explanation.explain, evaluate.__name__, translate.__name__)\n"
        "torchfgsm.nothing_of_the_kind"
    )
    done = run(code)
    assert done.stdout.splitlines() == ["[]", "True", "True evaluate translate"], done.stderr
    assert "module 'torchfgsm' has no attribute 'nothing_of_the_kind'" in done.stderr


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
    tree = ast.parse(SOURCES[f"torchfgsm.core.{name}"].read_text(encoding="utf-8"))
    compared = [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare) and "norm" in ast.unparse(node.left)
    ]
    assert compared == []
