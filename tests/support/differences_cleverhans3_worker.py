"""What CleverHans 3 itself prints for sections of docs/differences.md, as JSON.

Runs with the originals' packages, on the page's own model and batch.
"""

# The imports below have an order of their own: see torchfgsm/originals/workers/cleverhans3.py.
# ruff: noqa: E402
import json
import sys
from pathlib import Path

# The originals' workers, which say what stands in for what TensorFlow does not have any more.
sys.path.append(str(Path(__file__).resolve().parents[2] / "torchfgsm" / "originals" / "workers"))
import stand_ins

stand_ins.keras_2()
stand_ins.cleverhans_3()
tf = stand_ins.tensorflow_1()

import numpy as np
from cleverhans.attacks import FastGradientMethod
from cleverhans.loss import CrossEntropy
from cleverhans.model import CallableModelWrapper

X = np.array([[0.1, 0.9], [0.8, 0.3]], np.float32)
Y = np.array([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]], np.float32)


def main():
    """Writes the lines by section."""
    kernel = tf.Variable(np.array([[2.0, 0.0, -1.0], [0.0, 1.0, -1.0]], np.float32))
    model = CallableModelWrapper(lambda x, **kwargs: tf.matmul(x, kernel), "logits")
    session = tf.Session()
    session.run(tf.global_variables_initializer())
    fgm = FastGradientMethod(model, sess=session)
    x, y, smoothed = tf.constant(X), tf.constant(Y), tf.constant(Y * np.float32(0.7) + 0.1)

    def shown(inputs, **options):
        rows = (session.run(fgm.generate(tf.constant(inputs), **options)) - inputs).tolist()
        return str([[round(value, 4) + 0.0 for value in row] for row in rows])

    def weighted_loss():
        params = {"eps": 0.1}
        loss = CrossEntropy(model, attack=fgm, pass_y=True, adv_coeff=0.3, attack_params=params)
        return str(round(float(session.run(loss.fprop(x, y))), 4))

    def through_perturbation(order):
        params = {"eps": 0.5, "ord": order}
        loss = CrossEntropy(model, attack=fgm, pass_y=True, adv_coeff=1.0, attack_params=params)
        flows = session.run(tf.gradients(loss.fprop(x, y), kernel)[0])
        adversarial = tf.stop_gradient(fgm.generate(x, y=y, **params))
        losses = tf.nn.softmax_cross_entropy_with_logits_v2(
            labels=y, logits=tf.matmul(adversarial, kernel)
        )
        stops = session.run(tf.gradients(tf.reduce_mean(losses), kernel)[0])
        return f"{order} {round(float(np.linalg.norm(flows - stops) / np.linalg.norm(stops)), 4)}"

    corner = np.array([[0.0, 0.5]], np.float32)
    clipped = {"eps": 0.1, "y": tf.constant(Y[:1]), "ord": 2, "clip_min": 0.0, "clip_max": 1.0}
    sections = {
        "Default labels": [shown(X, eps=0.1)],
        "Ties in the prediction": [shown(np.array([[0.5, 1.0]], np.float32), eps=0.1)],
        "Form of labels, smoothing": [
            shown(X, eps=0.1, y=y, ord=2),
            shown(X, eps=0.1, y=smoothed, ord=2),
        ],
        "Norm and length": [shown(X, y=y)],
        "Clipping": [shown(X, eps=0.1, y=y, clip_min=0.05, clip_max=1.0)],
        "Gradients that would be clipped away": [
            shown(corner, **clipped),
            shown(corner, clip_grad=True, **clipped),
        ],
        "Weights of the losses": [weighted_loss()],
        "Gradient through the perturbation": [
            through_perturbation(np.inf),
            through_perturbation(2),
        ],
    }
    json.dump(sections, sys.stdout)


main()
