#!/usr/bin/env bash
# Keras 2.15: a binary cross-entropy behind a softmax layer is no cross-entropy of its probabilities.
#
# Guess: with from_logits=False a loss takes the probabilities that the model gives; where Keras
#   recovers the logits behind an activation, to be more exact, it does so for the matching loss, so
#   that the value is the same but for rounding.
# Real (keras 2.15.0, TensorFlow 2.15.1): the activation leaves its input on the tensor, and every
#   cross-entropy takes it, whichever activation it was. BinaryCrossentropy of a softmax layer's
#   output is the sigmoid cross-entropy of the softmax's logits, CategoricalCrossentropy of a sigmoid
#   layer's output the softmax cross-entropy of the sigmoid's: other numbers, other gradients, no
#   warning. tf.identity behind the layer gives the loss of the probabilities.
# Needs Python 3.10 or 3.11.
set -euo pipefail
python=$(for p in python3.11 python3.10 python3; do
    "$p" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 12))' 2>/dev/null && echo "$p" && break
done) || { echo "needs Python 3.10 or 3.11" >&2; exit 2; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    tensorflow-cpu==2.15.1 keras==2.15.0 numpy==1.26.4
export TF_CPP_MIN_LOG_LEVEL=3 OMP_NUM_THREADS=1 CUDA_VISIBLE_DEVICES=
"$folder/venv/bin/python" - 2>/dev/null <<'PY'
import sys

import numpy as np
import tensorflow as tf

logits = tf.constant([[2.0, -1.0, 0.5], [-3.0, 1.0, 4.0]])
target = tf.constant([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
z, t = logits.numpy().astype("float64"), target.numpy()


def softmax(v):
    return np.exp(v) / np.exp(v).sum(-1, keepdims=True)


def binary(p):
    return float(-(t * np.log(p) + (1 - t) * np.log(1 - p)).mean())


def categorical(p):
    return float(-(t * np.log(p)).sum(-1).mean())


p_softmax, p_sigmoid = softmax(z), 1 / (1 + np.exp(-z))
shares = p_sigmoid / p_sigmoid.sum(-1, keepdims=True)
cases = [
    ("softmax", "BinaryCrossentropy", binary(p_softmax), binary(p_sigmoid)),
    ("sigmoid", "CategoricalCrossentropy", categorical(shares), categorical(p_softmax)),
]
for activation, name, of_probabilities, of_logits in cases:
    layer = tf.keras.layers.Activation(activation)
    loss = getattr(tf.keras.losses, name)()
    direct = float(loss(target, layer(logits)))
    behind = float(loss(target, tf.identity(layer(logits))))
    print(
        f"{name} behind a {activation} layer: {direct:.4f}; of its probabilities "
        f"{of_probabilities:.4f}, of its logits {of_logits:.4f}; behind tf.identity {behind:.4f}",
        flush=True,
    )
    same = np.isclose(direct, of_logits, atol=1e-4) and np.isclose(behind, of_probabilities, atol=1e-4)
    if not same or np.isclose(of_probabilities, of_logits, atol=1e-2):
        print("changed")
        sys.exit(1)
PY
