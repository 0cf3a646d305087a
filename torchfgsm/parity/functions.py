"""The originals' helper functions on given arrays: direction, projection, norm, mask, clipping."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from torchfgsm import nsl
from torchfgsm.cleverhans import tf2, v3
from torchfgsm.cleverhans import torch as cleverhans_torch
from torchfgsm.parity.cases import Case, norm_of
from torchfgsm.parity.data import Array, sample_gradient
from torchfgsm.parity.truth import ascent, into_ball, into_l1_ball, normalized

# Functions whose results no rounding can touch.
_EXACT = {"apply_feature_mask", "zero_out_clipped_grads"}
_DIALECTS: dict[str, Any] = {
    "nsl": nsl,
    "cleverhans3": v3,
    "cleverhans-tf2": tf2,
    "cleverhans-torch": cleverhans_torch,
}
_LOW, _HIGH = -0.5, 0.5


def arrays_of(case: Case) -> dict[str, Array]:
    """The arrays that a function is given; those that its original cannot take are left out."""
    given = sample_gradient()
    if case.library == "cleverhans-torch" and case.params["function"] == "direction":
        # It raises AssertionError on a zero gradient and on some ties in L1.
        given = np.delete(given, (0, 2), axis=0) if norm_of(case) == "l1" else given
    found = {"g/x": given}
    if case.params["function"] == "zero_out_clipped_grads":
        found["x/x"] = np.clip(np.roll(given, 1), _LOW, _HIGH)
    if case.params["function"] == "apply_feature_mask":
        found["mask/x"] = np.linspace(0, 1, given[0].size, dtype=np.float32).reshape(
            given[:1].shape
        )
    return found


def run_port(case: Case, device: torch.device | str = "cpu") -> dict[str, Array]:
    """The port's result of a function case, computed on a device."""
    tensors = {name: torch.from_numpy(a).to(device) for name, a in arrays_of(case).items()}
    result: Array = call(case, _DIALECTS[case.library], tensors).cpu().numpy()
    return {"result/x": result}


def call(case: Case, functions: Any, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Calls a function of a torch dialect: the port's, or CleverHans 4's own.

    Args:
        case: A case of kind "function".
        functions: What holds the functions by the originals' names.
        tensors: The arrays of `arrays_of` as tensors.
    """
    given, norm = tensors["g/x"], case.params.get("norm")
    function, radius = case.params["function"], case.params.get("radius")
    calls = {
        "direction": lambda: functions.optimize_linear(given, 1.0, norm),
        "project": lambda: functions.clip_eta(given.clone(), norm, radius),
        "zero_out_clipped_grads": lambda: functions.zero_out_clipped_grads(
            given, tensors["x/x"], _LOW, _HIGH
        ),
    }
    if case.library == "nsl":
        calls = {
            "direction": lambda: functions.maximize_within_unit_norm(given, norm),
            "project": lambda: functions.project_to_ball(given, radius, nsl.NormType(norm)),
            "normalize": lambda: functions.normalize(given, norm),
            "apply_feature_mask": lambda: functions.apply_feature_mask(given, tensors["mask/x"]),
        }
    found: torch.Tensor = calls[function]()
    return found


def worker_params(case: Case) -> dict[str, Any]:
    """The parameters that the original's worker is given."""
    return {**case.params, "clip_min": _LOW, "clip_max": _HIGH}


def truth(case: Case) -> Array | None:
    """The float64 value of a function that rounds; None where results must have the same bits."""
    function, given = case.params["function"], {"x": arrays_of(case)["g/x"].astype(np.float64)}
    norm = norm_of(case)
    if function in _EXACT or (function in ("direction", "project") and norm == "linf"):
        return None
    if function == "direction":
        return ascent(given, norm)["x"] if norm == "l2" else None
    if function == "normalize":
        return normalized(given["x"], norm)
    if norm == "l1":
        return into_l1_ball(given["x"], case.params["radius"])
    return into_ball(given, case.params["radius"], norm)["x"]


def unit(case: Case) -> float:
    """One unit in the last place of the function's largest result."""
    return float(np.spacing(np.float32(case.params.get("radius", 1.0))))
