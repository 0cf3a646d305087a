"""Whether a Keras model can be built from its configuration without running code of the file.

Keras finds classes and functions by the names in a configuration: imports modules, unmarshals
functions, reads files. Its own safe mode leaves out .h5 files and much of Keras 2. What a
configuration names is therefore looked up in a list of what is known to compute alone, before
Keras sees it. Needs no TensorFlow.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

from .keras_names import (
    CLASSES,
    DATA,
    FILES,
    FUNCTIONS,
    OPERATIONS,
    TENSORFLOW_FUNCTIONS,
)

ALLOW = "allow it (allow_unsafe, --allow-unsafe)"
_KERAS = re.compile(r"(?:keras|tf_keras)(?:\..+)?")
_CODE = ("Lambda", "__lambda__")
_DEEPEST = 300


@dataclass(frozen=True)
class Own:
    """What of the process a configuration may name beside Keras' own.

    Attributes:
        names: custom classes and functions that the user gave or registered.
        ignores: whether Keras passes over a class of this name that it does not know, and takes
            its graph instead, as it does in SavedModels.
    """

    names: Collection[str] = ()
    ignores: Callable[[str], bool] = lambda name: False


def distrust(config: Any, own: Own = Own()) -> str | None:
    """Returns why a configuration is not trusted, None if it is.

    Args:
        config: the configuration of a model, as JSON holds it.
        own: what it may name beside Keras' own.
    """
    if isinstance(config, dict):  # not deserialised: models are loaded without compiling them
        config = {k: v for k, v in config.items() if k not in ("compile_config", "training_config")}
    found = list(dict.fromkeys(_reasons(config, "", own, 0)))
    code = [layer for layer, reason in found if reason == _CODE[0]]
    if code:
        return (
            f"layer {', '.join(map(repr, code))} holds Python code (a Lambda), which loading the "
            f"file would run: replace it by a Keras layer, export the model as a SavedModel, or "
            f"{ALLOW}"
        )
    if found:
        layer, reason = found[0]
        return f"layer {layer!r}: {reason}" if layer else reason
    return None


def _reasons(config: Any, layer: str, own: Own, depth: int) -> Iterator[tuple[str, str]]:
    """Yields layers and what is wrong with them."""
    if depth > _DEEPEST:
        yield layer, f"expected a configuration of at most {_DEEPEST} levels"
        return
    if isinstance(config, list):
        for item in config:
            yield from _reasons(item, layer, own, depth + 1)
    if not isinstance(config, dict):
        return
    inner = config.get("config")
    if isinstance(inner, dict) and "name" in inner:
        layer = str(inner["name"])
    # Keras 2 marshals the function of a Lambda layer into its own configuration.
    reason = _CODE[0] if config.get("function_type") == "lambda" else None
    if "class_name" in config:
        reason = reason or _wrong_class(config, own)
    if reason:
        yield layer, reason
    for value in config.values():
        yield from _reasons(value, layer, own, depth + 1)


def _wrong_class(entry: dict[str, Any], own: Own) -> str | None:
    name, module = entry["class_name"], entry.get("module")
    registered = entry.get("registered_name")
    for value in (name, module, registered):
        if not isinstance(value, str | None):
            return f"expected the name of a class, got {str(value)[:60]!r}"
    if name == "function":
        return _wrong_function(entry.get("config"), module, own)
    if name == "__typespec__":
        trusted = str(module).startswith("tensorflow.") and registered is None
        return None if trusted else _foreign("specification", entry.get("spec_name"), module)
    if name in DATA:
        return None
    if (registered if "module" in entry else name) in own.names:
        return None
    if name in _CODE:
        return _CODE[0]
    if "module" not in entry and own.ignores(name):
        return None
    if module is not None and OPERATIONS.fullmatch(module):
        known = bool(re.fullmatch("[A-Z][A-Za-z0-9]*", name))
    else:
        known = name in CLASSES and bool(module is None or _KERAS.fullmatch(module))
    if not known or registered not in (None, name):
        return _foreign("class", name if registered in (None, name) else registered, module)
    return _wrong_settings(name, entry.get("config"))


def _wrong_function(name: Any, module: str | None, own: Own) -> str | None:
    if name in own.names:
        return None
    keras = module is None or module == "builtins" or _KERAS.fullmatch(module)
    return None if keras and name in FUNCTIONS else _foreign("function", name, module)


def _wrong_settings(name: str, config: Any) -> str | None:
    """Returns what is wrong with the settings of a class that is known."""
    if not isinstance(config, dict):
        return None
    for setting in FILES:
        if isinstance(config.get(setting), str):
            return (
                f"the setting {setting!r} of {name} reads the file {config[setting]!r}: write its "
                f"contents into the model, or {ALLOW}"
            )
    if name in ("TFOpLambda", "SlicingOpLambda"):
        function = str(config.get("function"))
        if not TENSORFLOW_FUNCTIONS.fullmatch(function):
            return (
                f"it calls TensorFlow's {function!r}, which is none of those that only compute: "
                f"replace it by a Keras layer, or {ALLOW}"
            )
    return None


def _foreign(kind: str, name: Any, module: str | None) -> str:
    of = "" if module is None else f" (module {module!r})"
    keras = module is not None and _KERAS.fullmatch(module)
    what = "is no part of a model" if keras else "Keras does not know"
    return (
        f"the file uses the {kind} {str(name)[:60]!r}, which {what}{of}: give the Python file that "
        "defines it as custom_objects (--custom-objects), or let Keras import and run it "
        "(allow_unsafe, --allow-unsafe)"
    )
