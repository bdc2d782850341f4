"""What people said of several completions of one prompt: what a reward model learns from."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Ranking:
    """A prompt, its completions, and how a labeller ranked them.

    Attributes
    ----------
    prompt : list of int
        Ids, ending where the assistant is to speak.
    completions : list of list of int
        Ids of each, the end token included.
    ranks : list of int
        Of each completion: 0 is the best, equal is a tie.
    golds : list of float
        What the completions are truly worth, where that is known: never trained on.
    """

    prompt: list[int]
    completions: list[list[int]]
    ranks: list[int]
    golds: list[float] = dataclasses.field(default_factory=list)

    def __len__(self) -> int:
        """Tokens of the longest conversation."""
        return len(self.prompt) + max(map(len, self.completions))
