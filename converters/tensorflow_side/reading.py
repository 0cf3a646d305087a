"""Loads Keras models from files, without running code that lies in them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import tensorflow as tf

from . import archives, hdf5
from .graph_trust import refuse_saved_model
from .keras_model import UnsupportedModelError, input_structure
from .keras_trust import ALLOW, Own, distrust

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
        refuse_unsafe(path, custom_objects)
    settings = {"safe_mode": False} if allow_unsafe else {}
    try:
        model = tf.keras.models.load_model(
            path, custom_objects=dict(custom_objects or {}), compile=False, **settings
        )
    except (TypeError, ValueError, AttributeError) as error:
        if "safe_mode=False" in str(error):
            raise UnsupportedModelError(
                f"Keras' safe mode refuses the file as one that runs Python code: {ALLOW}"
            ) from error
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


def refuse_unsafe(path: str, custom_objects: Mapping[str, Any] | None = None) -> None:
    """Refuses a file that could run code or read other files, before Keras sees it.

    Raises:
        UnsupportedModelError: saying what it holds, and how it is allowed.
    """
    known = {*(custom_objects or ()), *tf.keras.utils.get_custom_objects()}
    try:
        if os.path.isdir(path):
            refuse_saved_model(path)
            layers = _layers()
            own = Own(known, lambda name: name not in layers)
            configs = list(_metadata(path))
        else:
            own, configs = Own(known), [_config(path)]
    except archives.FAULTS as error:
        if isinstance(error, UnsupportedModelError):
            raise
        raise UnsupportedModelError(f"expected a Keras model: {error}") from error
    for config in configs:
        reason = distrust(config, own)
        if reason:
            raise UnsupportedModelError(reason)


def _config(path: str) -> Any:
    """Returns the configuration in a file, after a look at where its weights lie."""
    hdf5.refuse_outside(path)
    if path.endswith(hdf5.SUFFIXES):
        return hdf5.read_config(path)
    return archives.read_json(path, "config.json")


def _layers() -> Collection[str]:
    """Returns the names of all layers that Keras 2 finds, those that are not public included."""
    from keras.src.layers import serialization  # type: ignore[import-not-found]

    serialization.populate_deserializable_objects()
    names: Collection[str] = serialization.LOCAL.ALL_OBJECTS
    return names


def _metadata(folder: str) -> Iterator[Any]:
    """Yields the configurations of the objects in a SavedModel that Keras 2 wrote."""
    from keras.protobuf import saved_metadata_pb2  # type: ignore[import-not-found]

    metadata = saved_metadata_pb2.SavedMetadata()
    with open(os.path.join(folder, "keras_metadata.pb"), "rb") as file:
        metadata.ParseFromString(file.read())
    for node in metadata.nodes:
        if node.metadata:
            yield json.loads(node.metadata)
