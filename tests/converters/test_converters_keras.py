"""What an export knows of Keras' layers, losses, precisions and files, in both Keras versions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from processes import SUPPORT

from torchfgsm.converters.annotating import annotate
from torchfgsm.converters.annotation import Annotation
from torchfgsm.converters.torch_side.building import build
from torchfgsm.originals.environment import EnvironmentUnavailable
from torchfgsm.originals.process import Reply, Worker, WorkerError

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("one_thread")]
SCRIPT = SUPPORT / "keras_models_worker.py"


class Keras:
    """One TensorFlow process; each model is exported once."""

    def __init__(self, environment: str, folder: Path) -> None:
        self.version = 2 if environment == "keras-2" else 3
        self.worker = Worker(environment, SCRIPT)
        self.folder = folder
        self._replies: dict[tuple[str, str], Reply] = {}

    def export(self, kind: str, precision: str = "float32") -> Reply:
        key = kind, precision
        if key not in self._replies:
            call = self.worker.call
            self._replies[key] = call("export_model", kind=kind, precision=precision)
        return self._replies[key]

    def annotated(self, kind: str, precision: str = "float32") -> tuple[Any, Annotation]:
        reply = self.export(kind, precision)
        return annotate(reply.values, reply.arrays, kind)

    def save(self, kind: str, name: str, **params: Any) -> str:
        path = str(self.folder / name)
        self.worker.call("save", kind=kind, path=path, **params)
        return path

    def name(self, plain: str) -> str:
        """The weight's name; Keras 2 adds the number of the output."""
        return f"{plain}:0" if self.version == 2 else plain


@pytest.fixture(scope="module", params=["keras-2", "keras-3"])
def keras(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Keras]:
    try:
        keras = Keras(request.param, tmp_path_factory.mktemp("models"))
    except EnvironmentUnavailable as error:
        pytest.skip(str(error))
    yield keras
    keras.worker.close()


def test_noise_layers_arrive_with_their_settings(keras: Keras) -> None:
    from onnx import shape_inference

    model, annotation = keras.annotated("noise")
    assert annotation.only_inference == ()
    shapes = {
        value.name: [d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in shape_inference.infer_shapes(model).graph.value_info
    }
    found = {}
    for node in (node for node in model.graph.node if node.op_type == "Dropout"):
        settings = json.loads(node.doc_string)
        shape = shapes[node.output[0]]
        found[settings.pop("layer")] = settings, [shape[i] for i in settings.pop("axes")]
    # The sizes of the shared axes tell that they are those of the node's own layout.
    assert found == {
        "dropout": ({"kind": "Dropout", "rate": 0.1}, []),
        "by_example": ({"kind": "Dropout", "rate": 0.2}, [4, 5, 2]),
        "by_channel": ({"kind": "Dropout", "rate": 0.3}, [4, 5]),
        "noise": ({"kind": "GaussianNoise", "stddev": 0.4}, []),
        "factors": ({"kind": "GaussianDropout", "rate": 0.5}, []),
        "alpha": ({"kind": "AlphaDropout", "rate": 0.6}, []),
        "in_time": ({"kind": "Dropout", "rate": 0.7}, [20]),
        "in_space": ({"kind": "Dropout", "rate": 0.8}, [2, 5, 2]),
    }


def test_layers_that_act_in_training_beyond_the_marks_are_named(keras: Keras) -> None:
    assert keras.export("acting").values["only_inference"] == [
        "RandomFlip 'flip'",
        "Dropout 'fixed_batch'",
        "BatchNormalization 'renorm'",
        "GRU 'dropping'",
        "Branching 'branching'",
    ]
    assert keras.export("stochastic").values["only_inference"] == ["StochasticDepth 'depth'"]
    spectral = keras.export("spectral").values["only_inference"]
    assert spectral == ["SpectralNormalization 'spectral'"]


def test_nothing_of_the_export_is_left_on_the_model(keras: Keras) -> None:
    for kind in ("acting", "blocks"):
        assert keras.export(kind).values["patched"] == []


def test_batch_norm_trains_where_keras_trains_it(keras: Keras) -> None:
    """Keras 2 heeds base(x, training=False) in training too, Keras 3 does not."""
    moved = keras.worker.call("moved", kind="pinned").values["moved"]
    _, annotation = keras.annotated("pinned")
    statistics = {w.name for w in annotation.weights if w.statistic and "mean" in w.name}
    assert statistics == {name for name in moved if "mean" in name}
    assert keras.name("alive/moving_mean") in statistics
    assert annotation.only_inference == ()


def test_a_layer_that_is_always_random_is_refused(keras: Keras) -> None:
    if keras.version == 3:
        pytest.skip("Keras 3 lets the caller's training=False win")
    with pytest.raises(WorkerError, match=r"Dropout 'always' is called with training=True"):
        keras.export("always")


def test_penalties_are_the_losses_of_keras(keras: Keras) -> None:
    _, annotation = keras.annotated("penalties")
    reply = keras.export("penalties")
    names = {weight.tensor: weight.name for weight in annotation.weights}
    total = 0.0
    for term in annotation.penalties:
        array = reply.arrays[f"weight/{names[term.weight]}"].astype(np.float64)
        total += term.l1 * np.abs(array).sum() + term.l2 * np.square(array).sum()
    expected = keras.worker.call("losses", kind="penalties").values["loss"]
    assert total == pytest.approx(expected, rel=1e-6)
    # Keras 3 leaves out weights that are not trained.
    assert len(annotation.penalties) == (5 if keras.version == 2 else 4)
    assert annotation.lost == ()


def test_other_losses_and_constraints_are_said_to_be_lost(keras: Keras) -> None:
    assert keras.export("lost").values["lost"] == [
        f"the Roughness loss of {keras.name('rough/kernel')!r}",
        f"the constraint NonNeg of {keras.name('bounded/kernel')!r}",
        "the activity loss of Dense 'active'",
        "the loss that Costly 'costly' adds in its call",
    ]


@pytest.mark.parametrize(
    "kind",
    [
        "cnn",
        pytest.param("blocks", marks=pytest.mark.slow),
        pytest.param("subclassed", marks=pytest.mark.slow),
    ],
)
def test_the_export_in_float64_computes_what_keras_does_in_float64(keras: Keras, kind: str) -> None:
    model, annotation = keras.annotated(kind, "float64")
    assert [port.dtype for port in annotation.inputs] == ["float64"]
    port = annotation.inputs[0]
    x = np.random.default_rng(0).normal(size=(2, *(n or 1 for n in port.shape)))
    single = keras.export(kind).arrays
    for name, array in keras.export(kind, "float64").arrays.items():
        if name.startswith("weight/"):
            assert array.dtype == np.float64
            np.testing.assert_array_equal(array, single[name])
    objectives = [{"head": None, "kind": "squares", "axis": -1}]
    # The process judges the model that it exported last.
    keras.worker.call("export_model", kind=kind, precision="float64")
    arrays = {f"input/{port.name}": x}
    reply = keras.worker.call("evaluate", arrays, precision="float64", objectives=objectives)
    module = build(model, annotation, keep_head=True)
    ours = module(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(ours, reply.arrays["output/0"], rtol=1e-12, atol=1e-13)


def test_a_layer_without_float64_is_named(keras: Keras) -> None:
    with pytest.raises(WorkerError, match=r"cannot compute in float64: .*MaxPooling3D") as caught:
        keras.export("volume", "float64")
    assert caught.value.kind == "UnsupportedModelError"
    assert "\n" not in caught.value.message


def test_half_precision_becomes_float32_and_is_said(keras: Keras) -> None:
    _, annotation = keras.annotated("half")
    assert annotation.lost == ("computing in float16: its layers compute in float32",)
    assert {port.dtype for port in annotation.inputs} == {"float32"}


def test_all_weights_come_in_the_order_of_get_weights(keras: Keras) -> None:
    model, annotation = keras.annotated("counted")
    arrays = {weight.name: weight.array() for weight in annotation.other_weights}
    stored = keras.export("counted").arrays
    arrays |= {w.name: stored[f"weight/{w.name}"] for w in annotation.weights}
    expected = keras.worker.call("weights", kind="counted").arrays
    assert len(annotation.weight_order) == len(expected) == 5
    for name, array in zip(annotation.weight_order, expected.values(), strict=True):
        np.testing.assert_array_equal(arrays[name], array)
        assert arrays[name].dtype == array.dtype
    assert Annotation.read(model) == annotation


def test_one_tensor_as_two_outputs_and_integer_inputs(keras: Keras) -> None:
    _, annotation = keras.annotated("counted")
    assert len({port.tensor for port in annotation.outputs}) == 2
    _, annotation = keras.annotated("indices")
    assert annotation.inputs[0].dtype == "int32"


def test_unknown_classes_are_named_and_can_be_given(keras: Keras, tmp_path: Path) -> None:
    path = keras.save("custom", "custom.h5")
    file = tmp_path / "classes.py"
    file.write_text(
        "import tensorflow as tf\n\n\nclass Doubled(tf.keras.layers.Layer):\n"
        "    def call(self, inputs):\n        return 2.0 * inputs\n"
    )
    with pytest.raises(WorkerError, match="'Doubled', which Keras does not know"):
        keras.worker.call("export", path=path, format="keras")
    reply = keras.worker.call("export", path=path, format="keras", custom_objects=str(file))
    assert [entry["name"] for entry in reply.values["weights"]]


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_code_in_a_file_is_refused_unless_allowed(keras: Keras, suffix: str) -> None:
    path = keras.save("lambda", f"code{suffix}")
    with pytest.raises(WorkerError, match=r"layer 'twice' holds Python code"):
        keras.worker.call("export", path=path, format="keras")
    reply = keras.worker.call("export", path=path, format="keras", allow_unsafe=True)
    assert reply.values["outputs"]


def test_subclassed_models(keras: Keras) -> None:
    model, annotation = keras.annotated("subclassed")
    assert annotation.inputs[0].shape == (5, 5, 1)
    assert annotation.only_inference == ()
    assert "BatchNormalization" in {node.op_type for node in model.graph.node}
    name = "subclassed" if keras.version == 2 else "subclassed.keras"
    path = keras.save("subclassed", name)
    reply = keras.worker.call("export", path=path, format="keras")
    assert reply.values["shapes"] == [[5, 5, 1]]


def test_pieces_of_known_networks_export(keras: Keras) -> None:
    """Grouped convolution, exact gelu, LayerScale, squeeze and excitation, adapted statistics."""
    model, annotation = keras.annotated("blocks")
    assert annotation.only_inference == ()
    groups = [a.i for n in model.graph.node for a in n.attribute if a.name == "group"]
    assert 2 in groups


def test_the_error_names_layer_and_operation(keras: Keras) -> None:
    with pytest.raises(WorkerError, match=r"layer 'odd': the TensorFlow operation Digamma "):
        keras.export("odd")
