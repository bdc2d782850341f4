"""LLVM IR to machine code in this process, by llvmlite."""

import functools
import hashlib
from typing import Any

import llvmlite.binding as llvm


@functools.cache
def _target(level: int) -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(),
        features=llvm.get_host_cpu_features().flatten(),
        opt=level,
        reloc="pic",
    )


def describe() -> str:
    """Name what machine code depends on: the processor, its features and LLVM's version."""
    features = llvm.get_host_cpu_features().flatten()
    return f"{llvm.get_host_cpu_name()} {features} {llvm.llvm_version_info}"


@functools.cache
def has_many_registers() -> bool:
    """Say whether the processor has 32 vector registers of 512 bits: AVX-512.

    Returns
    -------
    bool
    """
    return llvm.get_host_cpu_features().get("avx512f", False)


def compile_object(text: str, *, quick: bool = False) -> bytes:
    """Compile a module.

    Parameters
    ----------
    text : str
        LLVM IR.
    quick : bool
        Skip optimisation: the code runs once.

    Returns
    -------
    bytes
        An ELF object.
    """
    level = 0 if quick else 2
    target = _target(level)
    return target.emit_object(_optimised(text, target, level))


def assembly(text: str) -> str:
    """Return the optimised machine code of a module, to be read."""
    target = _target(2)
    return target.emit_assembly(_optimised(text, target, 2))


def _optimised(text: str, target: Any, level: int) -> Any:
    module = llvm.parse_assembly(text)
    module.triple, module.data_layout = target.triple, str(target.target_data)
    options = llvm.create_pipeline_tuning_options(speed_level=level)
    # The code is vectors already, and unrolled as far as it should be.
    options.loop_vectorization = options.slp_vectorization = options.loop_unrolling = False
    builder = llvm.create_pass_builder(target, options)
    if level:
        builder.getModulePassManager().run(module, builder)
    else:  # stack slots become registers, nothing more
        passes = llvm.create_new_function_pass_manager()
        passes.add_sroa_pass()
        for function in module.functions:
            if not function.is_declaration:
                passes.run(function, builder)
    return module


def load(binary: bytes, name: str) -> tuple[Any, int]:
    """Link an object into this process.

    Parameters
    ----------
    binary : bytes
        From `compile_object`.
    name : str
        A function in it.

    Returns
    -------
    engine : object
        Holds the code: it lives as long as this does.
    address : int
        Of the function.
    """
    _target(2)
    machine = llvm.Target.from_default_triple().create_target_machine()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    engine.add_object_file(llvm.object_file.ObjectFileRef.from_data(binary))
    engine.finalize_object()
    return engine, engine.get_function_address(name)


_held: list[Any] = []  # engines: code lives as long as they do


@functools.cache
def link(name: str, text: str) -> int:
    """Make a function known, by name, to the kernels that are loaded from now on.

    Parameters
    ----------
    name : str
    text : str
        A module of LLVM IR that has it.

    Returns
    -------
    int
        Its address.
    """
    engine, address = load(_cached_object(text), name)
    llvm.add_symbol(name, address)
    _held.append(engine)
    return address


def _cached_object(text: str) -> bytes:
    """Compile a module, or take it from Triton's cache on disk."""
    from triton.runtime.cache import get_cache_manager

    cache = get_cache_manager(hashlib.sha256((text + describe()).encode()).hexdigest())
    path = cache.get_file("library.obj")
    if path is None:
        path = cache.put(compile_object(text), "library.obj", binary=True)
    with open(path, "rb") as file:
        return file.read()
