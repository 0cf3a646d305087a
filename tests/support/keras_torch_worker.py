"""What a .keras file computes under Keras' own torch backend: run as a script, in a process.

    python keras_torch_worker.py FOLDER MODEL ARRAYS RESULT

FOLDER holds Keras and what it needs; ARRAYS is an .npz of inputs by number, "seed" in the shape of
the output; RESULT gets the "output" and "gradient/<i>", that of sum(seed * output).
"""

import os
import sys

os.environ["KERAS_BACKEND"] = "torch"
sys.path.append(sys.argv[1])

import keras
import numpy as np
import torch


def main(model_path: str, arrays_path: str, result_path: str) -> None:
    """Writes the output and the input gradients."""
    model = keras.saving.load_model(model_path, compile=False)
    arrays = dict(np.load(arrays_path))
    seed = torch.from_numpy(arrays.pop("seed"))
    inputs = [torch.from_numpy(array).requires_grad_() for array in arrays.values()]
    output = model(inputs if len(inputs) > 1 else inputs[0], training=False)
    gradients = torch.autograd.grad((output * seed).sum(), inputs)
    found = {f"gradient/{i}": g.detach().numpy() for i, g in enumerate(gradients)}
    np.savez(result_path, output=output.detach().numpy(), **found)


if __name__ == "__main__":
    main(*sys.argv[2:])
