"""Examples that a model's context has no room for: counted before the first step, never in it."""

import dataclasses
import os
import sys
from collections.abc import Callable, Sequence, Sized
from typing import TypeVar

from ...core.checks import refuse

Item = TypeVar("Item", bound=Sized)
SHOWN = 5  # lines that are named


@dataclasses.dataclass(frozen=True)
class Room:
    """How long an example may be, and what becomes of one that is longer.

    Attributes
    ----------
    stage : str
        Whose setting `on_long` decides.
    where : str
        The file, or what the examples are.
    tokens : int
        The most that an example may have.
    on_long : str
        "error", "truncate" or "drop".
    """

    stage: str
    where: str
    tokens: int
    on_long: str

    def fitted(
        self,
        items: Sequence[Item],
        lines: Sequence[int],
        shorten: Callable[[Item, int], Item | None],
    ) -> list[Item]:
        """Return the examples that fit, and say what became of the others.

        Parameters
        ----------
        items : sequence
            `len` says how many tokens each has.
        lines : sequence of int
            Of the file, from 1: where each example is.
        shorten : callable
            `(item, tokens)` returns an example of so many tokens; None if that cannot be.

        Returns
        -------
        list

        Raises
        ------
        ValueError
            If one is too long and `on_long` is "error", or if none is left.
        """
        long = [i for i, item in enumerate(items) if len(item) > self.tokens]
        if not long:
            return list(items)
        if self.on_long == "error":
            way = f'{self.stage}.on_long="truncate" or "drop" goes on, or a larger n_ctx'
            refuse(self.where, f"at most {self.tokens} tokens in each, which the model has room "
                   "for", self._described(items, lines, long), way)  # fmt: skip
        kept: dict[int, Item | None] = dict(enumerate(items))
        for i in long:
            kept[i] = shorten(items[i], self.tokens) if self.on_long == "truncate" else None
        found = [item for item in kept.values() if item is not None]
        if os.environ.get("RANK", "0") == "0":
            dropped = len(items) - len(found)
            print(
                f"{self.where}: {self._described(items, lines, long)}: "
                f"{len(long) - dropped} truncated, {dropped} dropped",
                file=sys.stderr,
            )
        if not found:
            refuse(self.where, f"an example of at most {self.tokens} tokens", "none")
        return found

    def _described(self, items: Sequence[Item], lines: Sequence[int], long: list[int]) -> str:
        first = ", ".join(str(lines[i]) for i in long[:SHOWN])
        more = ", …" if len(long) > SHOWN else ""
        longest = max(len(items[i]) for i in long)
        return (
            f"{len(long)} of {len(items)} that are longer (lines {first}{more}; the longest has "
            f"{longest} tokens)"
        )
