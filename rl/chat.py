"""Talking to a model that the pipeline made."""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

from ..core.checks import refuse
from .configuration import load
from .data.dialogue import Message, Template
from .data.sources import Prompt, drawn
from .data.tasks import FAMILIES
from .formats.model import model_of, read_gpt2
from .judging.best_of_n import best_of_n
from .stages.generation import generate
from .stages.reward_model import Score, scoring
from .stages.scorer import SCORER, load_scorer
from .training.inputs import read_ended
from .training.run import SETTINGS

FORGET = "/new"
HELP = "/help"
LEAVE = "/quit"
COMMANDS = f"{FORGET} begins a new conversation, {LEAVE} or Ctrl-D ends, {HELP} says this again."


def find_model(directory: str) -> Path:
    """Find the last model of a run's chain.

    Parameters
    ----------
    directory : str
        A run's folder, a stage's folder, or a model's own.

    Returns
    -------
    pathlib.Path
        A folder in Hugging Face's layout: PPO's model if there is one, else SFT's.

    Raises
    ------
    ValueError
        If there is none that can chat.
    """
    root = Path(directory)
    for folder in (root, root / "model", root / "ppo/model", root / "sft/model"):
        if (folder / "model.safetensors").exists():
            return folder
    cause = "no run there: make chatgpt, or gptwin train all"
    refuse("model", "a folder with a model that has learnt to chat", directory, cause)


def find_scorer(model: Path) -> Path:
    """Find the reward model of the run that a model is of.

    Parameters
    ----------
    model : pathlib.Path
        From `find_model`.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    ValueError
        If there is none.
    """
    file = model.parent.parent / "reward" / SCORER
    if not file.exists():
        cause = "a model without its run, or a run whose stage reward has not ended"
        refuse("best_of", "1, where there is no reward model to pick", f"no {file}", cause)
    return file


def _expect_as_left(file: Path) -> None:
    """Refuse a file, or a folder of files, that is not as the stage left it in whose folder it is.

    A model that is not of a run has no `ended.json` beside it, and is taken as it is.
    """
    ended = read_ended(file.parent)
    for name in ended.damaged(file.parent) if ended else []:
        if name.partition("/")[0] == file.name:
            cause = "a damaged disk, or an edit: gptwin train --resume writes it again"
            refuse(
                str(file.parent / name), f"the file that {file.parent.name} left", "another", cause
            )


def _check_options(temperature: float, max_new_tokens: int | None, best_of: int) -> None:
    if not 0 <= temperature < math.inf:
        refuse("temperature", "at least 0", str(temperature))
    if max_new_tokens is not None and max_new_tokens < 1:
        refuse("max_new_tokens", "at least 1", str(max_new_tokens))
    if best_of < 1:
        refuse("best_of", "at least 1", str(best_of))


class Chat:
    """A conversation with a model.

    Parameters
    ----------
    directory : str
        As in `find_model`.
    temperature : float
        0: always the likeliest token.
    max_new_tokens : int, optional
        Tokens an answer may have; default: a quarter of the context, the rest is for what was said.
    seed : int
        Of sampling; every answer moves on from it.
    best_of : int
        Answers sampled, of which the run's reward model picks one; with a temperature of 0, at 1.

    Raises
    ------
    ValueError
        If there is no model that can chat, it is not as its run left it, or an option has no
        meaning.
    """

    def __init__(
        self,
        directory: str,
        *,
        temperature: float = 0.0,
        max_new_tokens: int | None = None,
        seed: int = 0,
        best_of: int = 1,
    ) -> None:
        _check_options(temperature, max_new_tokens, best_of)
        folder = self.folder = find_model(directory)
        _expect_as_left(folder)
        tokenizer, config, parameters = read_gpt2(folder)
        if max_new_tokens is not None and max_new_tokens >= config.n_ctx:
            expected = f"below the model's n_ctx = {config.n_ctx}, to leave room for what is said"
            refuse("max_new_tokens", expected, str(max_new_tokens))
        self.model = model_of(config, parameters)
        self.template = Template(tokenizer)
        self.temperature, self.seed = temperature, seed
        self.max_new_tokens = max_new_tokens or max(1, config.n_ctx // 4)
        self.messages: list[Message] = []
        self.best_of = best_of
        self.score: Score | None = None
        if best_of > 1:
            self.temperature = temperature or 1.0
            file = find_scorer(folder)
            _expect_as_left(file)
            scorer = load_scorer(file, config).to(self.model.wte.weight.device)
            self.score = scoring(scorer, self.template.pad)

    def say(self, text: str) -> str:
        """Say something, and return the answer.

        Parameters
        ----------
        text : str
            The user's turn.

        Returns
        -------
        str
        """
        message = Message("user", text)
        self.template.prompt([message])  # what cannot be encoded is not kept
        self.messages.append(message)
        prompt = self.template.prompt(self.messages)
        room = self.model.config.n_ctx - self.max_new_tokens
        while len(prompt) > room and len(self.messages) > 1:
            del self.messages[0]  # the oldest turn is forgotten first
            prompt = self.template.prompt(self.messages)
        if len(prompt) > room:
            del self.messages[-1]
            refuse("message", f"at most {room} tokens", f"{len(prompt)}", "a short-context model")
        self.seed += 1
        answer = self.template.text(self._answer(prompt))
        self.messages.append(Message("assistant", answer))
        return answer

    def _answer(self, prompt: list[int]) -> list[int]:
        options: dict[str, Any] = {"temperature": self.temperature, "seed": self.seed}
        if self.score is None:
            said = generate(
                self.model, [prompt], max_new_tokens=self.max_new_tokens,
                stop_tokens=(self.template.end,), **options,
            )  # fmt: skip
            return said.token_lists()[0]
        prompts = [Prompt(prompt, tuple(self.messages))]
        (choice,) = best_of_n(
            self.model, self.template, self.score, prompts, self.best_of,
            max_response=self.max_new_tokens, **options,
        )  # fmt: skip
        return choice.best

    def introduction(self) -> str:
        """Say who this is and, of a model of the embedded exercises, what it may be asked."""
        size = sum(parameter.numel() for parameter in self.model.parameters())
        lines = [f"{self.folder}: {size / 1e6:.1f} million parameters. {COMMANDS}"]
        settings = self.folder.parent / SETTINGS
        if settings.exists() and not load(str(settings)).sft.data:
            lines += [
                "It has learnt eight kinds of exercise, one to a conversation (begin the next with",
                f"{FORGET}), and answers anything else with nonsense:",
                *(f"    {question}" for question in examples()),
            ]
        return "\n".join(lines)

    def forget(self) -> None:
        """Begin a new conversation."""
        self.messages.clear()


class Talk(Protocol):
    """Who can be talked to: `Chat`, or a dialogue agent's (rl/agents/console.py)."""

    def say(self, text: str) -> str:
        """Say something, and return the answer."""

    def introduction(self) -> str:
        """Say who this is."""

    def forget(self) -> None:
        """Begin a new conversation."""


def converse(chat: Talk, lines: Iterable[str]) -> Iterator[str]:
    """Answer lines of input until they end or the user leaves.

    Parameters
    ----------
    chat : Talk
    lines : iterable of str
        What the user says; `FORGET` begins anew, `HELP` shows the introduction, `LEAVE` ends.

    Yields
    ------
    str
        What to show.
    """
    for line in lines:
        text = line.strip()
        if text == LEAVE:
            return
        if text == HELP:
            yield chat.introduction()
        elif text == FORGET:
            chat.forget()
            yield "(a new conversation)"
        elif text:
            try:
                yield chat.say(text)
            except ValueError as error:  # too long: say so, and go on
                yield f"({error})"


def examples() -> list[str]:
    """Return what the user says in one exercise of each family, in the order of the families."""
    return [
        "  …  ".join(m.content for m in exercise.messages if m.role == "user")
        for exercise in drawn(0, len(FAMILIES), held_out=True)
    ]
