"""Model and data files that are hostile or broken, written without TensorFlow."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

KERNEL = np.arange(12, dtype=np.float32).reshape(4, 3) / 10
OPSET = helper.make_opsetid("", 15)


class Canary:
    """Unpickling it makes a folder."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self._path),)


def onnx_model(
    kernel: Any = KERNEL,
    *,
    name: str = "kernel",
    operation: tuple[str, str] = ("", "MatMul"),
    functions: Any = (),
) -> Any:
    """A dense layer; ``operation`` is the domain and the name of its one node."""
    domain, kind = operation
    node = helper.make_node(kind, ["x", "kernel"], ["y"], "dense", domain=domain)
    graph = helper.make_graph(
        [node],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(np.asarray(kernel), name)],
    )
    opsets = [OPSET, *([helper.make_opsetid(domain, 1)] if domain else [])]
    functions = list(functions)
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=functions)


def external(**where: Any) -> bytes:
    """The model with its kernel in another file."""
    model = onnx_model()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in where.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, str(value)
    return bytes(model.SerializeToString())


def function(domain: str, name: str) -> Any:
    """A function that adds its first argument to itself."""
    add = helper.make_node("Add", ["a", "a"], ["c"])
    return helper.make_function(domain, name, ["a", "b"], ["c"], [add], [OPSET])


def onnx_files(folder: Path) -> dict[str, tuple[bytes, str]]:
    """Name -> (contents, what is said of it); other files that they name lie in the folder."""
    secret = folder.parent / "secret.bin"
    secret.write_bytes(KERNEL.tobytes())
    (folder / "kernel.bin").write_bytes(KERNEL.tobytes())
    os.symlink(secret, folder / "link.bin")
    os.link(secret, folder / "second.bin")
    os.symlink(folder.parent, folder / "up")
    good = onnx_model().SerializeToString()
    negative, huge, unknown, lying = (onnx_model() for _ in range(4))
    negative.graph.initializer[0].dims[0] = -4
    huge.graph.initializer[0].dims[0] = 10**12
    unknown.graph.initializer[0].data_type = 99
    lying.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 7
    files = {
        "above": (external(location="../secret.bin"), "in the model's folder, got '../secret.bin'"),
        "absolute": (external(location=secret), "in the model's folder, got '/"),
        "link": (external(location="link.bin"), "'link.bin' is a link"),
        "linked folder": (external(location="up/secret.bin"), "'up/secret.bin' is a link"),
        "second name": (external(location="second.bin"), "a second name of another file"),
        "folder": (external(location="."), "expected its data in a file of its own"),
        "absent": (external(location="none.bin"), "its data cannot be read"),
        "beyond": (external(location="kernel.bin", offset=40, length=48), "the file has 48"),
        "before": (external(location="kernel.bin", offset=-4), "from -4 on"),
        "no number": (external(location="kernel.bin", offset="a"), "its data cannot be read"),
        "too short": (external(location="kernel.bin", length=4), "too small|could not be re"),
        "no place": (external(), "in the model's folder, got ''"),
        "domain": (
            onnx_model(operation=("evil.org", "MatMul")).SerializeToString(),
            "evil.org:MatMul .* not in the ONNX standard"),
        "function": (
            onnx_model(functions=[function("", "MatMul")]).SerializeToString(),
            "redefines ONNX' own operation 'MatMul'"),
        "initialiser": (onnx_model(name="other").SerializeToString(), "'kernel'|kernel of node"),
        "name": (good.replace(b"dense", b"den\xff\xfe"), "expected names in UTF-8"),
        "tensor's name": (good.replace(b"kernel", b"ke\xffnel"), "expected names in UTF-8"),
        "truncated": (good[: len(good) // 2], "could not be read as an ONNX model"),
        "empty": (b"", "could not be read as an ONNX model"),
        "text": (b"no model at all", "could not be read as an ONNX model"),
        "negative": (negative.SerializeToString(), r"expected sizes, got \[-4, 3\]"),
        "huge": (huge.SerializeToString(), "raw_data|could not be re"),
        "type": (unknown.SerializeToString(), "could not be re"),
        "shape": (lying.SerializeToString(), "could not be re|does not agree|y"),
        "NaN": (
            onnx_model(np.where(KERNEL > 1, np.nan, KERNEL)).SerializeToString(),
            "weight 'kernel': expected numbers, 1 of 12 values are NaN"),
        "infinite": (
            onnx_model(np.full_like(KERNEL, np.inf)).SerializeToString(), "NaN or infinite"),
        "no numbers": (onnx_model(KERNEL[:, :0]).SerializeToString(), "could not be re"),
    }  # fmt: skip
    return files


def archive(
    path: Path, members: dict[str, bytes], *, declared: dict[str, int] | None = None
) -> Path:
    """Writes a zip archive, whose directory may say other sizes than its members have."""
    with zipfile.ZipFile(path, "w") as opened:
        for name, content in members.items():
            opened.writestr(name, content)
        for name, size in (declared or {}).items():
            opened.getinfo(name).file_size = size
    return path


def keras_members(config: Any, version: str = "3.15.1") -> dict[str, bytes]:
    """The members of a .keras file without weights."""
    metadata = {"keras_version": version, "date_saved": "2026-01-01@00:00:00"}
    return {
        "metadata.json": json.dumps(metadata).encode(),
        "config.json": json.dumps(config).encode(),
    }


def npy(shape: tuple[int, ...], content: bytes = b"", dtype: str = "<f4") -> bytes:
    """An array in the .npy format whose header may lie."""
    stream = io.BytesIO()
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue() + content


def data_files(folder: Path, canary: Path) -> dict[str, tuple[Path, str]]:
    """Name -> (.npz file, what is said of it)."""
    y = npy((2,), np.zeros(2, np.int64).tobytes(), "<i8")
    pickled = pickle.dumps(np.array([Canary(canary)], dtype=object))
    good = npy((2, 4), bytes(32))

    def of(name: str, x: bytes, **more: Any) -> Path:
        return archive(folder / f"{name}.npz", {"x.npy": x, "y.npy": y}, **more)

    return {
        "objects": (of("objects", npy((1,), pickled, "|O")), "Python objects|the dtype object"),
        "huge": (of("huge", npy((10**12, 4))), "too few bytes"),
        "overflowing": (of("overflowing", npy((2**62, 2**62))), "too few bytes"),
        "negative": (of("negative", npy((-1, 4))), "too few bytes|non-empty|negative"),
        "bomb": (of("bomb", good, declared={"x.npy": 10**12}), "bytes that are stored"),
        "no header": (of("header", b"\x93NUMPY\x01\x00\xff\xff{"), "expected a|expected an"),
        "no array": (of("none", b"import os"), "expected a|expected an"),
    }


def exported_program(path: Path, canary: Path) -> Path:
    """A .pt2 file of torch.export in which an object is pickled that makes the canary."""
    import torch

    model = torch.nn.Linear(4, 3)
    torch.export.save(torch.export.export(model, (torch.zeros(2, 4),)), path)
    with zipfile.ZipFile(path) as opened:
        members = {m.filename: opened.read(m) for m in opened.infolist()}
    payload = pickle.dumps(Canary(canary))
    return archive(path, {n: payload if n.endswith(".pt") else c for n, c in members.items()})


def save(model: Any, path: Path) -> Path:
    """Writes an ONNX model."""
    onnx.save(model, path)
    return path
