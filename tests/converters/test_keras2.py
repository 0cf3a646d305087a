"""`torchfgsm compare` on models of both Keras versions: taken over, or refused in one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processes import SUPPORT

from torchfgsm import cli
from torchfgsm.cli import ending
from torchfgsm.originals import WORKERS, EnvironmentUnavailable, Worker
from torchfgsm.originals.environment import KERAS_2, KERAS_3
from torchfgsm.originals.keras2 import TOLERANCE, keras2_file

pytestmark = pytest.mark.live
SUPPORTED = (
    "activations",
    "adapted",
    "dict_ports",
    "frozen",
    "layers1",
    "layers2",
    "layers3",
    "nested",
    "nests",
    "preprocessing",
    "shared",
    "two_outputs",
)
Build = Callable[..., Path]


@pytest.fixture(scope="module")
def workers() -> Iterator[Callable[[str, Path], Worker]]:
    """Workers by environment and script, each started once."""
    running: dict[tuple[str, Path], Worker] = {}
    with ExitStack() as stack:

        def worker(environment: str, script: Path) -> Worker:
            key = (environment, script)
            if key not in running:
                try:
                    running[key] = stack.enter_context(Worker(*key))
                except EnvironmentUnavailable as error:
                    pytest.skip(str(error))
            return running[key]

        yield worker


@pytest.fixture(scope="module")
def build(workers: Any, tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Saves a Keras 3 model of a kind, once."""
    folder: Path = tmp_path_factory.mktemp("keras3")

    def build(kind: str, suffix: str = ".keras", **params: Any) -> Path:
        path = folder / f"{kind}{suffix}"
        if not path.exists():
            zoo = workers(KERAS_3, SUPPORT / "keras3_zoo_worker.py")
            zoo.call("build", kind=kind, path=str(path), **{"seed": 0, **params})
        return path

    return build


def compare(tmp_path: Path, model: Path, *options: str, **arrays: Any) -> int:
    data = tmp_path / "data.npz"
    np.savez(data, **arrays, y=np.arange(4) % 2)
    return cli.main(["compare", str(model), "--data", str(data), *options])


def images(*shape: int) -> Any:
    return np.random.default_rng(0).random((4, *shape), dtype=np.float32)


def test_a_keras_3_cnn_is_compared_with_all_four(
    build: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = compare(tmp_path, build("batch_norms"), x=images(8, 8, 3))
    out, err = capsys.readouterr()
    assert code == ending.EQUAL, out + err
    assert "rebuilt for Keras 2," in err
    for library in ("nsl /", "cleverhans3 /", "cleverhans-tf2 /", "cleverhans-torch /"):
        assert library in out


@pytest.mark.slow
def test_keras_3_inputs_keep_their_names(build: Build, tmp_path: Path) -> None:
    arrays = {"alpha": images(4), "zeta": images(4) + 1}
    assert compare(tmp_path, build("two_inputs"), "--against", "nsl", **arrays) == ending.EQUAL


@pytest.mark.slow
def test_a_keras_2_saved_model_is_compared(
    workers: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "folder"
    zoo = workers(KERAS_2, SUPPORT / "converter_zoo_worker.py")
    zoo.call("build", kind="batch_norms", path=str(path), seed=0)
    code = compare(tmp_path, path, "--against", "nsl", x=images(8, 8, 3))
    out, err = capsys.readouterr()
    assert code == ending.EQUAL, out + err
    assert "rebuilt" not in err


@pytest.mark.parametrize(
    ("kind", "suffix", "said"),
    [
        ("noise", ".keras", "layer 'noise' is a GaussianNoise"),
        ("lambda", ".keras", "layer 'twice' is a Lambda"),
        ("lambda", ".h5", "layer 'twice' is a Lambda"),
        ("own", ".keras", "layer 'd' has an activation of its own"),
        ("half", ".keras", "layer 'd' computes in mixed_float16"),
        ("hard", ".keras", "outputs differ by "),
        ("batch_norms", "", "this SavedModel holds its graph alone"),
    ],
)
def test_what_the_originals_cannot_run_is_refused_in_one_line(
    kind: str,
    suffix: str,
    said: str,
    build: Build,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = build(kind, suffix, export=suffix == "")
    code = compare(tmp_path, model, x=images(6))
    out, err = capsys.readouterr()
    assert (code, out) == (ending.COULD_NOT_COMPARE, "")
    assert err.count("\n") == 1
    assert f"torchfgsm: {model}: " in err
    assert said in err


@pytest.mark.parametrize("file", [*(f"{kind}.keras" for kind in SUPPORTED), "nests.h5"])
def test_what_is_supported_gives_the_same_outputs(
    file: str, build: Build, workers: Any, tmp_path: Path
) -> None:
    kind, suffix = Path(file).stem, Path(file).suffix
    model = build(kind, suffix, seed=None if kind == "adapted" else 0)
    paths = {"model": str(model), "path": str(tmp_path / "model.keras")}
    reply = workers(KERAS_3, WORKERS / "rebuilding.py").call("rebuild", **paths)
    assert reply.values["difference"] < TOLERANCE


def test_a_wrong_weight_is_noticed(build: Build, tmp_path: Path) -> None:
    script = tmp_path / "wrong.py"
    script.write_text(
        "import rebuilding\nweights = rebuilding._weights\n"
        "rebuilding._weights = lambda layer: [w + 0.01 for w in weights(layer)]\n"
        "HANDLERS = rebuilding.HANDLERS\n"
    )
    paths = {"model": str(build("shared")), "path": str(tmp_path / "model.keras")}
    with Worker(KERAS_3, script) as worker:
        assert worker.call("rebuild", **paths).values["difference"] > TOLERANCE


def test_other_files_are_left_as_they_are(workers: Any, tmp_path: Path) -> None:
    zoo = workers(KERAS_2, SUPPORT / "converter_zoo_worker.py")
    for suffix in (".keras", ".h5"):
        path = tmp_path / f"model{suffix}"
        zoo.call("build", kind="shared", path=str(path), seed=0)
        assert keras2_file(path, tmp_path) == path
        path.write_bytes(b"no model")
        assert keras2_file(path, tmp_path) == path
    assert keras2_file(tmp_path, tmp_path) == tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".keras", ".h5", ""])
def test_code_in_a_file_runs_only_where_it_is_allowed(
    workers: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    canary, path = tmp_path / "canary", tmp_path / f"model{suffix}"
    zoo = workers(KERAS_2, SUPPORT / "hostile_models_worker.py")
    zoo.call("build", kind="lambda", canary=str(canary), path=str(path))
    assert compare(tmp_path, path, x=images(3)) == ending.COULD_NOT_COMPARE
    out, err = capsys.readouterr()
    assert out == ""
    assert "Lambda" in err.splitlines()[-1]
    assert "--allow-unsafe" in err.splitlines()[-1]
    assert not canary.exists()
    options = ("--allow-unsafe", "--against", "nsl,cleverhans3,cleverhans-tf2")
    code = compare(tmp_path, path, *options, x=images(3))
    assert code == ending.EQUAL, capsys.readouterr()
    assert canary.exists()
