"""Compile the kernels for Hopper for a GPU that is not there; run by test_compiled.py.

A process of its own: one that has run Triton's interpreter cannot compile. Prints a line of JSON
for each kernel.
"""

import json
import os
import re

# What needs the most registers; all there is: GPTWIN_HOPPER=1 gptwin inspect attention --arch sm_90
N_HEAD, N_KV_HEAD, D_HEAD = 4, 2, 128


def main():
    os.environ["TRITON_INTERPRET"] = "0"
    os.environ["GPTWIN_HOPPER"] = "1"
    from gptwin.lab.inspect.targets import compile_for

    compile_for("sm_90")
    import torch

    from gptwin.kernels.common.launch import recording
    from gptwin.ops import attention

    tensors = [
        torch.empty(
            *(1, heads, 1024, D_HEAD), dtype=torch.bfloat16, device="meta", requires_grad=True
        )
        for heads in (N_HEAD, N_KV_HEAD, N_KV_HEAD)
    ]
    with recording(compile_only=True) as log:
        output, _ = attention(*tensors, causal=True)
        torch.autograd.grad(output, tensors, torch.empty_like(output))
    for launch in log:
        print(json.dumps(told(launch)))


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


if __name__ == "__main__":
    main()
