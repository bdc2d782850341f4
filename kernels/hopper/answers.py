"""What the door answered while cases ran, for instruments: a case may run none of these kernels.

A call that they do not serve runs the plain kernels, and is right. Who verifies with the switch on
wants to know how often that was so, and why.
"""

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator

import torch

from ...core.checks import refuse
from ..common.launch import INTERPRETED
from . import serving

# What each of them finds.
KERNELS = {
    "hopper_attention_forward_kernel": "forward",
    "hopper_attention_backward_key_value_kernel": "d_key and d_value",
    "hopper_attention_backward_query_kernel": "d_query",
}


@dataclasses.dataclass
class Answers:
    """Of some cases.

    Attributes
    ----------
    launched : Counter
        Cases by kernel.
    refused : Counter
        Cases by the reason why the plain kernels ran.
    """

    launched: Counter[str] = dataclasses.field(default_factory=Counter)
    refused: Counter[str] = dataclasses.field(default_factory=Counter)

    def add_case(self, said: Iterable[str], launched: Iterable[str]) -> None:
        """Count a case, by what the door said of its calls and by the kernels that it launched."""
        self.launched.update(KERNELS.keys() & set(launched))
        if reasons := [why for why in said if why]:
            self.refused[reasons[0]] += 1

    def add(self, others: "Answers") -> None:
        """Count what others have counted."""
        self.launched.update(others.launched)
        self.refused.update(others.refused)

    def reasons(self) -> str:
        """Say why cases ran the plain kernels, the most frequent reasons first."""
        why = [f"{reason} ({n} cases)" for reason, n in self.refused.most_common(3)]
        more = len(self.refused) - len(why)
        return "; ".join([*why, f"{more} more reasons"] if more > 0 else why)

    def missing(self, *, whole: bool) -> str:
        """Say what was not proved of these kernels, and why; nothing if all is.

        Parameters
        ----------
        whole : bool
            Whether every kernel is to be launched; of a single case one is enough.

        Returns
        -------
        str
        """
        left = [part for kernel, part in KERNELS.items() if not self.launched[kernel]]
        if not left or (self.launched and not whole):
            return ""
        what = "attention's kernels for Hopper" if len(left) == len(KERNELS) else " and ".join(left)
        why = self.reasons() or "none calls attention"
        return f"{serving.VARIABLE}=1 was asked for, and no case ran {what}: {why}"

    def __str__(self) -> str:
        """Say what ran."""
        counts = ", ".join(f"{part} {self.launched[kernel]}" for kernel, part in KERNELS.items())
        plain = f"; the plain ones: {self.reasons()}" if self.refused else ""
        return f"attention's kernels for Hopper, cases: {counts}{plain}"


@contextlib.contextmanager
def heard() -> Iterator[list[str]]:
    """Hear what the door says of each call while the context lasts, in all threads.

    Yields
    ------
    list of str
        Why not, or "" where these kernels serve.
    """
    said: list[str] = []
    listen = said.append
    serving.listeners.append(listen)
    try:
        yield said
    finally:
        serving.listeners.remove(listen)


def why_not_here() -> str:
    """Say why none of these kernels can be run in this process; nothing if they can.

    Returns
    -------
    str
    """
    if INTERPRETED:
        return "Triton's interpreter"
    if not torch.cuda.is_available():
        return "no GPU"
    if torch.version.hip is not None:
        return "a GPU of AMD"
    major, minor = torch.cuda.get_device_capability()
    return "" if (major, minor) == (9, 0) else f"a GPU of capability {major}.{minor}"


def expect_here() -> None:
    """Refuse to verify where these kernels are asked for and cannot run.

    Raises
    ------
    ValueError
    """
    if serving.asked_for() and (here := why_not_here()):
        refuse(
            serving.VARIABLE,
            "a GPU of capability 9.0, where alone kernels for Hopper can be verified",
            here,
            "unset it to verify the others; gptwin barriers plays these without a GPU",
        )
