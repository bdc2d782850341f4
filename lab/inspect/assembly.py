"""Read a compiled Triton kernel: registers, spills, shared memory, instruction mix, its texts.

What is read is the binary that Triton made, never a second compilation of its PTX: with other
flags `ptxas` allocates other registers, and says "0 bytes spill stores" of a kernel that spills.
"""

import collections
import dataclasses
import hashlib
import json
import pathlib
import re
import subprocess
import tempfile
from typing import Any

from ...core.checks import refuse

# What `inspect --show` prints. AMD compiles straight to assembly: "ptx" and "sass" show that.
FORMS = ("ttir", "ttgir", "ptx", "sass", "amdgcn", "source")

# The first word of an instruction in nvdisasm's output: /*0a30*/   @!P4 HGMMA.64x128x16.F32 ...
_SASS_OPCODE = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_]*)")
# sm_80: HMMA, IMMA, DMMA; sm_90: HGMMA, IGMMA, QGMMA (fp8); sm_100: the tcgen05.mma of PTX is
# UTCHMMA (fp16, bf16, tf32), UTCQMMA (fp8, fp6, fp4), UTCIMMA, UTCOMMA (block-scaled fp4).
_SASS_TENSOR_CORE = re.compile(r"(UTC[A-Z]*MMA|[A-Z]?G?MMA)$")
# In PTX, all of them come from instructions with one of these in their names.
_PTX_SPECIAL = re.compile(r"mma|cp\.async|cp\.reduce\.async")
# cp.async, and the bulk copies of the tensor memory accelerator in both directions.
_SASS_ASYNC_COPY = re.compile(r"(LDGSTS|UTMALDG|UTMASTG|UTMAREDG|UBLKCP)$")

_GCN_OPCODE = re.compile(r"^\s+([a-z][a-z0-9_]+)([^;\n]*)", re.MULTILINE)
_GCN_TENSOR_CORE = re.compile(r"v_(s?mfmac?)_")
# A load straight into local data share carries the modifier "lds".
_GCN_ASYNC_COPY = re.compile(r"((?:buffer|global)_load)_")


@dataclasses.dataclass(frozen=True)
class Resources:
    """What one compiled kernel takes.

    Attributes
    ----------
    warps : int
        Of one block.
    registers : int
        Of one thread (AMD: vector registers, accumulation registers among them).
    spill_bytes : int
        Of one thread: the stack frame in local memory (AMD: scratch). Triton keeps nothing else
        there.
    shared_bytes : int
        Of one block.
    tensor_memory_columns : int
        Of one block; Blackwell alone has any.
    tensor_core : dict
        Tensor-core instruction to how often it stands in the code; empty if not counted.
    async_copies : dict
        Asynchronous copies into shared memory, likewise.
    """

    warps: int
    registers: int
    spill_bytes: int
    shared_bytes: int
    tensor_memory_columns: int
    tensor_core: dict[str, int]
    async_copies: dict[str, int]


def expect_tools(backend: str) -> None:
    """Refuse to start where the programs that read a binary are missing.

    Parameters
    ----------
    backend : str
        "cuda" or "hip"; AMD's assembly is text and needs none.

    Raises
    ------
    RuntimeError
        Naming the program.
    """
    if backend == "cuda":
        for tool in ("ptxas", "cuobjdump", "nvdisasm"):
            _tool(tool)


def _tool(name: str) -> str:
    from triton import knobs

    try:
        return getattr(knobs.nvidia, name).path
    except Exception as error:
        raise RuntimeError(
            f"inspect: expected NVIDIA's {name} beside Triton, where its Linux wheels carry it, "
            f"but found none: {error} (likely cause: Triton was built from source or for another "
            f"platform; TRITON_{name.upper()}_PATH names another copy)"
        ) from error


def read_resources(compiled: Any, *, count: bool = True) -> Resources:
    """Read what a kernel takes from its binary, once: the reading is kept in Triton's cache.

    Parameters
    ----------
    compiled : triton.compiler.CompiledKernel
        From `JITFunction.warmup`.
    count : bool
        Count instructions, too. NVIDIA's are disassembled, which takes 0.3 seconds a kernel.

    Returns
    -------
    Resources
    """
    from triton.runtime.cache import get_cache_manager

    # The name changes with this file, so that no reading outlives the code that made it.
    code = hashlib.sha256(pathlib.Path(__file__).read_bytes()).hexdigest()[:12]
    cache = get_cache_manager(compiled.metadata.hash)
    name = f"gptwin_resources_{code}{'' if count else '_not_counted'}.json"
    kept = cache.get_file(name)
    if kept is not None:
        return Resources(**json.loads(pathlib.Path(kept).read_text()))
    resources = _read_nvidia(compiled, count) if "cubin" in compiled.asm else _read_amd(compiled)
    cache.put(json.dumps(dataclasses.asdict(resources)), name, binary=False)
    return resources


def _read_nvidia(compiled: Any, count: bool) -> Resources:
    usage = _run_on_cubin("cuobjdump", "--dump-resource-usage", cubin=compiled.asm["cubin"])
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    if found is None:
        raise RuntimeError(f"cuobjdump: expected REG and STACK of {compiled.name}, got {usage!r}")
    # Most kernels need no disassembly.
    special = count and _PTX_SPECIAL.search(compiled.asm["ptx"])
    opcodes = _SASS_OPCODE.findall(_sass(compiled)) if special else []
    return Resources(
        warps=compiled.metadata.num_warps,
        registers=int(found[1]),
        spill_bytes=int(found[2]),
        shared_bytes=compiled.metadata.shared,
        tensor_memory_columns=getattr(compiled.metadata, "tmem_size", None) or 0,
        tensor_core=_count(_SASS_TENSOR_CORE, opcodes),
        async_copies=_count(_SASS_ASYNC_COPY, opcodes),
    )


def _read_amd(compiled: Any) -> Resources:
    assembly = compiled.asm["amdgcn"]

    def field(name: str) -> int:
        found = re.search(rf"^\s*\.{name}:\s+(\d+)", assembly, re.MULTILINE)
        if found is None:
            raise RuntimeError(f"amdgcn: expected .{name} in the metadata of {compiled.name}")
        return int(found[1])

    body = assembly.partition(".section")[0]
    instructions = _GCN_OPCODE.findall(body)
    into_lds = [opcode for opcode, operands in instructions if operands.split()[-1:] == ["lds"]]
    return Resources(
        warps=compiled.metadata.num_warps,
        registers=field("vgpr_count"),
        # A register may also be spilled into an accumulation register, which takes no scratch.
        spill_bytes=max(field("private_segment_fixed_size"), 4 * field("vgpr_spill_count")),
        shared_bytes=compiled.metadata.shared,
        tensor_memory_columns=0,
        tensor_core=_count(_GCN_TENSOR_CORE, [opcode for opcode, _ in instructions]),
        async_copies=_count(_GCN_ASYNC_COPY, into_lds),
    )


def _count(pattern: re.Pattern[str], opcodes: list[str]) -> dict[str, int]:
    matches = (pattern.match(opcode) for opcode in opcodes)
    return dict(collections.Counter(match[1] for match in matches if match))


def _sass(compiled: Any) -> str:
    # -c: the code alone; -ndf: without the data-flow analysis, which takes as long again.
    return _run_on_cubin("nvdisasm", "-c", "-ndf", cubin=compiled.asm["cubin"])


def _run_on_cubin(tool: str, *flags: str, cubin: bytes) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run(
            [_tool(tool), *flags, file.name], capture_output=True, text=True, check=False
        )
    if done.returncode != 0:
        raise RuntimeError(f"{tool}: expected to read a cubin, got: {done.stderr.strip()}")
    return done.stdout


def form_for(form: str, backend: str) -> str:
    """Say which text of a kernel `--show form` means on a backend.

    Parameters
    ----------
    form : str
        One of `FORMS`.
    backend : str
        "cuda" or "hip".

    Returns
    -------
    str
        `form`, or "amdgcn" for "ptx" and "sass" on AMD.

    Raises
    ------
    ValueError
        If there is no such form, or an NVIDIA kernel has none.
    """
    if form not in FORMS:
        refuse("show", f"one of {', '.join(FORMS)}", repr(form))
    if backend == "hip" and form in ("ptx", "sass"):
        return "amdgcn"
    if backend == "cuda" and form == "amdgcn":
        refuse(
            "show", "ptx or sass for an NVIDIA architecture", "'amdgcn'", "AMD's assembly language"
        )
    return form


def text(compiled: Any, form: str) -> str:
    """Return one of a kernel's texts.

    Parameters
    ----------
    compiled : triton.compiler.CompiledKernel
        The kernel.
    form : str
        From `form_for`: "ttir", "ttgir", "ptx", "sass", "amdgcn", or "source" for its Python.

    Returns
    -------
    str
    """
    if form == "source":
        return "".join(compiled.src.fn.raw_src)
    if form == "sass":
        return _sass(compiled)
    return compiled.asm[form]
