"""Loads Keras models from files, without running code that lies in them."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf

from .keras_model import UnsupportedModelError, input_structure

_UNKNOWN = re.compile(
    r"(?:Could not locate|Unknown|Cannot deserialize) (\w+)(?: of type|:)? ['`]([^'`]+)['`]"
)


def load(
    path: str, custom_objects: Mapping[str, Any] | None = None, allow_unsafe: bool = False
) -> Any:
    """Loads a .keras or .h5 file or a Keras SavedModel folder.

    Args:
        path: the file or folder.
        custom_objects: classes and functions that the model uses, by name.
        allow_unsafe: run the Python code that lies in the file.

    Raises:
        UnsupportedModelError: the file holds code or unknown classes, or a model whose inputs are
            unknown.
    """
    if not allow_unsafe:
        _refuse_code(path)
    settings = {"safe_mode": False} if allow_unsafe else {}
    try:
        model = tf.keras.models.load_model(
            path, custom_objects=dict(custom_objects or {}), compile=False, **settings
        )
    except (TypeError, ValueError, AttributeError) as error:
        if "safe_mode=False" in str(error):
            raise UnsupportedModelError(_code("a layer")) from error
        unknown = _UNKNOWN.search(str(error))
        if unknown is None:
            raise
        raise UnsupportedModelError(
            f"the file uses the {unknown[1]} {unknown[2]!r}, which Keras does not know: give the "
            "Python file that defines it as custom_objects"
        ) from error
    if not isinstance(model, tf.keras.Model):
        raise UnsupportedModelError(f"expected a Keras model, got {type(model).__name__}")
    input_structure(model)
    return model


def _refuse_code(path: str) -> None:
    """Refuses a file with code before Keras sees it; Keras 2 would run that of an .h5 file."""
    text = _config(path)
    names = list(dict.fromkeys(_carrying_code(json.loads(text), ""))) if text else []
    if names:
        raise UnsupportedModelError(_code(f"layer {', '.join(map(repr, names))}"))


def _code(where: str) -> str:
    return (
        f"{where} holds Python code (a Lambda), which loading the file would run: replace it by a "
        "Keras layer, export the model as a SavedModel, or allow it (allow_unsafe, --allow-unsafe)"
    )


def _config(path: str) -> str | None:
    """Returns the configuration in a file, None where it has none or is no such file."""
    if path.endswith(".keras") and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            found = "config.json" in archive.namelist()
            return archive.read("config.json").decode() if found else None
    if path.endswith(".h5"):
        import h5py  # type: ignore[import-not-found,unused-ignore]

        with h5py.File(path, "r") as file:
            config = file.attrs.get("model_config")
        return config.decode() if isinstance(config, bytes) else config
    return None


def _carrying_code(config: Any, layer: str) -> Iterator[str]:
    """Names the layers in whose configuration a function's code stands."""
    if isinstance(config, list):
        for item in config:
            yield from _carrying_code(item, layer)
    if not isinstance(config, dict):
        return
    inner = config.get("config")
    if isinstance(inner, dict) and "name" in inner:
        layer = str(inner["name"])
    # Keras 2 marshals the function of a Lambda layer into its own configuration.
    if config.get("class_name") == "__lambda__" or config.get("function_type") == "lambda":
        yield layer
    for value in config.values():
        yield from _carrying_code(value, layer)
