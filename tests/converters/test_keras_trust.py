"""What of Keras a configuration may name, and what is said of everything else."""

from __future__ import annotations

from typing import Any

import pytest

from torchfgsm.converters.tensorflow_side.keras_trust import Own, distrust


def layer(
    kind: str, *, module: str | None = "keras.layers", registered: Any = None, **config: Any
) -> Any:
    return {
        "module": module,
        "class_name": kind,
        "config": {"name": "mine", **config},
        "registered_name": registered,
    }


def model_of(*layers: Any, **more: Any) -> Any:
    config = {"name": "model", "layers": list(layers)}
    return {"module": "keras", "class_name": "Sequential", "config": config, **more}


CODE = {"class_name": "__lambda__", "config": {"value": ["4wEA", None, None]}}
SYSTEM = {
    "module": "os",
    "class_name": "function",
    "config": "system",
    "registered_name": "function",
}
GET_FILE = {**SYSTEM, "module": "keras.utils", "config": "get_file"}
UNSAFE = {**SYSTEM, "module": "keras.config", "config": "enable_unsafe_deserialization"}
CODES: dict[str, Any] = {
    "Lambda": layer("Lambda", function=CODE),
    "Lambda of Keras 2": layer("Lambda", function=["4wEA", None, None], function_type="lambda"),
    "in a wrapper": layer("TimeDistributed", layer=layer("Lambda", function=CODE)),
    "in two directions": layer("Bidirectional", layer=layer("GRU", activation=CODE)),
    "in a model": model_of(layer("Lambda", function=CODE)),
    "in a cell": layer("RNN", cell=[layer("GRUCell"), layer("LSTMCell", activation=CODE)]),
    "activation": layer("Dense", activation=CODE),
    "initialiser": layer("Dense", kernel_initializer=CODE),
    "regulariser": layer("Dense", kernel_regularizer=CODE),
    "loss": model_of(compile_config={"loss": CODE}),
    "old form": {"class_name": "Lambda", "config": {"name": "mine", "function": ["4wEA"]}},
}


@pytest.mark.parametrize("name", CODES)
def test_code_in_a_configuration_is_named(name: str) -> None:
    reason = distrust(model_of(layer("Dense"), CODES[name]))
    assert reason is not None
    assert "holds Python code (a Lambda)" in reason
    assert "--allow-unsafe" in reason
    assert "'mine'" in reason or name == "loss"


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (SYSTEM, "function 'system', which Keras does not know (module 'os')"),
        (layer("Dense", activation=SYSTEM), "function 'system'"),
        (layer("Dense", kernel_initializer=GET_FILE), "'get_file', which is no part of a model"),
        (layer("Dense", kernel_initializer=UNSAFE), "'enable_unsafe_deserialization'"),
        (layer("Dense", kernel_initializer={**SYSTEM, "module": "builtins"}), "'system'"),
        (layer("Dense", module="os"), "class 'Dense', which Keras does not know (module 'os')"),
        (layer("Dense", module="kerasevil"), "(module 'kerasevil')"),
        (layer("Dense", module="keras_evil.layers"), "(module 'keras_evil.layers')"),
        (layer("Popen", module="subprocess"), "class 'Popen'"),
        (layer("Dense", registered="Other>Thing"), "class 'Other>Thing'"),
        (layer("Scaled", module=None, registered="Custom>Scaled"), "class 'Custom>Scaled'"),
        (layer("TFSMLayer", filepath="/etc"), "class 'TFSMLayer'"),
        (layer("TorchModuleWrapper", module="keras.src.utils.torch_utils"), "'TorchModuleWrapper'"),
        (layer("JaxLayer"), "class 'JaxLayer'"),
        (layer("StringLookup", vocabulary="/etc/passwd"), "reads the file '/etc/passwd'"),
        (layer("TextVectorization", vocabulary="http://a/b"), "reads the file 'http://a/b'"),
        (layer("IntegerLookup", idf_weights="x"), "'idf_weights' of IntegerLookup reads"),
        (layer("TFOpLambda", function="io.write_file"), "calls TensorFlow's 'io.write_file'"),
        (layer("TFOpLambda", function="py_function"), "calls TensorFlow's 'py_function'"),
        (layer("TFOpLambda", function="raw_ops.ReadFile"), "calls TensorFlow's"),
        (layer("TFOpLambda", function="math.add\nio.write_file"), "calls TensorFlow's"),
        (layer("TFOpLambda", function="compat.v1.py_func"), "calls TensorFlow's"),
        (layer("ClassMethod", cls_symbol="data.Dataset"), "class 'ClassMethod'"),
        (layer("TensorFlowOpLayer", node_def="op: 'ReadFile'"), "class 'TensorFlowOpLayer'"),
        (layer("get_item", module="keras.src.ops.numpy"), "class 'get_item'"),
        (layer("Add", module="keras.src.ops.operation_utils"), None),
        (
            {"class_name": "__typespec__", "spec_name": "system", "module": "os",
             "registered_name": None, "config": []},
            "specification 'system'"),
        ({"class_name": ["Dense"], "config": {}}, "expected the name of a class"),
        ({"class_name": "Dense", "module": 3, "config": {}}, "expected the name of a class"),
    ],
)  # fmt: skip
def test_what_is_not_known_to_compute_alone_is_refused(entry: Any, said: str | None) -> None:
    reason = distrust(model_of(layer("Dense"), {"nested": [entry]}))
    if said is None:
        assert reason is None
        return
    assert reason is not None
    assert said in reason
    if "name of a class" not in said:
        assert "--allow-unsafe" in reason


def test_usual_configurations_are_trusted() -> None:
    relu = {"module": "builtins", "class_name": "function", "config": "relu"}
    tensor = {"class_name": "__keras_tensor__", "config": {"shape": [2], "keras_history": ["x"]}}
    config = model_of(
        layer("Dense", activation="relu", kernel_initializer=layer("GlorotUniform")),
        layer("Conv2D", activation=relu, dtype=layer("DTypePolicy", module="keras")),
        layer("Bidirectional", layer=layer("GRU"), backward_layer=layer("GRU")),
        layer("Functional", module="keras.src.engine.functional", registered="Functional"),
        layer("Einsum", module="keras.src.ops.numpy"),
        layer("TFOpLambda", function="math.reduce_mean"),
        layer("StringLookup", vocabulary=["a", "b"]),
        {"class_name": "MaxPooling2D", "config": {"name": "old"}},
        {"args": [tensor], "kwargs": {}},
        compile_config={"loss": {"module": "mine", "class_name": "Loss", "config": {}}},
    )
    assert distrust(config) is None


def test_what_the_user_gave_may_be_named() -> None:
    own = Own({"Scaled", "Package>Thing", "wavy"})
    wavy = {"module": "builtins", "class_name": "function", "config": "wavy"}
    for entry in (
        layer("Scaled", module=None, registered="Scaled"),
        layer("Thing", module="elsewhere", registered="Package>Thing"),
        layer("Dense", activation=wavy),
        {"class_name": "Scaled", "config": {}},
    ):
        assert distrust(model_of(entry), own) is None
        assert distrust(model_of(entry)) is not None
    # Its name alone does not let a file import another module.
    assert distrust(model_of(layer("Scaled", module="os", registered=None)), own) is not None


def test_a_very_deep_configuration_is_refused() -> None:
    deep: Any = layer("Dense")
    for _ in range(2000):
        deep = [deep]
    assert "levels" in (distrust(deep) or "")
    for _ in range(1900):
        (deep,) = deep
    assert distrust(deep) is None
