"""Compile the kernels for Hopper for a GPU that is not there; run by test_compiled.py.

A process of its own: one that has run Triton's interpreter cannot compile. Prints a line of JSON
for each kernel, and then says for each whether a GPU's process, to which these were carried, would
find it compiled.
"""

import json
import os
import re
import shutil
import tempfile
from pathlib import Path

# What needs the most registers; all there is: GPTWIN_HOPPER=1 gptwin inspect attention --arch sm_90
CASE = {"batch": 1, "head": 4, "kv_head": 2, "queries": 1024, "d_head": 128, "causal": True}
DTYPE = "bfloat16"


def main():
    os.environ["TRITON_INTERPRET"] = "0"
    os.environ["GPTWIN_HOPPER"] = "1"
    from gptwin.benchmarks.inputs import ROOTS
    from gptwin.lab.inspect.inspect import compile_case
    from gptwin.lab.inspect.targets import compile_for

    compile_for("sm_90")
    from gptwin.lab.twins.catalogue import TWINS

    log = []
    compile_case(TWINS["attention"], CASE, DTYPE, log, roots=ROOTS["attention"])
    for launch in log:
        print(json.dumps(told(launch)))
    failed = any(launch.error for launch in log)
    print(json.dumps({"found": [] if failed else found_where_carried(log)}))


def told(launch):
    """Say what a compiled kernel takes, and which of Hopper's instructions it has."""
    from gptwin.lab.inspect.assembly import listing, read_resources

    if launch.error:
        return {"kernel": launch.kernel, "error": launch.error}
    resources = read_resources(launch.compiled, count=True)
    wanted = re.compile(r"\b(HGMMA|UTMALDG|UTMASTG|USETMAXREG)\b")
    return {
        "kernel": launch.kernel,
        "error": "",
        "spill_bytes": resources.spill_bytes,
        "shared_bytes": resources.shared_bytes,
        "lints": [str(lint) for lint in resources.lints],
        "instructions": sorted(set(wanted.findall(listing(launch.compiled)))),
        "tensors": sorted(launch.tensors),
    }


def found_where_carried(log):
    """Call as a benchmark does, with memory, and say of each kernel whether Triton found it.

    The kernels are in a folder that was moved, with no more in it than is carried.
    """
    import triton

    from gptwin.benchmarks.inputs import draw_arguments
    from gptwin.kernels.common.launch import recording
    from gptwin.lab.inspect import ahead
    from gptwin.lab.twins.catalogue import TWINS

    found = []

    def listen(*, src, cache_hit, **_):
        found.append((src.name, cache_hit))

    with tempfile.TemporaryDirectory() as folder:
        made, carried = Path(folder, "made"), Path(folder, "carried")
        for launch in log:
            cached = triton.runtime.cache.get_cache_manager(launch.compiled.hash).cache_dir
            shutil.copytree(cached, made / Path(cached).name)
        ahead.seal(made, "sm_90")
        made.rename(carried)
        ahead.settle(carried)
        forget_what_is_in_memory()
        triton.knobs.compilation.listener = listen
        arguments = draw_arguments(TWINS["attention"], CASE, DTYPE, "cpu")
        with recording(compile_only=True):
            roots = arguments.roots(arguments.forward(TWINS["attention"].kernel))
            arguments.backward(roots, arguments.cotangents(roots))
    return found


def forget_what_is_in_memory():
    """Give the driver another device: Triton keeps what it has compiled for each."""
    from triton.runtime import driver

    driver.active.get_current_device = lambda: "the GPU that they were carried to"


if __name__ == "__main__":
    main()
