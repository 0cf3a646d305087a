"""A worker that writes model files which would run code, and has the converter's handlers.

What they run makes a canary file, and nothing else. Handlers:

build(kind, canary, path): writes one of KINDS to the path.
alter(path, out, config): writes an .h5 file with another configuration.
rename(folder, old, new): replaces text in a SavedModel's configurations.
names() -> values "layers": the names of Keras' public layers; "functions": of its activations.
search(folder): lets modules be imported from it.
trusted(operations) -> values: operation -> whether a graph may hold it.
and look, export, evaluate of torchfgsm/converters/export_worker.py
"""

from __future__ import annotations

import inspect
import pathlib
import shutil
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "converters"))

import export_worker
import h5py
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2
from tensorflow_side import graph_trust

layers = tf.keras.layers
SHAPE = [None, 3]


def _code(canary):
    """A function of Python that only makes the canary; its code carries the path."""
    return eval(f"lambda x: (open({canary!r}, 'w').close(), x)[1]")


def _lambda(canary):
    return layers.Lambda(_code(canary), name="code", output_shape=(3,))


def _plain(canary):
    return tf.keras.Sequential([layers.Input((3,)), layers.Dense(2, name="dense")])


def _with_lambda(canary):
    return tf.keras.Sequential([layers.Input((3,)), _lambda(canary), layers.Dense(2)])


def _inside_a_model(canary):
    x = layers.Input((3,), name="x")
    return tf.keras.Model(x, _with_lambda(canary)(x))


def _inside_a_wrapper(canary):
    x = layers.Input((4, 3), name="x")
    h = layers.TimeDistributed(_lambda(canary), name="wrapper")(x)
    return tf.keras.Model(x, layers.Dense(2)(layers.Flatten()(h)))


def _writing(canary):
    """A function whose graph writes the canary."""
    kernel = tf.Variable(tf.ones([3, 2]))

    @tf.function(input_signature=[tf.TensorSpec(SHAPE, name="x")])
    def call(x):
        with tf.control_dependencies([tf.io.write_file(canary, "")]):
            return tf.identity(x @ kernel)

    module = tf.Module()
    module.kernel, module.call = kernel, call
    return module


class _Resource(tf.saved_model.experimental.TrackableResource):
    """Writes the canary when it is loaded."""

    def __init__(self, canary):
        super().__init__()
        self._canary = canary
        _ = self.resource_handle

    def _create_resource(self):
        return tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=[], shared_name="canary")

    def _initialize(self):
        tf.io.write_file(self._canary, "")


def _filling(canary):
    """A function that is harmless, beside a resource that is filled by writing the canary."""
    module = _plain_function(canary)
    module.resource = _Resource(canary)
    return module


def _of_python(canary):
    module = tf.Module()
    module.call = tf.function(
        lambda x: tf.ensure_shape(tf.py_function(_code(canary), [x], tf.float32), SHAPE),
        input_signature=[tf.TensorSpec(SHAPE, name="x")],
    )
    return module


def _in_a_branch(canary):
    """The function writes the canary in a function of a function."""

    def write(x):
        with tf.control_dependencies([tf.io.write_file(canary, "")]):
            return tf.identity(x)

    module = tf.Module()
    module.call = tf.function(
        lambda x: tf.cond(tf.reduce_sum(x) > -1e9, lambda: write(x), lambda: x),
        input_signature=[tf.TensorSpec(SHAPE, name="x")],
    )
    return module


def _reading(canary):
    kernel = tf.ones([3, 2])

    def call(x):
        text = tf.io.read_file(canary)
        return x @ kernel + tf.cast(tf.strings.length(text), tf.float32)

    module = tf.Module()
    module.call = tf.function(call, input_signature=[tf.TensorSpec(SHAPE, name="x")])
    return module


MODELS = {
    "plain": _plain,
    "lambda": _with_lambda,
    "lambda in a model": _inside_a_model,
    "lambda in a wrapper": _inside_a_wrapper,
}


def _plain_function(canary):
    kernel = tf.Variable(tf.ones([3, 2]))
    module = tf.Module()
    module.kernel = kernel
    module.call = tf.function(
        lambda x: x @ kernel, input_signature=[tf.TensorSpec(SHAPE, name="x")]
    )
    return module


MODULES = {
    "plain of functions": _plain_function,
    "writing": _writing,
    "filling": _filling,
    "of Python": _of_python,
    "in a branch": _in_a_branch,
    "reading": _reading,
}


def session(canary, path, writes):
    """A SavedModel as TensorFlow 1 wrote them; ``writes`` says where it writes the canary."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as opened:
        x = v1.placeholder(tf.float32, SHAPE, "x")
        kernel = v1.get_variable("kernel", initializer=tf.ones([3, 2]), use_resource=True)
        write = tf.io.write_file(canary, "") if writes else tf.no_op()
        with tf.control_dependencies([write] if writes == "called" else []):
            y = tf.identity(x @ kernel)
        opened.run(kernel.initializer)
        builder = v1.saved_model.Builder(str(path))
        signature = v1.saved_model.predict_signature_def({"x": x}, {"y": y})
        builder.add_meta_graph_and_variables(
            opened,
            ["serve"],
            {"serving_default": signature},
            main_op=write if writes == "loaded" else None,
        )
        builder.save()


SESSIONS = {"session": "", "session called": "called", "session loaded": "loaded"}


def build(params, arrays):
    """Writes a model; the suffix of the path says in which form."""
    kind, canary, path = params["kind"], params["canary"], pathlib.Path(params["path"])
    tf.keras.backend.clear_session()
    if kind in MODELS:
        MODELS[kind](canary).save(str(path))
    elif kind in SESSIONS:
        session(canary, path, SESSIONS[kind])
    else:
        _WRITERS[path.suffix](MODULES[kind](canary), path)
    pathlib.Path(canary).unlink(missing_ok=True)  # building a model may call it
    return {}, {}


def _saved_model(module, path):
    tf.saved_model.save(module, str(path), signatures={"serving_default": _dict(module)})


def _dict(module):
    """The module's function as a signature."""
    return tf.function(
        lambda x: {"y": module.call(x)}, input_signature=[tf.TensorSpec(SHAPE, name="x")]
    )


def _frozen(module, path):
    function = convert_variables_to_constants_v2(module.call.get_concrete_function())
    path.write_bytes(function.graph.as_graph_def().SerializeToString())


def _tflite(module, path):
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [module.call.get_concrete_function()], module
    )
    converter.target_spec.supported_ops = [
        tf.lite.OpsSet.TFLITE_BUILTINS,
        tf.lite.OpsSet.SELECT_TF_OPS,
    ]
    path.write_bytes(converter.convert())


_WRITERS = {"": _saved_model, ".pb": _frozen, ".tflite": _tflite}


def alter(params, arrays):
    """Writes an .h5 file with another configuration, or with data that lie elsewhere."""
    shutil.copy(params["path"], params["out"])
    with h5py.File(params["out"], "r+") as file:
        if "config" in params:
            file.attrs["model_config"] = params["config"]
        if "link" in params:
            file["elsewhere"] = h5py.ExternalLink(params["link"], "/")
        if "data" in params:
            file.create_dataset("elsewhere", (4,), "uint8", external=[(params["data"], 0, 4)])
        if "declared" in params:
            file.create_dataset("large", (params["declared"],), "uint8", chunks=(1024,))
    return {}, {}


def rename(params, arrays):
    """Replaces text in the configurations of a SavedModel that Keras 2 wrote."""
    from keras.protobuf import saved_metadata_pb2

    file = pathlib.Path(params["folder"]) / "keras_metadata.pb"
    metadata = saved_metadata_pb2.SavedMetadata.FromString(file.read_bytes())
    for node in metadata.nodes:
        node.metadata = node.metadata.replace(params["old"], params["new"])
    file.write_bytes(metadata.SerializeToString())
    return {}, {}


def names(params, arrays):
    """Returns the names of Keras' public layers and activations."""
    found = [k for k, v in vars(layers).items() if inspect.isclass(v)]
    functions = [k for k, v in vars(tf.keras.activations).items() if inspect.isfunction(v)]
    return {"layers": found, "functions": functions}, {}


def search(params, arrays):
    """Lets modules be imported from a folder, as from that of an installed package."""
    sys.path.append(params["folder"])
    return {}, {}


def trusted(params, arrays):
    """Returns whether a graph may hold each operation."""
    return {name: graph_trust.trusted(name) for name in params["operations"]}, {}


HANDLERS = {
    **export_worker.HANDLERS,
    "build": build,
    "alter": alter,
    "names": names,
    "rename": rename,
    "search": search,
    "trusted": trusted,
}
