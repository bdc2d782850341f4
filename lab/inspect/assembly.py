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
from collections.abc import Iterator
from typing import Any

from ...core.checks import refuse
from . import lints, sass
from .lints import Lint
from .targets import architecture

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
    lints : tuple of Lint
        What its code shows (lints.py); none if instructions are not counted, or on AMD.
    """

    warps: int
    registers: int
    spill_bytes: int
    shared_bytes: int
    tensor_memory_columns: int
    tensor_core: dict[str, int]
    async_copies: dict[str, int]
    lints: tuple[Lint, ...] = ()


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

    # The name changes with these files, so that no reading outlives the code that made it.
    files = (__file__, lints.__file__, sass.__file__)
    text = b"".join(pathlib.Path(file).read_bytes() for file in files)
    code = hashlib.sha256(text).hexdigest()[:12]
    cache = get_cache_manager(compiled.metadata.hash)
    name = f"gptwin_resources_{code}{'' if count else '_not_counted'}.json"
    kept = cache.get_file(name)
    if kept is not None:
        fields = json.loads(pathlib.Path(kept).read_text())
        return Resources(**fields | {"lints": tuple(Lint(**one) for one in fields["lints"])})
    resources = _read_nvidia(compiled, count) if "cubin" in compiled.asm else _read_amd(compiled)
    cache.put(json.dumps(dataclasses.asdict(resources)), name, binary=False)
    return resources


def _read_nvidia(compiled: Any, count: bool) -> Resources:
    registers, stack = _usage(compiled.asm["cubin"], compiled.name)
    # Most kernels need no disassembly.
    special = count and _PTX_SPECIAL.search(compiled.asm["ptx"])
    code = listing(compiled) if special else ""
    opcodes = _SASS_OPCODE.findall(code)
    resources = Resources(
        warps=compiled.metadata.num_warps,
        registers=registers,
        spill_bytes=stack,
        shared_bytes=compiled.metadata.shared,
        tensor_memory_columns=getattr(compiled.metadata, "tmem_size", None) or 0,
        tensor_core=_count(_SASS_TENSOR_CORE, opcodes),
        async_copies=_count(_SASS_ASYNC_COPY, opcodes),
    )
    if not count:
        return resources
    found = [*lints.of_code(sass.parse(code)), *_of_registers(compiled, resources)]
    return dataclasses.replace(resources, lints=tuple(found))


def _of_registers(compiled: Any, resources: Resources) -> Iterator[Lint]:
    """Say whether fewer registers would let two blocks reside, which a second assembly tries."""
    on = architecture(f"sm_{compiled.metadata.target.arch}")
    limit = lints.register_limit(
        on, warps=resources.warps, registers=resources.registers,
        shared_bytes=resources.shared_bytes,
    )  # fmt: skip
    if limit is None or resources.spill_bytes or ".maxnreg" in compiled.asm["ptx"]:
        return
    if not _spill_bytes_with(compiled, limit):
        yield lints.one_block(limit, resources.registers)


def _spill_bytes_with(compiled: Any, limit: int) -> int:
    """Assemble a kernel's PTX again with so many registers a thread; return what it spills."""
    from triton.backends.nvidia.compiler import get_ptxas, sm_arch_from_capability

    arch = compiled.metadata.target.arch
    text = re.sub(r"^(\.reqntid .*)$", rf"\1\n.maxnreg {limit}", compiled.asm["ptx"], flags=re.M)
    with tempfile.TemporaryDirectory() as folder:
        source, cubin = pathlib.Path(folder, "kernel.ptx"), pathlib.Path(folder, "kernel.cubin")
        source.write_text(text)
        command = [get_ptxas(arch).path, f"--gpu-name={sm_arch_from_capability(arch)}",
                   str(source), "-o", str(cubin)]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"ptxas: expected to assemble {compiled.name}, got: {done.stderr}")
        return _usage(cubin.read_bytes(), compiled.name)[1]


def _usage(cubin: bytes, name: str) -> tuple[int, int]:
    """Read registers and the bytes of the stack frame."""
    text = _run_on_cubin("cuobjdump", "--dump-resource-usage", cubin=cubin)
    found = re.search(r"REG:(\d+) STACK:(\d+)", text)
    if found is None:
        raise RuntimeError(f"cuobjdump: expected REG and STACK of {name}, got {text!r}")
    return int(found[1]), int(found[2])


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


def listing(compiled: Any) -> str:
    """Disassemble an NVIDIA kernel, with its encodings and source lines: `sass.parse` reads it.

    Parameters
    ----------
    compiled : triton.compiler.CompiledKernel

    Returns
    -------
    str
    """
    cubin = compiled.asm["cubin"]
    return _run_on_cubin("nvdisasm", "-hex", "-c", "-ndf", "-g", cubin=cubin)


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
