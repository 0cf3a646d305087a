# mypy: ignore-errors
# (runs where TensorFlow is installed and the port is not)
"""NSL's own training step, to be timed.

Ways: "train_on_batch", of ``AdversarialRegularization`` compiled with SGD, which steps and keeps
Keras' metrics; "tf.function", around NSL's ``adversarial_loss``, which computes gradients alone.

    gradients(way, model, threads, eps, multiplier; weight/<i>, x/0, y/0): builds a model of
        benchmarks/speed/models.py in training mode with torch's weights, in their dtype.
        -> arrays <i>: of the parameters for a batch (N, C, H, W), in torch's order and layout.
    prepare(as gradients, with any number of batches): builds the step that is timed.
        -> values version
    time(way, repeats) -> values wall_ms, cpu_ms: of one call, the batches taken in turn.
"""

from __future__ import annotations

import itertools
import os
import time

# TensorFlow's default, which the workers of the originals switch off.
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1"

import nsl as nsl_worker  # with what stands in for parts of TensorFlow that ended
import numpy as np
import tensorflow as tf

nsl = nsl_worker.original

layers = tf.keras.layers

# Height, width and channels before MNIST CNN's first dense layer: torch flattens channels first.
_FLATTENED = (7, 7, 64)


# The calls that are timed, by the names of their ways.
_prepared = {}


class _Builder:
    """Adds layers to an output; keeps those that have weights, in torch's order."""

    def __init__(self):
        self.layers = []

    def add(self, layer, output):
        self.layers.append(layer)
        return layer(output)

    def convolution(self, output, width, size, stride=1):
        """A convolution padded as torch does, and its BatchNorm."""
        padding = "same"
        if stride > 1:
            # Keras' "same" pads the right and the lower edge alone here.
            output, padding = layers.ZeroPadding2D(size // 2)(output), "valid"
        layer = layers.Conv2D(width, size, stride, padding=padding, use_bias=False)
        output = self.add(layer, output)
        return self.add(layers.BatchNormalization(momentum=0.9, epsilon=1e-5), output)

    def residual(self, x, width, stride):
        output = layers.ReLU()(self.convolution(x, width, 3, stride))
        output = self.convolution(output, width, 3)
        if stride > 1 or x.shape[-1] != width:
            x = self.convolution(x, width, 1, stride)
        return layers.ReLU()(layers.Add()([output, x]))


def _mnist_cnn(builder, output):
    for width in (32, 64):
        layer = layers.Conv2D(width, 3, padding="same", activation="relu")
        output = layers.MaxPooling2D()(builder.add(layer, output))
    output = builder.add(layers.Dense(128, activation="relu"), layers.Flatten()(output))
    return builder.add(layers.Dense(10), output)


def _resnet18(builder, output):
    output = layers.ReLU()(builder.convolution(output, 64, 3))
    for stage, width in enumerate((64, 128, 256, 512)):
        for block in range(2):
            output = builder.residual(output, width, 2 if stage > 0 and block == 0 else 1)
    return builder.add(layers.Dense(10), layers.GlobalAveragePooling2D()(output))


_MODELS = {"MNIST CNN": _mnist_cnn, "ResNet-18": _resnet18}


def _to_keras(array):
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    if array.ndim == 2 and array.shape[1] == np.prod(_FLATTENED):
        height, width, channels = _FLATTENED
        pixels = array.reshape(-1, channels, height, width)
        return pixels.transpose(2, 3, 1, 0).reshape(array.shape[::-1])
    return array.T


def _to_torch(array):
    if array.ndim == 4:
        return array.transpose(3, 2, 0, 1)
    if array.ndim == 2 and array.shape[0] == np.prod(_FLATTENED):
        pixels = array.reshape(*_FLATTENED, -1)
        return pixels.transpose(3, 2, 0, 1).reshape(array.shape[::-1])
    return array.T


def _numbered(arrays, prefix):
    return [arrays[f"{prefix}/{i}"] for i in range(sum(n.startswith(prefix) for n in arrays))]


def _configuration(params):
    return nsl.configs.make_adv_reg_config(
        multiplier=params["multiplier"],
        adv_step_size=params["eps"],
        adv_grad_norm="infinity",
        clip_value_min=0.0,
        clip_value_max=1.0,
    )


def _train_on_batch(model, parameters, params):
    config = _configuration(params)
    # Features are a dict here, and NSL wants their bounds by name.
    config.adv_neighbor_config.clip_value_min = {"feature": 0.0}
    config.adv_neighbor_config.clip_value_max = {"feature": 1.0}
    wrapper = nsl.keras.AdversarialRegularization(model, adv_config=config)
    # A rate of 0 makes every step and leaves the weights, so that each call does the same work.
    wrapper.compile(
        tf.keras.optimizers.SGD(0.0), tf.keras.losses.SparseCategoricalCrossentropy(True)
    )

    def step(x, y):
        return wrapper.train_on_batch({"feature": x, "label": y})

    def gradients(x, y):
        kept = model.get_weights()
        before = [parameter.numpy() for parameter in parameters]
        step(x, y)  # the optimizer is built
        wrapper.optimizer.learning_rate.assign(1.0)
        step(x, y)
        wrapper.optimizer.learning_rate.assign(0.0)
        found = [a - b.numpy() for a, b in zip(before, parameters, strict=True)]
        model.set_weights(kept)
        return found

    return step, gradients


def _function(model, parameters, params):
    config = _configuration(params)
    loss_fn = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def forward(x, **arguments):
        return model(x, training=True, **arguments)

    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape:
            with tf.GradientTape() as of_input:
                of_input.watch(x)
                logits = forward(x)
                labeled_loss = loss_fn(y, logits)
            adversarial_loss = nsl.keras.adversarial_loss(
                x,
                y,
                forward,
                loss_fn,
                adv_config=config,
                predictions=logits,
                labeled_loss=labeled_loss,
                gradient_tape=of_input,
            )
            total = labeled_loss + config.multiplier * adversarial_loss
        return tape.gradient(total, parameters)

    return step, lambda x, y: [gradient.numpy() for gradient in step(x, y)]


_STEPS = {"train_on_batch": _train_on_batch, "tf.function": _function}


def _built(params, arrays):
    """A way's two functions of a batch, and the batches."""
    tf.config.threading.set_intra_op_parallelism_threads(params["threads"])
    tf.config.threading.set_inter_op_parallelism_threads(params["threads"])
    images = [image.transpose(0, 2, 3, 1) for image in _numbered(arrays, "x")]
    tf.keras.backend.set_floatx(images[0].dtype.name)
    builder = _Builder()
    inputs = layers.Input(images[0].shape[1:], name="feature")
    model = tf.keras.Model(inputs, _MODELS[params["model"]](builder, inputs))
    parameters = [weight for layer in builder.layers for weight in layer.trainable_weights]
    for parameter, array in zip(parameters, _numbered(arrays, "weight"), strict=True):
        parameter.assign(_to_keras(array))
    step, gradients = _STEPS[params["way"]](model, parameters, params)
    pairs = zip(images, _numbered(arrays, "y"), strict=True)
    return step, gradients, [(tf.constant(x), tf.constant(y)) for x, y in pairs]


def gradients(params, arrays):
    """Returns the parameters' gradients."""
    _, gradients_of, batches = _built(params, arrays)
    found = [_to_torch(gradient) for gradient in gradients_of(*batches[0])]
    return {}, {str(i): gradient for i, gradient in enumerate(found)}


def prepare(params, arrays):
    """Builds the step that is timed."""
    step, _, batches = _built(params, arrays)
    turn = itertools.cycle(batches)
    _prepared[params["way"]] = lambda: step(*next(turn))
    return {"version": f"{nsl.__version__}, tensorflow {tf.__version__}"}, {}


def time_calls(params, arrays):
    """Makes calls and says how long one of them took."""
    call, repeats = _prepared[params["way"]], params["repeats"]
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(repeats):
        call()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"wall_ms": 1000 * wall / repeats, "cpu_ms": 1000 * cpu / repeats}, {}


HANDLERS = {"gradients": gradients, "prepare": prepare, "time": time_calls}
