"""Every way into the converter and out of it, judged by TensorFlow, in both Keras versions."""

from __future__ import annotations

import copy
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from processes import SUPPORT

from torchfgsm import cli
from torchfgsm.converters import (
    ConversionError,
    ConvertedModel,
    export_onnx,
    from_frozen_graph,
    from_keras,
    from_saved_model,
    from_tflite,
    load,
)
from torchfgsm.originals.environment import (
    KERAS_3,
    RUNTIMES,
    EnvironmentUnavailable,
    existing_python,
)
from torchfgsm.originals.process import Worker

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("one_thread")]
SCRIPT = SUPPORT / "routes_worker.py"
FORMS = ("keras", "h5", "weights", "saved_model", "frozen", "tflite", "tflite_of_one", "quantised")
SCALED = """
import tensorflow as tf

class Scaled(tf.keras.layers.Layer):
    def __init__(self, factor=2.0, **keywords):
        super().__init__(**keywords)
        self.factor = factor

    def call(self, inputs):
        return inputs * self.factor
"""
FROZEN = {"input_names": ["image:0"], "output_names": ["Identity:0"]}


class Routes:
    """One TensorFlow process, and the models that it wrote."""

    def __init__(self, environment: str, folder: Path) -> None:
        self.keras = 2 if environment == "keras-2" else 3
        self.worker = Worker(environment, SCRIPT)
        self.folder = folder
        self.cnn = self.build("cnn", *FORMS)
        self.model = load(self.cnn["keras"], worker=self.worker)

    def build(self, kind: str, *forms: str) -> dict[str, Path]:
        reply = self.worker.call("build", kind=kind, forms=list(forms), folder=str(self.folder))
        return {form: Path(path) for form, path in reply.values.items()}

    def load(self, path: Path, **options: Any) -> ConvertedModel:
        return load(path, worker=self.worker, **options)


@pytest.fixture(scope="module", params=["keras-2", "keras-3"])
def routes(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Routes]:
    try:
        found = Routes(request.param, tmp_path_factory.mktemp("models"))
    except EnvironmentUnavailable as error:
        pytest.skip(str(error))
    yield found
    found.worker.close()


@pytest.mark.parametrize("form", ["h5", "saved_model", "frozen", "tflite", "tflite_of_one"])
def test_every_route_gives_the_same_values(routes: Routes, form: str) -> None:
    path = routes.cnn[form]
    model = routes.load(path, **(FROZEN if form == "frozen" else {}))
    assert model.verification, model.verification.to_text()
    assert model.input_names == ("image",)
    x = torch.rand(3, 6, 6, 3, requires_grad=True)
    ours, expected = model(x), routes.model(x)
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=2e-6)
    gradients = [torch.autograd.grad(y.square().sum(), x)[0] for y in (ours, expected)]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-5, atol=1e-5)
    if form == "h5" or (form == "saved_model" and routes.keras == 2):
        assert torch.isfinite(model.train()(x)).all()
    else:
        with pytest.raises(ConversionError, match="the one for inference"):
            model.train()


def test_each_route_has_a_function_of_its_own(routes: Routes) -> None:
    options: dict[str, Any] = {"worker": routes.worker, "verify": False}
    x = torch.rand(2, 6, 6, 3)
    models = [
        from_keras(routes.cnn["h5"], **options),
        from_saved_model(routes.cnn["saved_model"], **options),
        from_frozen_graph(routes.cnn["frozen"], ["image"], ["Identity"], **options),
    ]
    for model in models:
        assert not model.verification
        torch.testing.assert_close(model(x), routes.model(x), rtol=1e-6, atol=2e-6)
    with pytest.raises(ConversionError, match=r"suffix \.tflite"):
        from_tflite(routes.cnn["h5"], **options)


def test_the_weights_of_a_frozen_graph_are_parameters(routes: Routes) -> None:
    model = routes.load(routes.cnn["frozen"], verify=False, **FROZEN)
    sizes = sorted(p.numel() for p in model.parameters())
    expected = [p.numel() for n, p in routes.model.named_parameters() if "norm" not in n]
    # Keras 3 computes BatchNormalization from plain operations, and its numbers stay constants.
    norm = [4, 4] if routes.keras == 2 else []
    assert sizes == sorted([*expected, *norm])


def test_a_gradient_that_tensorflow_has_by_xla_alone_is_compared(routes: Routes) -> None:
    """That of a grouped convolution on a CPU; its forward pass has a kernel, other than fused."""
    model = routes.load(routes.build("grouped", "frozen")["frozen"], **FROZEN)
    assert "gradient" in model.verification.to_text()
    assert [p.numel() for p in model.parameters()] == [3 * 3 * 2 * 4]


def test_custom_layers_come_from_a_file(routes: Routes) -> None:
    path = routes.build("custom", "keras")["keras"]
    with pytest.raises(ConversionError, match=r"Scaled.*custom_objects") as caught:
        routes.load(path)
    assert "\n" not in str(caught.value)
    file = routes.folder / "layers.py"
    file.write_text(SCALED)
    model = routes.load(path, custom_objects=file)
    assert model.verification
    file.write_text("raise OSError('no such thing')")
    with pytest.raises(ConversionError, match=r"layers\.py could not be run: OSError: no such"):
        routes.load(path, custom_objects=file)


def test_float64_is_exported_not_cast(routes: Routes) -> None:
    model = routes.load(routes.cnn["keras"], dtype=torch.float64)
    assert model.dtype == torch.float64
    assert model.verification, model.verification.to_text()
    x = torch.rand(2, 6, 6, 3)
    torch.testing.assert_close(model(x.double()).float(), routes.model(x), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"expected \(N, 6, 6, 3\) float64, got .* float32"):
        model(x)
    with pytest.raises(ConversionError, match=r"only Keras models.*\.double\(\)"):
        routes.load(routes.cnn["frozen"], dtype=torch.float64, **FROZEN)


def test_a_trained_model_goes_home(routes: Routes) -> None:
    model = copy.deepcopy(routes.model).train()
    x, y = torch.rand(8, 6, 6, 3), torch.arange(8) % 3
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(F.cross_entropy(model(x), y), parameters)
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.sub_(0.1 * gradient)
    weights = model.to_keras_weights()
    reply = routes.worker.call(
        "predict",
        {"x": x.numpy(), **{f"weight/{i}": w for i, w in enumerate(weights.values())}},
        path=str(routes.cnn["keras"]),
    )
    assert list(weights) == reply.values["names"]
    assert reply.values["moved"] > 1e-3
    ours = model.eval()(x).softmax(dim=-1).detach()
    torch.testing.assert_close(torch.from_numpy(reply.arrays["y"]), ours, rtol=1e-5, atol=1e-6)


def test_an_export_leaves_no_trace_in_a_living_model(routes: Routes) -> None:
    assert routes.worker.call("in_memory").values["changed"] == []


def test_a_model_that_cannot_be_exported_here_goes_through_a_file(routes: Routes) -> None:
    class Model:
        """Stands for a model of a Keras that has no tf2onnx beside it."""

        name = "living"

        def save(self, path: Path) -> None:
            shutil.copy(routes.cnn["keras"], path)

    Model.__module__ = "keras.src.models"
    model = from_keras(Model(), worker=routes.worker)
    assert model.verification
    x = torch.rand(2, 6, 6, 3)
    assert torch.equal(model(x), routes.model(x))
    with pytest.raises(ConversionError, match="model file or a Keras model, got int"):
        from_keras(3)


IN_MEMORY = """
import sys
sys.path.append(sys.argv[1])
import tensorflow as tf
from torchfgsm import converters

layers = tf.keras.layers
model = tf.keras.Sequential([
    layers.Input((6, 6, 3), name="image"), layers.Conv2D(4, 3, activation="relu"),
    layers.BatchNormalization(), layers.Flatten(), layers.Dense(3, activation="softmax"),
])
converted = converters.from_keras(model, keep_head=True)
assert converted.verification, converted.verification.to_text()
import numpy as np, torch
x = np.random.default_rng(0).random((2, 6, 6, 3), dtype=np.float32)
difference = np.abs(model(x).numpy() - converted(torch.from_numpy(x)).detach().numpy()).max()
assert difference < 1e-6, difference
assert "call" not in vars(model.layers[1])
print("converted", "torchvision" in sys.modules)
"""


def test_a_keras_3_model_is_converted_where_it_lives() -> None:
    """TensorFlow is imported first: torchvision beside it would end the process."""
    python = existing_python(RUNTIMES[KERAS_3])
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = python and python.parent.parent / "lib" / version / "site-packages"
    if packages is None or not packages.is_dir():
        pytest.skip(f"there is no TensorFlow 2.21 for {version}")
    result = subprocess.run(
        [sys.executable, "-c", IN_MEMORY, str(packages)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "TF_ENABLE_ONEDNN_OPTS": "0", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.splitlines()[-1] == "converted False"


def test_bad_models_are_refused_in_one_line(routes: Routes) -> None:
    corrupt = {}
    for form in ("h5", "frozen", "tflite", "keras"):
        corrupt[form] = routes.folder / f"corrupt{routes.cnn[form].suffix}"
        corrupt[form].write_bytes(b"PK nothing of the kind" * 20)
    cut = routes.folder / "cut.keras"
    cut.write_bytes(routes.cnn["keras"].read_bytes()[:2000])
    one: dict[str, Any] = {"input_names": ["image"]}
    cases: list[tuple[Path, dict[str, Any], str]] = [
        (corrupt["keras"], {}, "zip archive"),
        (cut, {}, "zip archive"),
        (corrupt["h5"], {}, "could not read it|HDF5"),
        (corrupt["frozen"], FROZEN, "expected a frozen graph"),
        (corrupt["tflite"], {}, "expected a TFLite model"),
        (routes.cnn["weights"], {}, "weights alone|model.save"),
        (routes.cnn["quantised"], {}, "quantised.*convert the float model"),
        (routes.cnn["frozen"], {}, r"input_names.*placeholders are \['image:0'\].*'Identity:0'"),
        (routes.cnn["frozen"], one, r"expected output_names.*last tensors \['Identity:0'"),
        (routes.cnn["frozen"], {**one, "output_names": ["y"]}, "no tensor 'y'.*Identity:0"),
        (routes.build("texts", "saved_model")["saved_model"], {}, "'text' takes strings"),
        (routes.build("lambda", "keras")["keras"], {}, "Lambda"),
    ]
    for path, options, message in cases:
        with pytest.raises(ConversionError, match=message) as caught:
            routes.load(path, **options)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)


def test_a_lambda_layer_is_run_where_that_is_allowed(routes: Routes) -> None:
    path = routes.build("lambda", "keras")["keras"]
    x = torch.rand(1, 6, 6, 3)
    assert torch.isfinite(routes.load(path, allow_unsafe=True, verify=False)(x)).all()


def test_whole_number_inputs_convert_without_a_gradient(routes: Routes) -> None:
    model = routes.load(routes.build("numbers", "keras")["keras"])
    assert model.verification
    assert "no input gradient exists" in model.verification.title
    words = torch.randint(7, (2, 4))
    assert torch.equal(model(words), model(words.int()))
    with pytest.raises(ValueError, match=r"'words': expected \(N, 4\) int32, got .* float32"):
        model(words.float())


def test_the_module_behaves_like_a_module(routes: Routes, tmp_path: Path) -> None:
    model = routes.model
    x = torch.rand(2, 6, 6, 3)
    expected = model(x)
    torch.save(model.state_dict(), tmp_path / "state.pt")
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    other.load_state_dict(torch.load(tmp_path / "state.pt"))
    assert torch.equal(other.to("cpu")(x), expected)
    assert torch.equal(pickle.loads(pickle.dumps(model))(x), expected)
    half = copy.deepcopy(model).bfloat16()
    assert half.dtype == half(x.bfloat16()).dtype == torch.bfloat16
    assert copy.deepcopy(model).to("meta")(x.to("meta")).shape == (2, 3)
    text = repr(model)
    for part in ("input 'image': (N, 6, 6, 3) float32", "cut Softmax", "PASSED", "statistics"):
        assert part in text
    assert len(text.splitlines()) < 12


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (torch.zeros(3, 6, 6), r"expected \(N, 6, 6, 3\) float32, got \(3, 6, 6\) float32"),
        (torch.zeros(2, 3, 6, 6), r"expected \(N, 6, 6, 3\) float32, got \(2, 3, 6, 6\)"),
        (torch.zeros(2, 6, 6, 3, dtype=torch.float64), "float32, got .* float64"),
        (torch.zeros(2, 6, 6, 3, dtype=torch.int64), "float32, got .* int64"),
    ],
)
def test_wrong_inputs_are_refused(routes: Routes, wrong: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=f"input 'image': .*{message}"):
        routes.model(wrong)
    with pytest.raises(TypeError, match="expected a tensor, got ndarray"):
        routes.model(np.zeros((1, 6, 6, 3), np.float32))


def test_the_command_converts_end_to_end(
    routes: Routes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The one test here that starts TensorFlow as a user's call does."""
    if routes.keras == 2:
        pytest.skip("one start of TensorFlow is enough")
    out, data = tmp_path / "model.onnx", tmp_path / "data.npz"
    np.savez(data, x=np.zeros((2, 6, 6, 3), np.float32), y=np.zeros(2, int))
    command = ["convert", str(routes.cnn["keras"]), "-o", str(out), "--data", str(data)]
    assert cli.main([*command, "--verify-training"]) == 0
    shown = capsys.readouterr()
    for step in ("reading", "exporting", "building", "verifying 1 of", "writing", "done"):
        assert step in shown.err
    assert shown.out.splitlines()[-1].endswith("agree")
    assert cli.main(["convert", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["verification"]["passed"] is True
    assert found["inputs"] == [{"name": "image", "dtype": "float32", "shape": [None, 6, 6, 3]}]
    assert {w["kind"] for w in found["weights"]} == {"trainable", "statistic"}
    assert found["logits"]["probs"]["cut"] == "Softmax"
    assert [p.name for p in tmp_path.iterdir() if p.suffix != ".npz"] == ["model.onnx"]
    x = torch.rand(2, 6, 6, 3)
    assert torch.equal(load(out)(x), routes.model(x))


def test_a_process_that_ends_or_hangs_is_named(routes: Routes, tmp_path: Path) -> None:
    if routes.keras == 2:
        pytest.skip("the process is the same")
    with pytest.raises(ConversionError, match=r"took too long.*timeout=") as caught:
        export_onnx(routes.cnn["keras"], tmp_path / "model.onnx", timeout=0.01)
    assert "\n" not in str(caught.value)
    file = routes.folder / "ends.py"
    file.write_text("import os\nos._exit(3)")
    with pytest.raises(ConversionError, match=r"process ended.*exit code 3"):
        export_onnx(routes.cnn["keras"], tmp_path / "model.onnx", custom_objects=file)
    assert list(tmp_path.iterdir()) == []
