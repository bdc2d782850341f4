"""How a model gets what makes it faster on a CPU: parts that take the place of `EAGER`'s.

    model = speed_up(GPT(config))

Computes the same as without, and rounds otherwise. What is put in, and what each of it earns, is
measured in docs/benchmark.md.
"""

from ..model.decoder_block import EAGER
from ..model.gpt import GPT
from .block import StraightBlock
from .loss import mean_cross_entropy
from .mlp import mlp_eager
from .tied_embedding import tied_embedding

PARTS = EAGER._replace(
    mlp=mlp_eager, embed=tied_embedding, loss=mean_cross_entropy, bind=StraightBlock
)


def speed_up(model: GPT, compiler: str = "") -> GPT:
    """Make a model faster where it lies on the CPU; elsewhere only compile it, if that is asked.

    Parameters
    ----------
    model : GPT
        Changed in place, and where it will compute.
    compiler : str
        Backend of `torch.compile`, such as "inductor", for the model's passes; empty: none. Not for
        a model that generates: each length of its cache would be compiled.

    Returns
    -------
    GPT
        The model.
    """
    if model.wte.weight.is_cpu:
        model.eager = PARTS
    if compiler:
        model.compile(backend=compiler)
    return model


def has_cpp_compiler() -> bool:
    """Say whether Inductor finds what it compiles with for a CPU.

    Returns
    -------
    bool
    """
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        return False
    return True
