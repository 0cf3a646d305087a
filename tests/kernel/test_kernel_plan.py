"""Launch plans: every kernel compiles without spills, and no plan asks for more than a GPU has."""

from __future__ import annotations

import ctypes
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from emulation import AMPERE, HOPPER
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import DTYPES
from processes import SUPPORT

from torchfgsm.kernel import KernelUnavailable, arguments, nvrtc, plan
from torchfgsm.kernel.arguments import Args
from torchfgsm.kernel.nvrtc import Compiled
from torchfgsm.kernel.plan import CTYPES, Device, Input, instantiations

SMALL = Device(20, 89)
DEVICES = (HOPPER, AMPERE, SMALL)
ARCHITECTURES = (80, 90, 100)
INPUTS = st.builds(
    Input,
    dtype=st.sampled_from(sorted(CTYPES)),
    rows=st.integers(1, 200_000),
    columns=st.one_of(st.integers(1, 3_000_000), st.sampled_from([8, 784, 3072, 150528])),
    wide=st.booleans(),
    plain=st.booleans(),
)


def has_nvrtc() -> bool:
    try:
        nvrtc.load()
    except KernelUnavailable:
        return False
    return True


needs_nvrtc = pytest.mark.skipif(not has_nvrtc(), reason="NVRTC is not installed")


def test_there_are_few_kernels() -> None:
    assert len(set(instantiations())) == len(instantiations()) <= 40


@given(
    st.lists(INPUTS, min_size=1, max_size=3),
    st.sampled_from(["linf", "l2", "l1"]),
    st.booleans(),
    st.sampled_from(DEVICES),
)
@settings(max_examples=300, deadline=None)
def test_plans_stay_within_a_gpu(
    inputs: list[Input], norm: str, shrinks: bool, device: Device
) -> None:
    given = tuple(
        Input(i.dtype, inputs[0].rows, i.columns, i.wide and i.columns % 16 == 0, i.plain)
        for i in inputs
    )
    found = plan.plan(given, norm, shrinks, device)
    assert {launch.kernel for launch in found.launches} <= set(instantiations())
    assert {launch.source for launch in found.launches} == set(range(len(given)))
    for launch in found.launches:
        threads_of_cluster = launch.threads * launch.cluster
        assert launch.threads in (256, 512)
        assert 1 <= launch.grid[0] < 2**31
        assert 1 <= launch.grid[1] <= 65535
        assert launch.grid[0] % launch.cluster == 0
        assert launch.shared <= plan.MOST_SHARED <= 99 * 1024  # the least of sm_80 to sm_120
        assert launch.group & (launch.group - 1) == 0
        assert launch.cluster == 1 or (device.architecture >= 90 and launch.cluster <= 8)
        if "rows" in launch.kernel:
            of = given[launch.source]
            examples = launch.grid[0] // launch.cluster * (launch.threads // launch.group)
            assert examples >= of.rows
            assert launch.shared * threads_of_cluster // launch.threads >= (
                of.columns * CTYPES[of.dtype][1]
            )
    assert found.parts == sum(x.parts for x in found.launches if not x.projecting)


@pytest.mark.parametrize(
    ("columns", "kernels", "cluster"),
    [
        (784, ["rows"], 1),
        (12288, ["rows"], 1),
        (150528, ["rows"], 8),
        (1_500_000, ["partial", "apply"], 1),
    ],
)
def test_examples_stay_on_the_chip_while_they_fit(
    columns: int, kernels: list[str], cluster: int
) -> None:
    found = plan.plan((Input("float32", 32, columns, True, True),), "l2", False, HOPPER)
    names = [re.search(r"perturb_(\w+)", launch.kernel) for launch in found.launches]
    assert [name and name[1] for name in names] == kernels
    assert found.launches[0].cluster == cluster


VERBOSE = ("--ptxas-options=-v",)


def spilling(compiled: Compiled) -> dict[str, str]:
    """Kernels that keep registers in memory, with what the compiler says of them."""
    names = {symbol: name for name, symbol in compiled.symbols.items()}
    parts = re.split(r"Function properties for '?(\w+)", compiled.log)[1:]
    found = dict(zip(parts[::2], parts[1::2], strict=True))
    assert set(found) == set(names), "the log does not speak of every kernel"
    return {
        names[symbol]: text.strip().splitlines()[0]
        for symbol, text in found.items()
        if not re.search(r"\b0 bytes spill stores", text)
    }


@pytest.fixture(scope="module")
def compiled() -> dict[int, Compiled]:
    def compile_for(architecture: int) -> Compiled:
        return nvrtc.compile_kernels(instantiations(), architecture, options=VERBOSE)

    _, supported = nvrtc.load().nvrtcGetSupportedArchs()
    known = [architecture for architecture in ARCHITECTURES if architecture in supported]
    with ThreadPoolExecutor(max_workers=2) as pool:
        return dict(zip(known, pool.map(compile_for, known), strict=True))


@needs_nvrtc
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_kernel_compiles_without_spills(
    architecture: int, compiled: dict[int, Compiled]
) -> None:
    if architecture not in compiled:
        pytest.skip(f"NVRTC {nvrtc.version()} is too old for sm_{architecture}")
    found = compiled[architecture]
    assert found.cubin[:4] == b"\x7fELF"
    assert set(found.symbols) == set(instantiations())
    assert spilling(found) == {}


@needs_nvrtc
def test_a_spill_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    main, header = nvrtc.source()
    crowded = main.replace("THREADS, FULL ? 1 : 2", "THREADS, 4")
    assert crowded != main  # four blocks of 512 threads leave 32 registers to each
    monkeypatch.setattr(nvrtc, "source", lambda: (crowded, header))
    name = plan.kernel_name("rows", "double", 2, "true")
    assert spilling(nvrtc.compile_kernels([name], 90, options=VERBOSE))


@needs_nvrtc
def test_what_nvrtc_says_is_passed_on() -> None:
    with pytest.raises(KernelUnavailable, match=r"no_such_kernel|not a valid"):
        nvrtc.compile_kernels(["torchfgsm::no_such_kernel<float>"], 90)
    with pytest.raises(KernelUnavailable, match="could not compile"):
        nvrtc.compile_kernels(instantiations()[:1], 3)


def test_the_struct_is_the_kernels_own(tmp_path: Path) -> None:
    """Offsets of every field, as g++ lays `Args` out."""
    names = [field[0] for field in Args._fields_]
    source = tmp_path / "offsets.cpp"
    offsets = "".join(f'printf("%zu ", offsetof(torchfgsm::Args, {name}));' for name in names)
    source.write_text(
        "#define TORCHFGSM_EMULATE\n#include <cstddef>\n#include <cstdio>\n"
        f'#include "{nvrtc.SOURCES / "perturb.cu"}"\nint main() {{ {offsets}'
        ' printf("%zu %zu", sizeof(torchfgsm::Args), sizeof(torchfgsm::Stat)); }\n'
    )
    include = SUPPORT / "emulator"
    command = ["g++", "-std=c++17", "-w", f"-I{include}", f"-I{nvrtc.SOURCES}", str(source)]
    subprocess.run([*command, "-o", str(tmp_path / "offsets")], check=True)
    done = subprocess.run([tmp_path / "offsets"], capture_output=True, text=True, check=True)
    ours = [getattr(Args, name).offset for name in names]
    assert list(map(int, done.stdout.split())) == [
        *ours,
        ctypes.sizeof(Args),
        arguments.STAT_BYTES,
    ]


def test_rules_have_the_kernels_bits() -> None:
    text = (nvrtc.SOURCES / "arithmetic.h").read_text()
    theirs = dict(re.findall(r"^  ([A-Z_]+) = (\d+)", text, re.MULTILINE))
    assert theirs.pop("PROJECT") == str(arguments.PROJECT)
    assert {name: getattr(arguments, name) for name in theirs} == {
        name: int(value) for name, value in theirs.items()
    }
    norms = re.search(r"enum Norm \{ (.*?) \}", text)
    assert norms is not None
    found = dict(pair.split(" = ") for pair in norms[1].split(", "))
    assert {name.lower(): int(value) for name, value in found.items()} == arguments.NORMS


def test_dtypes_of_the_cases_are_those_of_the_kernels() -> None:
    assert {str(dtype)[6:] for dtype in DTYPES} == set(CTYPES)
    for dtype in DTYPES:
        assert torch.empty(0, dtype=dtype).element_size() == CTYPES[str(dtype)[6:]][1]
