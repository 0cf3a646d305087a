"""Which form a model file has, and which TensorFlow reads it."""

from __future__ import annotations

from pathlib import Path

from torchfgsm.converters.errors import ConversionError
from torchfgsm.converters.tensorflow_side.archives import read_json
from torchfgsm.originals.environment import KERAS_2, KERAS_3

HDF5 = (".h5", ".hdf5")
_FIRST_WITH_KERAS_3 = (2, 16)
# In saved_model.proto: SavedModel.meta_graphs, MetaGraphDef.meta_info_def, its tensorflow_version.
_WRITER = (2, 1, 5)
_VARINT, _BYTES = 0, 2
_FIXED = {1: 8, 5: 4}


def form_of(path: Path, *, allow_unsafe: bool = False) -> str:
    """Returns "onnx", "keras", "saved_model", "frozen_graph" or "tflite".

    Raises:
        ConversionError: there is no such file, or its suffix and contents are none of these.
    """
    if path.suffix == ".onnx":
        if not path.is_file():
            raise ConversionError(f"{path}: expected an ONNX file, found no such file")
        return "onnx"
    return needs(path, allow_unsafe=allow_unsafe)[1]


def needs(path: Path, *, allow_unsafe: bool = False) -> tuple[str, str]:
    """Returns the runtime and the form of a model file that TensorFlow reads.

    Raises:
        ConversionError: as :func:`form_of`.
    """
    if not path.exists():
        raise ConversionError(f"{path}: expected a model, found no such file or folder")
    if path.is_dir():
        return _saved_model(path, allow_unsafe)
    if path.suffix == ".keras":
        return (KERAS_2 if _keras_major(path) == 2 else KERAS_3), "keras"
    if path.suffix in HDF5:
        return KERAS_2, "keras"
    if path.suffix == ".pb":
        if path.name == "saved_model.pb":
            raise ConversionError(f"{path}: expected a frozen graph; give the SavedModel's folder")
        return KERAS_3, "frozen_graph"
    if path.suffix == ".tflite":
        return KERAS_3, "tflite"
    raise ConversionError(
        f"{path}: expected a .keras, .h5, .pb, .tflite or .onnx file or a SavedModel folder, "
        f"got the suffix {path.suffix!r}"
    )


def _saved_model(path: Path, allow_unsafe: bool) -> tuple[str, str]:
    if not (path / "saved_model.pb").is_file():
        raise ConversionError(
            f"{path}: expected a SavedModel folder, found no saved_model.pb in it"
        )
    metadata = path / "keras_metadata.pb"
    # Keras would run the Python code of a Lambda layer; the graph alone holds what it computes.
    unsafe = metadata.is_file() and b'"class_name": "Lambda"' in metadata.read_bytes()
    if metadata.is_file() and (allow_unsafe or not unsafe):
        return KERAS_2, "keras"
    # Keras 3 lacks classes that folders of Keras 2 name, such as its optimizers.
    version = _tensorflow_of(path / "saved_model.pb")
    of_keras_2 = metadata.is_file() or (version and version < _FIRST_WITH_KERAS_3)
    return (KERAS_2 if of_keras_2 else KERAS_3), "saved_model"


def _tensorflow_of(file: Path) -> tuple[int, ...]:
    """Returns the version of the TensorFlow that wrote a SavedModel, () where it does not say."""
    message: bytes | memoryview = memoryview(file.read_bytes())
    try:
        for number in _WRITER:
            message = _field(message, number)
        return tuple(int(part) for part in bytes(message).split(b".")[:2])
    except (IndexError, KeyError, ValueError):  # a damaged file: TensorFlow says what is wrong
        return ()


def _field(message: bytes | memoryview, number: int) -> bytes | memoryview:
    """Returns the first field of a number in a protobuf message that holds bytes, else nothing."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        value, kind = 0, tag & 7
        if kind in (_VARINT, _BYTES):
            value, place = _varint(message, place)
        size = 0 if kind == _VARINT else value if kind == _BYTES else _FIXED[kind]
        if tag == number << 3 | _BYTES:
            return message[place : place + size]
        place += size
    return b""


def _varint(message: bytes | memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[place]
        value, place = value | (byte & 127) << shift, place + 1
        if byte < 128:
            return value, place
        shift += 7


def _keras_major(path: Path) -> int:
    try:
        version = read_json(path, "metadata.json")["keras_version"]
        return int(str(version).split(".")[0])
    except (KeyError, TypeError, ValueError) as error:
        raise ConversionError(
            f"{path}: expected a Keras model file (a zip archive with metadata.json), "
            f"could not read it as one: {error}"
        ) from error
