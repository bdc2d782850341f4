"""The gate: every kernel and configuration compiles for every architecture, and fits.

`inspect` compiles in fresh processes, so these tests run beside others that use the interpreter.
Cold, a kernel takes up to a second for each dtype and architecture; Triton's cache on disk serves
every later run.
"""

import functools
import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from gptwin.lab.inspect.assembly import Resources
from gptwin.lab.inspect.console import inspect_operations
from gptwin.lab.inspect.inspect import Row, _compiled_twice, inspect
from gptwin.lab.inspect.targets import ARCHITECTURES, architecture, occupancy
from gptwin.lab.twins.catalogue import TWINS

# What CI has time for; `make inspect` compiles all dtypes of all twins for all four and stores it.
# On sm_90 every twin, save two whose kernels take seconds each and are those of their parts; on the
# others three twins whose tiles are chosen by architecture, on sm_80 in float32 as well, which
# takes the most registers. float16 compiles to what bfloat16 compiles to, save for a letter in the
# tensor-core instruction.
COMPOSED = ("decoder_block", "linear_ppo_loss")
ELSEWHERE = ("softmax", "layer_norm", "linear")
GATED = [
    (arch, name)
    for arch in ARCHITECTURES
    for name in TWINS
    if (name not in COMPOSED if arch == "sm_90" else name in ELSEWHERE)
]


def gated_dtypes(arch: str, name: str) -> tuple[str, ...]:
    """Say in which dtypes CI compiles a twin: bfloat16 if it can, on sm_80 float32 as well."""
    if "bfloat16" not in TWINS[name].dtypes:
        return ("float32",)
    return ("bfloat16", "float32") if arch == "sm_80" else ("bfloat16",)


BROKEN = ("spilling", "greedy", "masked", "shorter", "wrong", "forgetful")

# One process of pytest-xdist, under --dist loadgroup: the rows below are shared.
pytestmark = pytest.mark.xdist_group("inspect")


@functools.cache
def rows_for(arch: str) -> list[Row]:
    """Compile an architecture's twins at once: starting processes is a good part of the time."""
    rows = []
    for dtype in ("bfloat16", "float32"):
        names = [name for on, name in GATED if on == arch and dtype in gated_dtypes(arch, name)]
        if names:  # none means all
            rows += inspect(names, archs=[arch], dtypes=[dtype], count=False)
    return rows


@functools.cache
def broken_rows(arch: str) -> dict[str, list[Row]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parent)  # worker processes get sys.path as it is here
        rows = inspect(archs=[arch], twins="broken_kernels")
    return {name: [row for row in rows if row.operation == name] for name in BROKEN}


@pytest.mark.parametrize(("arch", "name"), GATED)
def test_every_configuration_compiles_and_fits(arch: str, name: str) -> None:
    rows = [row for row in rows_for(arch) if row.operation == name]
    failures = [
        f"{row.kernel} {row.dtype} {row.options} {row.shapes}: {why}"
        for row in rows
        for why in row.failures
    ]
    assert not failures, "\n".join(failures)

    expected = {
        (kernel_name, index)
        for kernel_name, kernel in TWINS[name].kernels().items()
        for index in range(len(getattr(kernel, "configs", None) or [None]))
    }
    # A list that an architecture has for itself may be longer.
    assert {(row.kernel, row.configuration) for row in rows} >= expected
    assert {row.dtype for row in rows} == set(gated_dtypes(arch, name))
    for row in rows:
        assert row.resources is not None and row.resources.registers > 0
        assert arch == "gfx942" or not row.resources.tensor_core  # not counted
        assert 0 < row.occupancy <= 1
        assert set(row.shapes) <= set(TWINS[name].shapes)


@pytest.mark.parametrize("arch", ["sm_90", "gfx942"])
def test_a_kernel_that_spills_fails(arch: str) -> None:
    (row,) = broken_rows(arch)["spilling"]
    assert row.resources is not None and row.resources.spill_bytes > 0
    assert any("spills" in why for why in row.failures)


@pytest.mark.parametrize("arch", ["sm_90", "gfx942"])
def test_only_the_configuration_with_too_much_shared_memory_fails(arch: str) -> None:
    modest, greedy = broken_rows(arch)["greedy"]
    assert (modest.configuration, modest.failures) == (0, ())
    assert greedy.resources is not None and greedy.configuration == 1
    assert greedy.resources.shared_bytes > architecture(arch).shared_memory_per_block
    assert any("shared memory" in why for why in greedy.failures)


@pytest.mark.parametrize("arch", ["sm_90", "gfx942"])
def test_a_kernel_that_does_not_compile_is_a_finding(arch: str) -> None:
    error, never = broken_rows(arch)["wrong"]
    assert "this kernel is wrong" in error.failures[0] and error.dtype == "bfloat16"
    assert never.kernel == "wrong_kernel" and "a shape failed first" in never.failures[0]


@pytest.mark.parametrize("arch", ["sm_90", "gfx942"])
def test_a_kernel_that_no_shape_launches_fails(arch: str) -> None:
    compiled, never = broken_rows(arch)["forgetful"]
    assert compiled.kernel == "spilling_kernel" and not compiled.failures
    assert never.kernel == "forgotten_kernel" and never.resources is None
    assert "no shape of ['square'] launches it" in never.failures[0]


@pytest.mark.parametrize(("arch", "length"), [("sm_90", 1), ("gfx942", 2)])
def test_a_list_is_as_long_as_its_architecture_has_it(arch: str, length: int) -> None:
    rows = broken_rows(arch)["shorter"]
    assert [(row.configuration, row.failures) for row in rows] == [(i, ()) for i in range(length)]


def test_what_is_chosen_within_a_tuple_is_named() -> None:
    causal, padded = (row.options for row in broken_rows("sm_90")["masked"])
    assert causal["masks.causal"] is True and causal["masks.start"] is None
    assert padded["masks.causal"] is False and "masks.start" not in padded
    assert causal.keys() - padded.keys() == {"masks.start"}
    assert padded.keys() == {"masks.causal", "BLOCK", "num_warps", "num_stages"}


@pytest.mark.parametrize(("arch", "instruction"), [("sm_90", "HGMMA"), ("gfx942", "mfma")])
def test_tensor_core_instructions_are_found(arch: str, instruction: str) -> None:
    for row in broken_rows(arch)["greedy"]:
        assert row.resources is not None
        if arch == "gfx942" or row.configuration == 1:
            assert row.resources.tensor_core.keys() == {instruction}
        else:  # a tile of 32 rows is too small for a warp group's instruction
            assert row.resources.tensor_core.keys() == {"HMMA"}


def test_exit_code_and_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    page = io.StringIO()
    code = inspect_operations(
        ["greedy"], ["sm_90"], "ptx", twins="broken_kernels", console=Console(file=page)
    )
    printed = page.getvalue()
    assert code == 1
    assert "FAILED greedy greedy_kernel bfloat16 BLOCK=128 warps=4 stages=9" in printed
    assert "sm_90: 1 kernels, 2 compilations; 1 failed" in printed
    assert printed.count(".visible .entry greedy_kernel(") == 2


def test_what_is_typical_is_compiled_alone_and_stored(tmp_path: Path) -> None:
    stored = tmp_path / "inspect.json"
    code = inspect_operations(
        ["gelu", "gae"], ["sm_90"], typical=True, json_file=str(stored),
        console=Console(file=io.StringIO()),
    )  # fmt: skip
    found = json.loads(stored.read_text())
    assert code == 0 and found["typical"] and found["triton"]
    of_gelu = [row for row in found["rows"] if row["operation"] == "gelu"]
    assert {(row["dtype"], *row["shapes"]) for row in of_gelu} == {("bfloat16", "gpt2 mlp")}
    assert all(row["resources"]["registers"] and row["occupancy"] for row in of_gelu)
    assert {row["dtype"] for row in found["rows"] if row not in of_gelu} == {"float32"}
    with pytest.raises(ValueError, match="json: expected a file in a directory"):
        inspect_operations(["gelu"], ["sm_90"], json_file=str(tmp_path / "no" / "x.json"))


def test_occupancy_on_nvidia() -> None:
    """Against NVIDIA's occupancy calculator (compute capability 9.0, 65,536 registers)."""
    h100 = architecture("sm_90")
    # 512 // 248 = 2 warps in each quarter: 8 warps, 2 blocks of 4.
    assert occupancy(h100, warps=4, registers=242, shared_bytes=65536) == 8 / 64
    # 233,472 // (65,536 + 1,024) = 3 blocks.
    assert occupancy(h100, warps=4, registers=32, shared_bytes=65536) == 12 / 64
    # 32 blocks of one warp are all that may reside.
    assert occupancy(h100, warps=1, registers=16, shared_bytes=0) == 32 / 64
    assert occupancy(h100, warps=4, registers=32, shared_bytes=232448) == 4 / 64
    assert occupancy(h100, warps=4, registers=32, shared_bytes=232449) == 0
    assert occupancy(h100, warps=16, registers=136, shared_bytes=0) == 0
    b200 = architecture("sm_100")
    limited = occupancy(b200, warps=4, registers=32, shared_bytes=0, tensor_memory_columns=256)
    assert limited == 8 / 64


def test_occupancy_on_amd_is_what_llvm_computes() -> None:
    """LLVM writes waves per SIMD into the assembly; it does not know the shared memory."""
    rows = inspect(["softmax"], ["gfx942"], show="sass", dtypes=["bfloat16"])
    assert len(rows) >= 4
    for row in rows:
        assert row.text is not None and isinstance(row.resources, Resources)
        waves = re.search(r"^; Occupancy: (\d+)", row.text, re.MULTILINE)
        assert waves is not None
        assert row.occupancy == pytest.approx(int(waves[1]) / 8, abs=row.resources.warps / 32)
        assert row.occupancy <= int(waves[1]) / 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"names": ["softmix"]}, r"op: expected one of softmax, .*, got 'softmix'"),
        ({"archs": ["sm_75"]}, r"arch: expected one of sm_80, .*, got 'sm_75'"),
        ({"show": "llvm"}, r"show: expected one of ttir, .*, got 'llvm'"),
        ({"archs": ["sm_90"], "show": "amdgcn"}, r"show: expected ptx or sass .* got 'amdgcn'"),
        ({"dtypes": ["float64"]}, r"dtype: expected one of float32, .*, got 'float64'"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, list[str]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        inspect(**arguments)


def test_missing_tools_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from triton import knobs

    class Missing:
        def __getattr__(self, name: str) -> str:
            raise RuntimeError(f"Cannot find {name}")

    monkeypatch.setattr(knobs, "nvidia", Missing())
    with pytest.raises(RuntimeError, match="expected NVIDIA's ptxas beside Triton"):
        inspect(["softmax"], ["sm_90"])


def test_missing_triton_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from gptwin.kernels.common import _triton

    monkeypatch.setattr(_triton, "UNAVAILABLE", "No module named 'triton'")
    with pytest.raises(RuntimeError, match="expected Triton to be installed"):
        inspect(["softmax"], ["sm_90"])


def test_a_configuration_with_anothers_code_at_every_shape_is_named():
    narrow, wide = ("narrow", "a"), ("wide", "b")
    codes = {
        ("kernel", 0): {narrow, wide},
        ("kernel", 1): {narrow, ("wide", "c")},  # as 0 where a row is narrow alone
        ("kernel", 2): {narrow, wide},
        ("another", 1): {narrow, wide},
    }
    found = _compiled_twice(codes)
    assert [key for key, first in found.items() if first] == [("kernel", 2)]
    assert found["kernel", 2] == [0]
