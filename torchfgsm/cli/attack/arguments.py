"""The options of `torchfgsm attack`."""

from __future__ import annotations

import argparse

from torchfgsm.cli.attack import recipes


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command, but for those on how a model is converted."""
    parser.add_argument(
        "model",
        help="a .keras, .h5, .pb, .tflite or .onnx file, a SavedModel folder, or a .pt2 file of "
        "torch.export (with --allow-unsafe)",
    )
    parser.add_argument(
        "--data", required=True, metavar="FILE", help="a .npy file of inputs, or a .npz file"
    )
    parser.add_argument(
        "-o", "--output", required=True, metavar="OUT.npy",
        help="file to write; beside it OUT.labels.npy and OUT.recipe.json",
    )  # fmt: skip
    parser.add_argument("--x-key", default="x", help="the inputs in a .npz file; default x")
    parser.add_argument("--y-key", help="the labels in a .npz file; default y, if there is one")
    parser.add_argument(
        "--predicted-labels", action="store_true",
        help="attack the model's own prediction although the data hold labels",
    )  # fmt: skip
    recipes.add_options(parser)
    parser.add_argument("--batch-size", type=int, default=128, help="default 128")
    parser.add_argument("--seed", type=int, default=0, help="of random starts; default 0")
    parser.add_argument("--device", help="such as cpu or cuda:0; default a GPU if there is one")
    parser.add_argument(
        "--force", action="store_true", help="begin anew and replace older output files"
    )
    parser.set_defaults(command=_run)


def _run(options: argparse.Namespace) -> int:
    from torchfgsm.cli.attack import command

    return command.run(options)
