"""Estimate again what others have published, and keep it: `python published.py sm_90 [KERNEL]...`.

Not tests. Compiles published_kernels.py in this process, which a GPU need not be there for, and
writes published.jsonl, and below sass/ the machine code of each hot loop, which the tests read.
"""

import json
import os
import sys
from pathlib import Path

if __name__ == "__main__":  # the tests import the table, where kernels are interpreted
    os.environ["TRITON_INTERPRET"] = "0"
HERE = Path(__file__).parent
TABLE = HERE / "published.jsonl"
TUTORIAL = "Triton's tutorial 06 on H100, 16k, TFLOP/s"
# Kernel, shape, architecture, whether in TFLOP/s, what was published, and where.
POINTS = (
    ("ATTENTION_64", "16k", "sm_90", 403, "TFLOP/s", TUTORIAL),
    ("ATTENTION_64", "16k, causal", "sm_90", 363, "TFLOP/s", TUTORIAL),
    ("ATTENTION_128", "16k", "sm_90", 395, "TFLOP/s", TUTORIAL),
    ("ATTENTION_128", "16k, causal", "sm_90", 378, "TFLOP/s", TUTORIAL),
    ("ATTENTION_128", "16k", "sm_90", 420, "TFLOP/s", "the same, pytorch/benchmark#2296, 2024"),
    ("ATTENTION_64", "16k", "sm_80", 187, "TFLOP/s", "the same on A100, flash-attention#307"),
    ("ATTENTION_128_NARROW", "16k, causal", "sm_80", 188, "TFLOP/s", "flash-attention#307"),
    ("NORM", "1k", "sm_90", 18.8, "µs", "Liger's layer norm on H100, 4,096 rows"),
    ("NORM", "4k", "sm_90", 51, "µs", "Liger's layer norm on H100, 4,096 rows"),
    ("NORM", "16k", "sm_90", 185, "µs", "Liger's layer norm on H100, 4,096 rows"),
    ("NORM", "1k", "sm_80", 30, "µs", "Liger's layer norm on A100, 4,096 rows"),
    ("NORM", "4k", "sm_80", 88, "µs", "Liger's layer norm on A100, 4,096 rows"),
    ("NORM", "16k", "sm_80", 322, "µs", "Liger's layer norm on A100, 4,096 rows"),
    ("LOSS", "4k", "sm_80", 530, "µs", "Liger's cross-entropy on A100, 16,384 rows"),
    ("LOSS", "16k", "sm_80", 1430, "µs", "Liger's cross-entropy on A100, 16,384 rows"),
    ("LOSS", "32k", "sm_80", 2840, "µs", "Liger's cross-entropy on A100, 16,384 rows"),
    ("LOSS", "128k", "sm_80", 15000, "µs", "Liger's cross-entropy on A100, 16,384 rows"),
)


def main(arch: str, *kernels: str) -> None:
    """Estimate one architecture's points, or some; this process can compile for no other."""
    from gptwin.lab.inspect.targets import compile_for

    compile_for(arch)
    sys.path.insert(0, str(HERE))
    import published_kernels

    from gptwin.lab.inspect.assembly import listing
    from gptwin.lab.inspect.inspect import compile_case
    from gptwin.lab.inspect.sass import loops, parse
    from gptwin.lab.predict.predict import estimate_launch

    done: dict[tuple[str, str], dict] = {}
    for kernel, shape, of, published, unit, source in POINTS:
        if of != arch or (kernels and kernel not in kernels):
            continue
        if (kernel, shape) not in done:
            twin = getattr(published_kernels, kernel).as_twin(kernel, try_it=False)
            log: list = []
            case = twin.shapes[shape]
            compile_case(twin, case, twin.dtypes[0], log, backward=False)
            about = {"arch": arch, "operation": kernel, "dtype": twin.dtypes[0], "shape": shape,
                     "direction": "forward"}  # fmt: skip
            row = estimate_launch(about, 0, log[0])
            assert row.seconds is not None, row.unknown
            file = ""
            if row.loops and unit == "TFLOP/s":  # of the others memory is what binds
                file = f"{kernel.lower()}-{shape.replace(', ', '-')}-{arch}.sass"
                code = listing(log[0].compiled)
                program = parse(code)
                hot = next(x for x in loops(program) if (x.first, x.last) == row.loops[0].addresses)
                (HERE / "sass" / file).write_text(excerpt(code, program, hot))
            flops = twin.cost(case, 2)[0].flops
            done[kernel, shape] = {
                "seconds": row.seconds, "flops": flops, "registers": row.resources.registers,
                "blocks": row.blocks, "warps": row.resources.warps, "loop": file,
            }  # fmt: skip
        found = done[kernel, shape]
        seconds = found["seconds"][0]
        estimate = found["flops"] / seconds / 1e12 if unit == "TFLOP/s" else seconds * 1e6
        told = {"kernel": kernel, "shape": shape, "arch": arch, "unit": unit, "source": source,
                "published": published, "estimated": round(estimate, 1),
                "ratio": round(estimate / published, 3), "by": "model"}  # fmt: skip
        print(json.dumps(told), flush=True)
        told |= {k: found[k] for k in ("registers", "blocks", "warps", "loop")}
        keep(told | {"cycles": cycles_of(told) if told["loop"] else None})


def cycles_of(row: dict) -> list[float]:
    """Play a stored loop through, alone: mean, least and most cycles of a turn."""
    from gptwin.lab.inspect.sass import loops, parse
    from gptwin.lab.predict.machines import MACHINES
    from gptwin.lab.predict.simulate import steady

    program = parse((HERE / "sass" / row["loop"]).read_text())
    (loop,) = [x for x in loops(program) if x.innermost]
    found = steady(
        program, loop, MACHINES[row["arch"]], blocks=row["blocks"], warps=row["warps"], phases=2,
        turns=12,
    )  # fmt: skip
    return [round(c, 3) for c in (found.mean, found.least, found.most)]


def excerpt(code: str, program: list, loop) -> str:
    """Cut one loop out of what nvdisasm printed, without its columns of spaces."""
    first, last = (f"/*{program[i].address:04x}*/" for i in (loop.first, loop.last))
    lines = code.splitlines()
    begin = next(i for i, line in enumerate(lines) if first in line)
    end = next(i for i, line in enumerate(lines) if last in line)
    while not lines[begin].startswith(".L"):
        begin -= 1
    kept = [line for line in lines[begin : end + 2] if "//##" not in line]
    return "".join(
        (line if line.startswith(".L") else " " + " ".join(line.split())) + "\n" for line in kept
    )


def keep(row: dict) -> None:
    """Store a point in place of an earlier estimate of it."""
    rows = [json.loads(line) for line in TABLE.read_text().splitlines()] if TABLE.exists() else []
    key = ("kernel", "shape", "arch", "source")
    rows = [r for r in rows if [r[k] for k in key] != [row[k] for k in key]] + [row]
    TABLE.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows))


if __name__ == "__main__":
    (HERE / "sass").mkdir(exist_ok=True)
    main(*sys.argv[1:])
