#!/usr/bin/env bash
# A Keras model on its torch backend is an nn.Module; train(), eval(), buffers() and modules() say nothing.
#
# Guess: isinstance(model, torch.nn.Module), so model.train() turns dropout on, BatchNorm's statistics
#   are buffers, seeded dropout draws from torch's generator, and modules() lists the layers.
# Real (keras 3.15.1, torch 2.13.0): model.train() sets the flag `training` and nothing else: the
#   model stays deterministic; model.eval() does not stop a call with training=True from drawing and
#   from moving the statistics. There are no buffers: moving mean and variance are Parameters that
#   require no gradient, and so is the state of each seeded layer, an int32 Parameter; torch's own
#   generator rests. modules() of a Sequential holds two ParameterDicts and no layer, and
#   state_dict() has every weight under two names. What saves and restores buffers, forks the
#   generator, looks for nn.Dropout or averages parameters sees none of it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    torch==2.13.0 keras==3.15.1 numpy==2.4.6
KERAS_BACKEND=torch OMP_NUM_THREADS=1 KERAS_HOME="$folder" "$folder/venv/bin/python" - <<'PY'
import keras
import torch

layers = keras.layers
keras.utils.set_random_seed(0)
model = keras.Sequential(
    [layers.Input((8,)), layers.Dense(16), layers.BatchNormalization(), layers.Dropout(0.5, seed=3)]
)
x = torch.rand(32, 8)


def moved_by(call):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    call()
    names = (n for n, v in model.state_dict().items() if not torch.equal(v, before[n]))
    return sorted({name.rpartition("/")[2] for name in names})


model.train()
found = {"is an nn.Module": isinstance(model, torch.nn.Module), "train(): flag": model.training}
found["train(): two calls agree"] = torch.equal(model(x), model(x))
found["train(): moved by a call"] = moved_by(lambda: model(x))
model.eval()
state = torch.get_rng_state()
found["eval(), training=True: two calls agree"] = torch.equal(
    model(x, training=True), model(x, training=True)
)
found["eval(), training=True: moved by a call"] = moved_by(lambda: model(x, training=True))
found["torch's generator moved"] = not torch.equal(state, torch.get_rng_state())
found["buffers"] = len(list(model.buffers()))
found["modules"] = sorted({type(m).__name__ for m in model.modules()})
found["Parameters without gradient"] = sorted(
    f"{name.rpartition('/')[2]} {str(p.dtype).removeprefix('torch.')}"
    for name, p in model.named_parameters()
    if not p.requires_grad
)
found["names in state_dict"] = len(model.state_dict())
for name, value in found.items():
    print(f"{name}: {value}")
statistics = ["moving_mean", "moving_variance"]
expected = [
    True, True, True, [], False, [*statistics, "seed_generator_state"], False, 0,
    ["Functional", "ParameterDict", "Sequential"],
    ["moving_mean float32", "moving_variance float32", "seed_generator_state int32"],
    14,
]
if list(found.values()) != expected:
    raise SystemExit(f"changed: expected {expected}")
PY
