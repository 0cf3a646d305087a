"""The float64 value of a perturbation: the formula in numpy, on the original's own gradient.

Written apart from the engine, so that neither can hide a fault of the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from torchfgsm.parity.cases import Case, norm_of
from torchfgsm.parity.data import Array, Data

_GUARD = 1e-12

Inputs = dict[str, Array]
Gradient = Callable[[Inputs, bool], Inputs]


def true_adversarial(case: Case, data: Data, gradient: Gradient) -> Inputs:
    """Adversarial examples in float64.

    Args:
        case: A case of kind "perturb" without a random start.
        data: The batch.
        gradient: (inputs, first) -> gradient of the attack's loss, which grows along it; `first`
            tells the first step, which alone NSL weights.

    Returns:
        Input name -> float64 array.
    """
    x0 = {name: np.asarray(value, np.float64) for name, value in data.x.items()}
    iterate = iterate_nsl if case.library == "nsl" else iterate_cleverhans
    return iterate(case, data, x0, gradient)


def iterate_nsl(case: Case, data: Data, x0: Inputs, gradient: Gradient) -> Inputs:
    """Each step: perturbation from the input, projected, added, clipped; norms joint."""
    extras, norm, x = data.extras(case), norm_of(case), dict(x0)
    step = case.params.get("adv_step_size", 0.001)
    radius = case.params.get("pgd_epsilon")
    for turn in range(max(1, case.params.get("pgd_iterations", 1))):
        grads = {
            name: g * extras.get(f"feature_mask/{name}", 1.0)
            for name, g in gradient(x, turn == 0).items()
        }
        steps = ascent(grads, norm)
        deltas = {name: step * steps[name] + x[name] - x0[name] for name in x}
        if radius is not None:
            deltas = into_ball(deltas, radius, norm)
        for name in x:
            low = extras.get(f"clip_value_min/{name}", -np.inf)
            high = extras.get(f"clip_value_max/{name}", np.inf)
            x[name] = np.minimum(np.maximum(x0[name] + deltas[name], low), high)
    return x


def iterate_cleverhans(case: Case, data: Data, x0: Inputs, gradient: Gradient) -> Inputs:
    """FGM: one step, clipped. PGD: clip; step, clip, project, clip."""
    extras, norm, params = data.extras(case), norm_of(case), case.params
    low = extras.get("clip_min", params.get("clip_min", -np.inf))
    high = extras.get("clip_max", params.get("clip_max", np.inf))
    eps, iterations = params.get("eps", 0.3), params.get("nb_iter")
    step = eps if iterations is None else params["eps_iter"]
    ((name, origin),) = x0.items()
    x = origin if iterations is None else np.clip(origin, low, high)
    for _ in range(1 if iterations is None else iterations):
        grad = gradient({name: x}, True)[name]
        if params.get("clip_grad"):
            leaving = ((x <= low) & (grad < 0)) | ((x >= high) & (grad > 0))
            grad = np.where(leaving, 0.0, grad)
        x = np.clip(x + step * ascent({name: grad}, norm)[name], low, high)
        if iterations is not None:
            delta = into_ball({name: x - origin}, eps, norm)[name]
            x = np.clip(origin + delta, low, high)
    return {name: x}


def ascent(grads: Mapping[str, Array], norm: str) -> Inputs:
    """The unit step along which the linearised loss grows most, jointly over the inputs."""
    if norm == "linf":
        return {name: np.sign(g) for name, g in grads.items()}
    rows = _joint(grads)
    if norm == "l2":
        length = np.sqrt(np.maximum((rows**2).sum(axis=1), _GUARD))
        return {name: g / _column(length, g) for name, g in grads.items()}
    largest = np.abs(rows).max(axis=1)
    ties = (np.abs(rows) == largest[:, None]).sum(axis=1)
    return {
        name: np.sign(g) * (np.abs(g) == _column(largest, g)) / _column(ties, g)
        for name, g in grads.items()
    }


def into_ball(deltas: Mapping[str, Array], radius: float, norm: str) -> Inputs:
    """The nearest perturbations within the ball."""
    if norm == "linf":
        return {name: np.clip(d, -radius, radius) for name, d in deltas.items()}
    length = np.sqrt(np.maximum((_joint(deltas) ** 2).sum(axis=1), _GUARD))
    scale = np.minimum(1.0, radius / length)
    return {name: d * _column(scale, d) for name, d in deltas.items()}


def into_l1_ball(delta: Array, radius: float) -> Array:
    """The nearest perturbations within the L1 ball, each by bisection of the amount taken off."""
    rows = np.abs(delta.reshape(len(delta), -1))
    low, high = np.zeros(len(rows)), rows.max(axis=1)
    for _ in range(200):
        middle = (low + high) / 2
        outside = np.maximum(rows - middle[:, None], 0).sum(axis=1) > radius
        low, high = np.where(outside, middle, low), np.where(outside, high, middle)
    off = np.where(rows.sum(axis=1) > radius, high, 0.0)
    shrunk: Array = np.sign(delta) * np.maximum(np.abs(delta) - _column(off, delta), 0)
    return shrunk


def normalized(array: Array, norm: str) -> Array:
    """Each example divided by its norm, floored at 1e-6 as in NSL."""
    rows = np.abs(array.reshape(len(array), -1))
    lengths = {"linf": rows.max(axis=1), "l1": rows.sum(axis=1), "l2": (rows**2).sum(axis=1) ** 0.5}
    found: Array = array / _column(np.maximum(lengths[norm], 1e-6), array)
    return found


def _joint(arrays: Mapping[str, Array]) -> Array:
    return np.concatenate([a.reshape(len(a), -1) for a in arrays.values()], axis=1)


def _column(values: Array, like: Array) -> Array:
    return values.reshape(-1, *[1] * (like.ndim - 1))
