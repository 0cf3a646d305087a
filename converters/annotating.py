"""Gives an exported graph its weights, its own names and its annotation."""

from __future__ import annotations

from typing import Any

from torchfgsm.converters.annotation import Annotation, Array, OtherWeight, Penalty, Port, Weight
from torchfgsm.converters.onnx_side import graph as onnx_graph
from torchfgsm.converters.onnx_side.graph import Layout


def annotate(values: dict[str, Any], arrays: dict[str, Array], name: str) -> tuple[Any, Annotation]:
    """Gives an exported graph its weights, its own names and its annotation.

    Args:
        values: what the worker's ``export`` says about the model.
        arrays: the graph under "onnx", in Keras layout the weights under "weight/<name>" and
            those that no output depends on under "other/<name>".
        name: the model file's name, for people.

    Raises:
        ConversionError: an operation is not supported.
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
    annotation = _annotation(model, values, arrays, final, weights, name)
    onnx_graph.set_inputs(model, [(p.tensor, p.dtype, p.shape) for p in annotation.inputs])
    annotation.write(model)
    onnx.checker.check_model(model)
    return model, annotation


def _annotation(
    model: Any,
    values: dict[str, Any],
    arrays: dict[str, Array],
    final: dict[str, str],
    weights: list[Weight],
    name: str,
) -> Annotation:
    types = {value.name: onnx_graph.type_of(value) for value in model.graph.output}
    inputs = [values[key] for key in ("inputs", "input_tensors", "dtypes", "shapes")]
    outputs = [values[key] for key in ("outputs", "output_tensors")]
    versions = values["versions"]
    tensors = {weight.name: weight.tensor for weight in weights}
    return Annotation(
        source=f"{name} (Keras {versions['keras']}, TensorFlow {versions['tensorflow']})",
        inputs=tuple(Port(n, final[t], d, tuple(s)) for n, t, d, s in zip(*inputs, strict=True)),
        outputs=tuple(Port(n, final[t], *types[final[t]]) for n, t in zip(*outputs, strict=True)),
        structure=values["output_structure"],
        weights=tuple(weights),
        only_inference=tuple(values["only_inference"]),
        penalties=tuple(
            Penalty(tensors[term["weight"]], term["l1"], term["l2"])
            for term in values.get("penalties", ())
        ),
        lost=tuple(values.get("lost", ())),
        weight_order=tuple(values.get("weight_order", tensors)),
        other_weights=tuple(
            OtherWeight.of(key.removeprefix("other/"), array)
            for key, array in arrays.items()
            if key.startswith("other/")
        ),
    )


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
