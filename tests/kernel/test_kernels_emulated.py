"""The CUDA kernels, run on the CPU, against the reference; and faults planted to be found."""

from __future__ import annotations

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from emulation import AMPERE, COUNT, HOPPER, Emulator, build, run, wrong
from kernel_cases import difference, drawn, plain
from processes import SUPPORT, environment
from torch import Tensor

from torchfgsm.kernel.plan import CTYPES, instantiations

pytestmark = pytest.mark.skipif(
    shutil.which("g++") is None, reason="g++, which builds the kernels for the CPU, is not here"
)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("kernels"), list(CTYPES))


def test_kernels_equal_the_reference(library: Path) -> None:
    cases = drawn(COUNT)
    on_hopper, launched = wrong(cases, library, HOPPER)
    assert on_hopper == []
    on_ampere, also_launched = wrong(cases[::4], library, AMPERE)
    assert on_ampere == []
    assert launched | also_launched == set(instantiations())


def bits(tensor: Tensor) -> Tensor:
    """What the tensor is in memory, NaN included."""
    return tensor.contiguous().view(torch.uint8)


def test_same_bits_every_time_and_whatever_the_other_examples(library: Path) -> None:
    for case in drawn(40, seed=1):
        first, second = (run(case, Emulator(library)) for _ in range(2))
        for a, b in zip(first, second, strict=True):
            assert torch.equal(bits(a), bits(b))


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("columns", [784, 20000])
def test_an_example_does_not_see_its_batch(library: Path, norm: str, columns: int) -> None:
    x, grad = torch.rand(5, columns), torch.randn(5, columns)
    grad[1], grad[3, 7] = torch.nan, torch.inf

    def moved(start: int, end: int) -> Tensor:
        part = x[start:end], grad[start:end]
        case = plain(norm, *part, nonfinite="propagate", guard=0.0)
        return run(case, Emulator(library))[0]

    whole = moved(0, 5)
    for i in range(5):
        assert torch.equal(whole[i].nan_to_num(7.0), moved(i, i + 1)[0].nan_to_num(7.0))
    assert not whole[[0, 2, 4]].isnan().any()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("columns", [10, 784, 20000, 160_000])
def test_a_call_like_an_earlier_one_has_its_own_addresses(
    library: Path, norm: str, columns: int
) -> None:
    emulator = Emulator(library)
    for turn in range(3):
        x, grad = torch.rand(2, columns), torch.randn(2, columns)
        origin = x if turn < 2 else x + 0.01
        case = plain(norm, x, grad, origin)
        for _ in range(2):
            found = run(case, emulator)
            assert difference(case, found, torch.ops.torchfgsm.perturb(*case.arguments)) is None
            assert found[0].data_ptr() != x.data_ptr()


@pytest.mark.parametrize("what", ["grad", "origin"])
@pytest.mark.parametrize(
    "other", [torch.rand(2, 5), torch.rand(2, 4, 1), torch.rand(2, 4).double()]
)
def test_what_would_be_read_beyond_its_end_is_refused(
    library: Path, what: str, other: Tensor
) -> None:
    x = torch.rand(2, 4)
    given = {"grad": x, "origin": x, what: other}
    case = plain("linf", x, given["grad"], given["origin"], guard=0.0)
    with pytest.raises(ValueError, match=rf"{what} must be as x: expected \(2, 4\) torch.float32"):
        run(case, Emulator(library))


# Faults that kernels have had or could have. Each is found by the cases of one dtype.
FAULTS = {
    "guard under the norm and not its square": ("sum = sum < guard", "sum = sum < guard * guard"),
    "guard above where it is below": (
        "sum = sum < guard ? guard : sum;\n  } else if",
        "sum = sum < guard ? sum : guard;\n  } else if",
    ),
    "missing tail": ("if (VEC > 1) flat<T, 1>", "if (false) flat<T, 1>"),
    "last vectors left out": ("if (i + u * stride < count) use", "if (u == 0) use"),
    "ties not counted": ("a.ties + b.ties", "a.ties"),
    "non-finite entries kept": ("(rules & ZERO_NONFINITE) && !finite(g)", "false"),
    "NaN lost by the maximum": (" || b.middle != b.middle", ""),
    "sign of NaN": ("v == A(0) || !(rules & NAN_HAS_NO_SIGN)", "v == A(0) || true"),
    "mask forgotten": ("g = rounded<T>(g * mask);", ""),
    "clip_grad at one bound only": ("(x <= low && g < A(0)) || ", ""),
    "clip_grad though the step points inwards": ("x <= low && g < A(0)", "x <= low"),
    "bounds crossed the other way": ("return rules & LOW_WINS ?", "return !(rules & LOW_WINS) ?"),
    "share of an entry that is not the largest": ("magnitude(g) == d.largest ?", "true ?"),
    "clipped before the projection in both orders": ("if (rules & CLIP_FIRST) return", "return"),
    "projection around x": ("e.low, e.high, rules) - e.origin)", "e.low, e.high, rules) - e.x)"),
    "perturbation added to x": (
        "clip(rounded<T>(e.origin + delta)",
        "clip(rounded<T>(e.x + delta)",
    ),
    "no projection": ("if (rules & PROJECT) delta =", "if (false) delta ="),
    "ball not scaled": ("norm <= radius ? A(1) : radius / norm", "norm <= radius ? A(1) : radius"),
    "row of an operand": ("row * o.row_stride", "0 * o.row_stride"),
    "warps beyond the first": ("if (lane % 16 < warps)", "if (lane % 16 < 1)"),
    "blocks of a cluster beyond the first": ("if (lane % 8 < cluster)", "if (lane % 8 < 1)"),
    "parts of the first input only": (
        "p < a.all_parts; p += blockDim.x",
        "p < a.parts; p += blockDim.x",
    ),
    "another's parts overwritten": ("a.first_part + blockIdx.x", "blockIdx.x"),
    "rows beyond the batch": ("row < a.rows ? int(a.columns / VEC) : 0", "int(a.columns / VEC)"),
    "shuffle too short": ("int d = width / 2; d > 0", "int d = width / 2; d > 1"),
    "squares in float": ("double(g) * double(g)", "g * g"),
}
DOUBLE_FAULTS = {
    "large entries not scaled back": ("s.large * LARGE_BACK * LARGE_BACK", "s.large * LARGE_BACK"),
    "small entries lost": (
        "d.before = SMALL_SCALE;\n    sum = s.small;",
        "d.factor = 0; return d;",
    ),
    "large entries lost": ("if (size > LARGE) s.large +=", "if (size > LARGE) s.small +="),
    "rounded to float": ("rounded<T>(A(double(g)", "rounded<T>(float(double(g)"),
}
HALF_FAULTS = {
    "truncated": ("(w.bits + 0x7fffu + ((w.bits >> 16) & 1u)) >> 16", "w.bits >> 16"),
    "ties to odd": ("((w.bits >> 16) & 1u)", "(~(w.bits >> 16) & 1u)"),
    "a product not rounded": (
        "const A step = rounded<T>(d * e.step);",
        "const A step = d * e.step;",
    ),
}
PLANTED = [
    *((name, change, torch.float32) for name, change in FAULTS.items()),
    *((name, change, torch.float64) for name, change in DOUBLE_FAULTS.items()),
    *((name, change, torch.bfloat16) for name, change in HALF_FAULTS.items()),
]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bool]:
    """Which planted faults the cases find."""
    folder = tmp_path_factory.mktemp("faults")

    def planted(fault: tuple[str, tuple[str, str], torch.dtype]) -> str:
        return str(build(folder, [str(fault[2])[6:]], changes=[fault[1]], optimization="-O0"))

    with ThreadPoolExecutor(max_workers=2) as pool:
        libraries = list(pool.map(planted, PLANTED))
    pairs = zip((str(fault[2])[6:] for fault in PLANTED), libraries, strict=True)
    script = SUPPORT / "find_faults.py"
    command = [sys.executable, str(script), *(f"{dtype}={library}" for dtype, library in pairs)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr
    words = done.stdout.split()
    return {fault[0]: word == "found" for fault, word in zip(PLANTED, words, strict=True)}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, _, _ in PLANTED])
def test_planted_fault_is_found(name: str, found: dict[str, bool]) -> None:
    assert found[name]
