"""A GPT as what techniques ask: text in, text out, whole batches at once."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from ...core.checks import refuse
from ...kernels.model.gpt import GPT
from ..data.dialogue import SPACE
from ..formats.model import model_of, read_gpt2
from ..formats.tokenizer import Tokenizer
from ..formats.tokenizer_files import END_OF_TEXT
from ..stages.generation import generate
from .interface import Call, Said

AT_ONCE = 512  # prompts, by which the cache grows


class Speaker:
    """A model with its tokenizer. A `Model` of interface.py.

    A prompt gets a space in front, so that its first word is the same token as anywhere else; a
    reply ends with the token <|endoftext|>.

    Parameters
    ----------
    model : GPT
        In evaluation mode.
    tokenizer : Tokenizer
        Must know <|endoftext|>.
    seed : int
        Of sampling; every batch moves on from it.
    """

    def __init__(self, model: GPT, tokenizer: Tokenizer, seed: int = 0) -> None:
        if END_OF_TEXT not in tokenizer.special_tokens:
            refuse("tokenizer", f"one that knows {END_OF_TEXT}", "one without", "a chat's alone")
        self.model, self.tokenizer, self.seed = model, tokenizer, seed
        self.end = tokenizer.special_tokens[END_OF_TEXT]

    def say(self, calls: Sequence[Call]) -> list[list[Said]]:
        """Reply to each call as often as it asks.

        Parameters
        ----------
        calls : sequence of Call

        Returns
        -------
        list of list of Said

        Raises
        ------
        ValueError
            If a prompt and its limit do not fit into the context together.
        """
        replies: list[list[Said]] = [[] for _ in calls]
        alike: dict[tuple[float, int], list[int]] = defaultdict(list)
        for i, call in enumerate(calls):
            alike[call.temperature, call.limit] += [i] * call.n
        for (temperature, limit), numbers in alike.items():
            for start in range(0, len(numbers), AT_ONCE):
                part = numbers[start : start + AT_ONCE]
                self.seed += 1
                said = self._continued([calls[i].prompt for i in part], temperature, limit)
                for i, reply in zip(part, said, strict=True):
                    replies[i].append(reply)
        return replies

    def encode(self, text: str) -> list[int]:
        """Return a text's ids, with a space before its first word."""
        return self.tokenizer.encode(SPACE + text)

    def _continued(self, prompts: Sequence[str], temperature: float, limit: int) -> list[Said]:
        ids = [self.encode(prompt) for prompt in prompts]
        room = self.model.config.n_ctx - limit
        longest = max(map(len, ids))
        if longest > room:
            cause = "more documents or rounds than the model's context holds"
            refuse(
                "prompt",
                f"at most {room} tokens, to leave {limit} for a reply",
                str(longest),
                cause,
            )
        said = generate(
            self.model, ids, max_new_tokens=limit, temperature=temperature, seed=self.seed,
            stop_tokens=(self.end,),
        )  # fmt: skip
        log_probs = said.log_probs.sum(1).tolist()
        return [
            Said(
                self.tokenizer.decode(t for t in tokens if t != self.end).strip(),
                log_prob, len(read), len(tokens), self.end in tokens,
            )
            for read, tokens, log_prob in zip(ids, said.token_lists(), log_probs, strict=True)
        ]  # fmt: skip


def load_speaker(folder: Path, seed: int = 0) -> Speaker:
    """Read a model in Hugging Face's layout, with its tokenizer.

    Parameters
    ----------
    folder : pathlib.Path
        Holds both.
    seed : int
        Of sampling.

    Returns
    -------
    Speaker

    Raises
    ------
    ValueError
        If a file is missing or damaged.
    """
    tokenizer, config, parameters = read_gpt2(folder)
    return Speaker(model_of(config, parameters), tokenizer, seed)
