"""What NSL and CleverHans 4 themselves print for sections of docs/differences.md, as JSON.

Runs with the originals' packages, on the page's own model and batch.
"""

# The stand-ins are needed by the imports after them.
# ruff: noqa: E402
import json
import sys
from pathlib import Path

# The originals' workers, which say what stands in for what TensorFlow does not have any more.
sys.path.append(str(Path(__file__).resolve().parents[2] / "torchfgsm" / "originals" / "workers"))
import stand_ins

stand_ins.keras_2()
stand_ins.estimator()

import neural_structured_learning as nsl
import numpy as np
import tensorflow as tf
from cleverhans.tf2.attacks.fast_gradient_method import fast_gradient_method
from cleverhans.tf2.attacks.projected_gradient_descent import projected_gradient_descent

KERNEL = np.array([[2.0, 0.0, -1.0], [0.0, 1.0, -1.0]], np.float32)
X = np.array([[0.1, 0.9], [0.8, 0.3]], np.float32)
Y = np.array([0, 0])
LINF = {"adv_grad_norm": "infinity", "adv_step_size": 0.1}
L2 = {"adv_grad_norm": "l2", "adv_step_size": 0.1}


def nsl_attack(kernel, x, y, reduction="auto", weights=None, **options):
    """Adversarial neighbors by `perturb_on_batch` of a linear model."""
    base = tf.keras.Sequential([tf.keras.layers.Dense(3, use_bias=False, input_shape=(2,))])
    base.set_weights([kernel])
    key = None if weights is None else "weight"
    model = nsl.keras.AdversarialRegularization(base, sample_weight_key=key)
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=reduction)
    model.compile(optimizer="sgd", loss=loss)
    batch = {"feature": x, "label": y, **({} if weights is None else {"weight": weights})}
    return model.perturb_on_batch(batch, **options)["feature"]


def shown(adversarial, x):
    """The perturbation as the page prints it."""
    rows = (np.asarray(adversarial) - x).tolist()
    return str([[round(value, 4) + 0.0 for value in row] for row in rows])


def logits(x):
    """The page's model."""
    return tf.matmul(x, tf.constant(KERNEL))


def guard():
    """Lengths of L2 steps by batch size and reduction."""
    for size, reduction in (
        (1, "sum_over_batch_size"),
        (5000, "sum_over_batch_size"),
        (5000, "sum"),
    ):
        many, labels = np.repeat(X[:1], size, 0), np.repeat(Y[:1], size)
        moved = nsl_attack(KERNEL / 1000, many, labels, reduction, **L2)[0] - X[0]
        yield f"{size} {reduction} {round(float(np.linalg.norm(moved)), 4)}"


def order():
    """Iterated steps with a radius and a clip, under L-inf and L2."""
    near = np.array([[0.05, 0.5]], np.float32)
    pgd = {"adv_step_size": 0.1, "pgd_epsilon": 0.15, "pgd_iterations": 4}
    pgd.update(clip_value_min={"feature": 0.0}, clip_value_max={"feature": 1.0})
    for norm, order in (("infinity", np.inf), ("l2", 2)):
        yield shown(nsl_attack(KERNEL, near, Y[:1], adv_grad_norm=norm, **pgd), near)
        x, y = tf.constant(near), tf.constant(Y[:1])
        found = projected_gradient_descent(
            logits, x, 0.15, 0.1, 4, order, clip_min=0.0, clip_max=1.0, y=y
        )
        yield shown(found, near)


def masks():
    """A mask under L-inf and L2."""
    mask = {"feature": np.array([1.0, 0.0], np.float32)}
    for options in (LINF, L2):
        yield shown(nsl_attack(KERNEL, X, Y, feature_mask=mask, **options), X)


def main():
    """Writes the lines by section."""
    x, y, target = tf.constant(X), tf.constant(Y), tf.constant([2, 2])
    tied = np.array([[0.5, 1.0]], np.float32)
    even = np.array([[1.0, 0.0, -1.0], [1.0, 0.0, -1.0]], np.float32)
    l1 = {"adv_grad_norm": "l1", "adv_step_size": 0.1}
    weights = np.array([[2.0], [0.0]], np.float32)
    back = {"adv_grad_norm": "infinity", "adv_step_size": -0.1}
    sections = {
        "Default labels": [
            shown(nsl_attack(KERNEL, X, Y, **LINF), X),
            shown(fast_gradient_method(logits, x, 0.1, np.inf, y=y), X),
        ],
        "Ties in the prediction": [
            shown(fast_gradient_method(logits, tf.constant(tied), 0.1, np.inf), tied)
        ],
        "Targets": [
            shown(fast_gradient_method(logits, x, 0.1, np.inf, y=target, targeted=True), X),
            shown(nsl_attack(KERNEL, X, np.array([2, 2]), **back), X),
        ],
        "Mean or sum, and the guard": list(guard()),
        "Sample weights": [shown(nsl_attack(KERNEL, X, Y, weights=weights, **LINF), X)],
        "Norm and length": [shown(nsl_attack(KERNEL, X, Y), X)],
        "Ties of the gradient under L1": [
            shown(nsl_attack(even, X, Y, **l1), X),
            shown(nsl_attack(KERNEL, X, Y, **l1), X),
        ],
        "Masks": list(masks()),
        "Clipping": [shown(nsl_attack(KERNEL, X, Y, clip_value_min={"feature": 0.05}, **LINF), X)],
        "Projection and clip": list(order()),
        "No radius": [
            shown(nsl_attack(KERNEL, X, Y, pgd_iterations=4, **LINF), X),
            shown(projected_gradient_descent(logits, x, 0.4, 0.1, 4, np.inf, y=y), X),
        ],
    }
    json.dump(sections, sys.stdout)


main()
