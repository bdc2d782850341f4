"""gptwin: the ChatGPT training stack twice, in NumPy to be read and in Triton to be fast.

    gptwin.reference.softmax(x)     NumPy: what it means
    gptwin.ops.softmax(x)           Triton on CUDA, PyTorch on a CPU
    gptwin.GPT(gptwin.preset("gpt2"))
    gptwin.check(my_norm, torch.nn.functional.rms_norm, cases=...)      a kernel of your own

`reference` and `ops` hold the same operations under the same names. These seven names are all that
is promised; everything else is reached by its room, or by the command line. Each is imported when
it is first asked for, so that `import gptwin` costs nothing and `gptwin.reference` needs NumPy
alone.
"""

import importlib
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import ops as ops
    from . import reference as reference
    from .core.model.presets import preset as preset
    from .kernels.model.gpt import GPT as GPT
    from .lab.own.check import check as check
    from .lab.own.declare import twin as twin
    from .rl.stages.generation import generate as generate

__version__ = "0.1.0"
__all__ = ["GPT", "__version__", "check", "generate", "ops", "preset", "reference", "twin"]

# A name, and the module that it is in or is.
_HOMES = {
    "reference": ".reference",
    "ops": ".ops",
    "preset": ".core.model.presets",
    "GPT": ".kernels.model.gpt",
    "generate": ".rl.stages.generation",
    "check": ".lab.own.check",
    "twin": ".lab.own.declare",
}


def __dir__() -> list[str]:
    """List what is promised, imported or not."""
    return sorted({*globals(), *__all__})


# Hidden from type checkers, which would take it that every name is there.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Import a promised name when it is first asked for (PEP 562)."""
        if name not in _HOMES:
            raise AttributeError(
                f"module {__name__!r} has no attribute {name!r}: it has {', '.join(_HOMES)}; "
                "operations are in gptwin.reference (NumPy) and gptwin.ops (PyTorch, Triton)",
                name=name,
                obj=sys.modules[__name__],
            )
        home = importlib.import_module(_HOMES[name], __name__)
        found = home if _HOMES[name] == f".{name}" else getattr(home, name)
        globals()[name] = found
        return found
