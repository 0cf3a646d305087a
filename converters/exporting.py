"""Exports TensorFlow models to annotated ONNX, in a TensorFlow process of their own."""

from __future__ import annotations

import contextlib
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchfgsm.converters import onnx_graph
from torchfgsm.converters.annotation import Annotation, Array, Port, Weight
from torchfgsm.converters.errors import ConversionError, named
from torchfgsm.converters.onnx_graph import Layout

if TYPE_CHECKING:
    from torchfgsm.originals.process import Reply, Worker

KERAS_2 = "tensorflow-2.15"
KERAS_3 = "tensorflow-2.21"
WORKER = Path(__file__).with_name("export_worker.py")


@dataclass(frozen=True)
class Exporter:
    """A running export worker and how it is to read the model."""

    worker: Worker
    path: Path
    format: str

    def call(self, method: str, arrays: dict[str, Array] | None = None, **params: Any) -> Reply:
        """Calls the worker; what it refuses becomes a ConversionError of one line."""
        from torchfgsm.originals.process import WorkerError

        try:
            return self.worker.call(method, arrays or {}, **params)
        except WorkerError as error:
            raise ConversionError(f"{self.path}: {_one_line(error.kind, error.message)}") from error

    def export(self) -> tuple[Any, Annotation]:
        """Returns the ONNX model, with its annotation written into it, and the annotation."""
        reply = self.call("export", path=str(self.path), format=self.format)
        with named(self.path):
            return annotate(reply.values, reply.arrays, self.path.name)


@contextlib.contextmanager
def exporter(path: Path, worker: Worker | None) -> Iterator[Exporter]:
    """Opens the export worker that the file needs, or uses the given one.

    Raises:
        ConversionError: there is no such file, or it is not of its suffix's format.
        EnvironmentUnavailable: the TensorFlow environment cannot be had.
    """
    from torchfgsm.originals.process import Worker

    environment, form = needs(path)
    with contextlib.ExitStack() as stack:
        process = worker or stack.enter_context(Worker(environment, WORKER))
        if path.suffix == ".h5":
            look = Exporter(process, path, form).call("look", path=str(path))
            if worker is None and not str(look.values["keras_version"]).startswith("2"):
                process.close()
                process = stack.enter_context(Worker(KERAS_3, WORKER))
        yield Exporter(process, path, form)


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


def needs(path: Path) -> tuple[str, str]:
    """Returns the environment and the format that a model file needs."""
    if not path.exists():
        raise ConversionError(f"{path}: expected a model, found no such file or folder")
    if path.suffix == ".keras":
        return (KERAS_2 if _keras_major(path) == 2 else KERAS_3), "keras"
    if path.suffix == ".h5":
        return KERAS_2, "keras"
    if not (path / "saved_model.pb").is_file():
        raise ConversionError(
            f"{path}: expected a SavedModel folder, found no saved_model.pb in it"
        )
    metadata = path / "keras_metadata.pb"
    # Keras would run the Python code of a Lambda layer; the graph alone holds what it computes.
    if metadata.is_file() and b'"class_name": "Lambda"' not in metadata.read_bytes():
        return KERAS_2, "keras"
    return KERAS_3, "saved_model"


def _keras_major(path: Path) -> int:
    try:
        with zipfile.ZipFile(path) as archive:
            version = json.loads(archive.read("metadata.json"))["keras_version"]
        return int(str(version).split(".")[0])
    except (zipfile.BadZipFile, KeyError, ValueError, OSError) as error:
        raise ConversionError(
            f"{path}: expected a Keras model file (a zip archive with metadata.json), "
            f"could not read it as one: {error}"
        ) from error


def _one_line(kind: str, message: str) -> str:
    text = " ".join(message.split())
    text = text if len(text) <= 400 else text[:400] + " ..."
    return (
        text if kind == "UnsupportedModelError" else f"TensorFlow could not read it: {kind}: {text}"
    )
