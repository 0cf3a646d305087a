"""Traps in the model and in torch's settings: its modes, its conversion, its arithmetic."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from torchfgsm.explanation.first_gradient import SideView
from torchfgsm.explanation.result import Trap
from torchfgsm.system.arithmetic import tf32_operations

# By class name: torch's own layers, those of converted models and of other libraries.
_NOISE = re.compile(r"drop|noise|stochastic", re.IGNORECASE)
_BATCH_NORM = re.compile(r"batch_?norm", re.IGNORECASE)
_SHOWN = 3


def random_layers(view: SideView) -> Iterator[Trap]:
    """A forward pass that draws random numbers."""
    if not view.seen.drew:
        return
    kept = view.recipe.model_mode != "eval"
    acting = [name for name, m in _modules(view.attacks.model, _NOISE) if m.training and kept]
    if acting:
        yield Trap(
            "dropout in the attack",
            "warning",
            len(acting),
            None,
            "The model is in training mode and this side keeps it: dropout or noise "
            f"({_list(acting)}) is drawn anew in each pass, and the gradient is that of one draw, "
            "which another run or library does not repeat. Call model.eval() before the attack",
        )
    else:
        yield Trap(
            "random numbers in each pass",
            "warning",
            None,
            None,
            "The model draws random numbers "
            + ("" if kept else "in eval mode too ")
            + "in each pass: the gradient is that of one draw, which another run or library does "
            "not repeat. Look for functional dropout without training=self.training",
        )


def batch_statistics(view: SideView) -> Iterator[Trap]:
    """BatchNorm that normalises with the batch's own statistics."""
    recipe = view.recipe
    found = _modules(view.attacks.model, _BATCH_NORM)
    in_training = recipe.model_mode != "eval"
    acting = [
        name
        for name, module in found
        if in_training and module.training and not getattr(module, "frozen", False)
    ]
    always = [
        name
        for name, module in found
        if isinstance(module, _BatchNorm) and module.running_mean is None and name not in acting
    ]
    if acting:
        updates = recipe.model_mode == "keep_and_update"
        moves = ", and the moving statistics change" if updates else ""
        yield Trap(
            "BatchNorm in training mode",
            "warning",
            len(acting),
            None,
            "The model is in training mode and this side keeps it: BatchNorm layers "
            f"({_list(acting)}) take the batch's own statistics, so that an example's gradient "
            f"depends on its batch{moves}. Call model.eval() before the attack",
        )
    elif view.seen.wrote:
        names = sorted({name.split(" of module")[0].rsplit("/")[-1] for name in view.seen.wrote})
        yield Trap(
            "BatchNorm that stays in training mode",
            "warning",
            len(view.seen.wrote),
            None,
            f"A pass of this side writes statistics of the model ({_list(names)}): it "
            "normalises with the batch's own, so that an example's gradient depends on its batch. "
            "Graphs that were exported or traced in training mode do so in eval mode too, and "
            "layers that are called with training=True",
        )
    if always:
        yield Trap(
            "BatchNorm without moving statistics",
            "warning",
            len(always),
            None,
            f"BatchNorm layers ({_list(always)}) take the batch's own statistics in eval mode too: "
            "an example's gradient depends on its batch. Compare on the same batches alone",
        )


def cut_head(view: SideView) -> Iterator[Trap]:
    """A softmax or sigmoid that was cut off in conversion, and who sees what of it."""
    heads = getattr(view.attacks.model, "found_heads", ())
    for head in heads:
        if head.kind is None or view.attacks.loss_fn is not None:
            continue
        yield Trap("head cut off", "note", None, None,
                   f"{head.text[:1].upper()}{head.text[1:]}. {head.who_sees_what}")  # fmt: skip
        recipe, library = view.recipe, view.configuration.library
        if head.hidden_from_keras and library == "nsl" and recipe.model_output == "logits":
            yield Trap(
                "head hidden from Keras",
                "error",
                None,
                None,
                f"In the original {' and '.join(head.behind)} stands behind the "
                f"{head.kind.lower()}, so that Keras' loss does not find the logits: NSL there "
                "attacks clipped probabilities, not what this side takes. Set "
                "model_output='probabilities' to explain that",
            )


def lost_in_conversion(view: SideView) -> Iterator[Trap]:
    """Training behaviour of the source that a converted model does not have."""
    annotation = getattr(view.attacks.model, "annotation", None)
    lost = [*getattr(annotation, "only_inference", ()), *getattr(annotation, "lost", ())]
    source = getattr(annotation, "source", "")
    # A conversion from TensorFlow writes its versions behind the name.
    plain = hasattr(annotation, "only_inference") and " (Keras " not in source
    if lost:
        yield Trap(
            "training lost in conversion",
            "note",
            len(lost),
            None,
            f"The converted model lacks parts of its source's training: {'; '.join(lost)}. "
            "Convert the Keras model itself, or add what is missing to the training loop",
        )
    elif plain and not _modules(view.attacks.model, _NOISE):
        yield Trap(
            "dropout may be lost in conversion",
            "note",
            None,
            None,
            f"{source} is an ONNX file without a Dropout node, and exporters leave dropout out: if "
            "its source had any, training here is without. Convert the source itself, or export "
            "it in training mode",
        )


def tf32(view: SideView) -> Iterator[Trap]:
    """Products of float32 that a GPU rounds to 10 bits."""
    devices = {t.device for t in view.features.tensors if t.device.type == "cuda"}
    if not devices or not any(t.dtype == torch.float32 for t in view.features.tensors):
        return
    operations = tf32_operations()
    newest = max(torch.cuda.get_device_capability(device) for device in devices)
    if operations and newest >= (8, 0):
        yield Trap(
            "TF32",
            "warning",
            len(operations),
            None,
            f"torch may compute {_list(operations)} in TF32, which moves gradients by about 1e-3 "
            "and flips signs of small ones. Set torch.backends.cudnn.conv.fp32_precision = 'ieee' "
            "(before torch 2.9: torch.backends.cudnn.allow_tf32 = False), and the same of "
            "torch.backends.cuda.matmul",
        )


def autocast(view: SideView) -> Iterator[Trap]:
    """Automatic mixed precision around the attack."""
    for kind in sorted({t.device.type for t in view.features.tensors}):
        if torch.is_autocast_enabled(kind):
            dtype = str(torch.get_autocast_dtype(kind)).removeprefix("torch.")
            yield Trap(
                "autocast",
                "warning",
                None,
                None,
                f"autocast is on for {kind}: the model computes in {dtype}, gradients have its few "
                "digits and small ones are 0. Leave the autocast block for the attack",
            )


def _modules(model: Any, kind: re.Pattern[str]) -> list[tuple[str, nn.Module]]:
    """Name and module of a model's layers whose class is called so."""
    if not isinstance(model, nn.Module):
        return []
    return [
        (name or type(module).__name__, module)
        for name, module in model.named_modules()
        if kind.search(type(module).__name__)
    ]


def _list(names: list[str]) -> str:
    """The first few names, and how many more."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
