"""The kernels on a CPU: perturb.cu built with g++ and run thread by thread, as a `Launcher`."""

from __future__ import annotations

import ctypes
import hashlib
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from kernel_cases import Case, difference
from torch import Tensor

from torchfgsm.kernel import plan
from torchfgsm.kernel.arguments import Args
from torchfgsm.kernel.launching import Launcher, perturb
from torchfgsm.kernel.plan import Device, Launch

# The same calls for the kernels, and for those with a fault planted.
COUNT = 320
FOLDER = Path(__file__).parent / "emulator"
SOURCES = Path(plan.__file__).parent / "csrc"
HOPPER = Device(132, 90)
AMPERE = Device(108, 80)


class Emulator:
    """Runs launches on CPU tensors, one after the other.

    Args:
        library: What `build` made.
        device: The GPU that plans are made for.
    """

    def __init__(self, library: Path, device: Device = HOPPER) -> None:
        self.device = device
        self.launched: list[Launch] = []
        self._library = ctypes.CDLL(str(library))
        self._library.launch.argtypes = [ctypes.c_char_p, *[ctypes.c_uint] * 4, ctypes.c_size_t]
        self._library.launch.argtypes += [ctypes.POINTER(Args)]

    def bind(self, launch: Launch, args: Args) -> Callable[[], None]:
        """What runs one kernel to its end."""

        def run() -> None:
            self.launched.append(launch)
            found = self._library.launch(
                launch.kernel.encode(),
                *launch.grid,
                launch.threads,
                launch.cluster,
                launch.shared,
                ctypes.byref(args),
            )
            if found != 0:
                raise LookupError(f"{launch.kernel} was not built")

        return run


def build(
    folder: Path,
    dtypes: Sequence[str],
    *,
    changes: Sequence[tuple[str, str]] = (),
    cuda: Path | None = None,
    optimization: str = "-O1",
) -> Path:
    """Builds the kernels of some dtypes into a shared library.

    Args:
        folder: Where to.
        dtypes: Whose kernels.
        changes: (text, other text) to plant in the sources; each text occurs at least once.
        cuda: The folder of cuda.h, to add the driver's functions.
        optimization: What g++ is to do; "-O0" builds sooner.
    """
    texts = {name: (SOURCES / name).read_text() for name in ("arithmetic.h", "perturb.cu")}
    for old, new in changes:
        found = [name for name, text in texts.items() if old in text]
        if not found:
            raise ValueError(f"there is no {old!r} in the sources to plant a fault at")
        for name in found:
            texts[name] = texts[name].replace(old, new)
    names = plan.instantiations(dtypes)
    key = hashlib.sha256(repr((sorted(texts.items()), names)).encode()).hexdigest()[:16]
    home = folder / key
    home.mkdir(parents=True)
    for name, text in texts.items():
        (home / name).write_text(text)
    shutil.copy(FOLDER / "emulate.h", home)
    (home / "main.cpp").write_text(_main(names))
    library = home / "kernels.so"
    command = ["g++", "-std=c++17", optimization, "-ffp-contract=off", "-fPIC", "-shared", "-w"]
    command += ["main.cpp", "-o", str(library)]
    if cuda is not None:
        command += [str(FOLDER / "driver.cpp"), f"-I{cuda}", "-ldl"]
    done = subprocess.run(command, cwd=home, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"g++ could not build the kernels: {done.stderr[:2000]}")
    return library


def _main(names: Sequence[str]) -> str:
    lines = [
        "#define TORCHFGSM_EMULATE",
        '#include "perturb.cu"',
        "using torchfgsm::Args;",
        'extern "C" int launch(const char* name, unsigned gx, unsigned gy, unsigned threads,',
        "                      unsigned cluster, size_t shared, const Args* args) {",
        "  const Args a = *args;",
    ]
    for name in names:
        call = f"emulate::run(gx, gy, threads, cluster, shared, [=] {{ {name}(a); }})"
        lines.append(f'  if (!strcmp(name, "{name}")) return {call};')
    return "\n".join([*lines, "  return 1;", "}", ""])


def run(case: Case, launcher: Launcher) -> list[Tensor]:
    """What the kernels give for a call."""
    found = perturb(
        case.x, case.grad, case.origin, case.numbers, case.tensors, case.rules, launcher
    )
    if found is None:
        raise ValueError(f"no kernel serves {case.name}")
    return found


def wrong(cases: Sequence[Case], library: Path, device: Device) -> tuple[list[str], set[str]]:
    """What differs from the reference, and the kernels that ran."""
    found, launched = [], set()
    for case in cases:
        emulator = Emulator(library, device)
        reason = difference(case, run(case, emulator), torch.ops.torchfgsm.perturb(*case.arguments))
        launched |= {launch.kernel for launch in emulator.launched}
        if reason is not None:
            found.append(f"{case.name}: {reason}")
    return found, launched
