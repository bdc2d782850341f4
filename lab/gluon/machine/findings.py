"""What the model can find, and how it reads."""

import dataclasses

# Kind: what it means, and the likely cause where nothing more is known.
KINDS = {
    "deadlock": (
        "waits for a phase that never ends",
        "an arrival that is missing, a wrong phase, or a count that is too high",
    ),
    "read before it is filled": (
        "reads shared memory, and nothing orders what fills it before that",
        "a wait for the barrier of the copy that is missing or asks for the wrong phase",
    ),
    "overwritten while read": (
        "writes shared memory that may still be read",
        "an arrival that comes before the reads have ended, or a wait for it that is missing",
    ),
    "unordered writes": (
        "two writes of the same shared memory, in no order",
        "a wait for the buffer to be free that is missing",
    ),
    "missing fence": (
        "the async proxy (TMA, warpgroup_mma) does not see what registers did to shared memory",
        "a fence_async_shared() that is missing between the two",
    ),
    "arrives too early": (
        "arrives at a barrier whose phase before may not have ended: it may count for that one",
        "a wait that is missing before the arrival, or a phase that is wrong",
    ),
    "arrives too often": (
        "arrives at a barrier more often than its count",
        "mbarrier.init with too low a count, or an arrival too many",
    ),
    "wait passes early": (
        "waits for a phase, and may find the one two before, which has the same parity",
        "a wait that is missing before it, or a phase that is wrong",
    ),
    "phase missed": (
        "waits for a phase, and the next may end before it looks: then it waits for ever",
        "nobody tells those who arrive that this wait is over",
    ),
    "wrong bytes": (
        "a barrier expects other bytes than its copies bring",
        "mbarrier.expect with the size of another block",
    ),
    "not initialised": (
        "uses a barrier that is not initialised, or not yet for this partition",
        "mbarrier.init that is missing, or comes after warp_specialize",
    ),
    "used before its wait": (
        "uses the result of a warpgroup_mma that may still be running",
        "warpgroup_mma_wait that is missing, or leaves too many in flight",
    ),
    "in flight at the end": (
        "the program may end while this still touches its shared memory",
        "tma.store_wait(0), mbarrier.wait or warpgroup_mma_wait(0) that is missing at the end",
    ),
    "out of bounds": (
        "touches memory outside the tensor",
        "a mask that is missing, or a wrong stride",
    ),
    "failure": ("the kernel raised", ""),
}


@dataclasses.dataclass(eq=False)
class Finding:
    """One fault.

    Attributes
    ----------
    kind : str
        One of `KINDS`.
    where : str
        "file:line" of the kernel, and the lines of the calls that led there.
    kernel : str
        The launched kernel.
    program : tuple of int
        The first program that did it.
    partition : str
        The function that `warp_specialize` started, or the kernel.
    buffer : str
        The barrier or the shared memory, such as "k_full[1]"; "" if it is about none.
    detail : str
        What else is known, such as the other side of a race.
    count : int
        How often it was found.
    """

    kind: str
    where: str
    kernel: str
    program: tuple[int, ...]
    partition: str
    buffer: str
    detail: str
    count: int = 1

    @property
    def key(self) -> tuple[str, str, str, str]:
        """Kind, line, partition and buffer: what is found again is counted, not told again."""
        return self.kind, self.where, self.partition, self.buffer.partition("[")[0]

    def __str__(self) -> str:
        """Say it in a few lines."""
        meaning, cause = KINDS[self.kind]
        times = f", {self.count:,} times" if self.count > 1 else ""
        buffer = f"{self.buffer}: " if self.buffer else ""
        lines = [
            f"{self.where}: {self.kind}: {buffer}{meaning}",
            f"kernel {self.kernel}, program {self.program}, partition {self.partition}{times}",
            self.detail,
            cause and f"likely: {cause}",
        ]
        return "\n    ".join(filter(None, lines))
