"""Gives an exported graph its weights, its own names and its annotation."""

from __future__ import annotations

from typing import Any

from torchfgsm.converters import onnx_graph
from torchfgsm.converters.annotation import Annotation, Array, Port, Weight
from torchfgsm.converters.onnx_graph import Layout


def annotate(values: dict[str, Any], arrays: dict[str, Array], name: str) -> tuple[Any, Annotation]:
    """Gives an exported graph its weights, its own names and its annotation.

    Args:
        values: what the worker's ``export`` says about the model.
        arrays: the graph under "onnx", the weights in Keras layout under "weight/<name>".
        name: the model file's name, for people.
    """
    import onnx

    model = onnx.load_from_string(arrays["onnx"].tobytes())
    onnx_graph.refuse_unknown(model)
    onnx_graph.make_reshapes_static(model)
    layouts = {
        entry["onnx"]: onnx_graph.fold_layout(
            model, entry["onnx"], arrays[f"weight/{entry['name']}"].shape
        )
        for entry in values["weights"]
    }
    wanted = {layouts[entry["onnx"]][0]: entry["name"] for entry in values["weights"]}
    wanted |= dict(zip(values["input_tensors"], values["inputs"], strict=True))
    wanted |= dict(zip(values["output_tensors"], values["outputs"], strict=True))
    final = onnx_graph.rename(model, wanted)
    weights = []
    for entry in values["weights"]:
        array = arrays[f"weight/{entry['name']}"]
        tensor, layout = layouts[entry["onnx"]]
        weight = _weight(model, entry, final[tensor], array.shape, layout)
        onnx_graph.set_constant(model, weight.tensor, weight.to_onnx(array))
        weights.append(weight)
    types = {value.name: onnx_graph.type_of(value) for value in model.graph.output}
    inputs = [values[key] for key in ("inputs", "input_tensors", "dtypes", "shapes")]
    outputs = [values[key] for key in ("outputs", "output_tensors")]
    versions = values["versions"]
    annotation = Annotation(
        source=f"{name} (Keras {versions['keras']}, TensorFlow {versions['tensorflow']})",
        inputs=tuple(Port(n, final[t], d, tuple(s)) for n, t, d, s in zip(*inputs, strict=True)),
        outputs=tuple(Port(n, final[t], *types[final[t]]) for n, t in zip(*outputs, strict=True)),
        structure=values["output_structure"],
        weights=tuple(weights),
        only_inference=tuple(values["only_inference"]),
    )
    onnx_graph.set_inputs(model, [(p.tensor, p.dtype, p.shape) for p in annotation.inputs])
    annotation.write(model)
    onnx.checker.check_model(model)
    return model, annotation


def _weight(
    model: Any, entry: dict[str, Any], tensor: str, shape: tuple[int, ...], layout: Layout
) -> Weight:
    norms = (node for node in model.graph.node if node.op_type == "BatchNormalization")
    statistic = any(tensor in node.input[3:5] for node in norms)
    return Weight(
        name=entry["name"],
        tensor=tensor,
        shape=shape,
        layout=layout,
        trainable=entry["trainable"],
        statistic=statistic and not entry["trainable"],
        batch_norm=entry.get("batch_norm"),
    )
