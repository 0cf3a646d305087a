"""What the originals import and today's TensorFlow does not have, put in its place.

The originals were written for older TensorFlows. Where those are installed, nothing here does
anything: what there is, is taken.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
import types
import warnings

# NSL names these of TensorFlow's Estimators, which ended with TensorFlow 2.15, in the parts that
# train such; nothing of them is used here.
_ESTIMATOR = ("Estimator", "EstimatorSpec", "ModeKeys", "RunConfig")


def keras_2():
    """Makes Keras 2 of what is imported as `keras`: the originals and models of Keras 2 need it.

    Since TensorFlow 2.16 that is the package tf-keras, of which the variable makes `tf.keras`.
    """
    if importlib.util.find_spec("tf_keras") is not None:
        os.environ["TF_USE_LEGACY_KERAS"] = "1"
        sys.meta_path.insert(0, _Renamed("keras", "tf_keras"))


def estimator():
    """Makes `tensorflow.estimator` importable, for NSL."""
    import tensorflow

    name = "tensorflow.estimator"
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
        return
    module = types.ModuleType(name)
    for kind in _ESTIMATOR:
        setattr(module, kind, type(kind, (), {}))
    sys.modules[name] = tensorflow.estimator = module


def tensorflow_1():
    """Makes TensorFlow 1 of what is imported as `tensorflow`, for CleverHans 3; returns it.

    Its SPSA attack imports TensorFlow Addons, which ended with TensorFlow 2.15, for an optimizer.
    """
    import tensorflow

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            importlib.import_module("tensorflow_addons")  # needs TensorFlow 2's names
        except ImportError:
            sys.modules["tensorflow_addons"] = types.ModuleType("tensorflow_addons")
    found = tensorflow.compat.v1
    found.disable_v2_behavior()
    sys.modules["tensorflow"] = found
    return found


def cleverhans_3():
    """Makes CleverHans 3 of what is imported as `cleverhans`: version 4 has the same name."""
    folder = os.path.join(sys.prefix, "cleverhans-3")
    if not os.path.isdir(os.path.join(folder, "cleverhans")):
        raise ImportError(
            f"CleverHans 3 is expected in {folder}: pip install --no-deps --target {folder} "
            "cleverhans==3.1.0"
        )
    sys.path.insert(0, folder)


class _Renamed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports a package under another name: the same modules, not copies of them."""

    def __init__(self, name, real):
        self._name, self._real = name, real

    def find_spec(self, fullname, path=None, target=None):
        """Returns a spec for the package and all that is in it."""
        if fullname.split(".")[0] != self._name:
            return None
        real = self._real + fullname[len(self._name) :]
        module = importlib.import_module(real)
        is_package = hasattr(module, "__path__")
        return importlib.machinery.ModuleSpec(fullname, self, origin=real, is_package=is_package)

    def create_module(self, spec):
        """Returns the module that stands under the real name."""
        return sys.modules[spec.origin]

    def exec_module(self, module):
        """Does nothing: it ran under its real name."""
