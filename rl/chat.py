"""Talking to a model that the pipeline made."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch

from ..core.checks import refuse
from ..kernels.gpt import GPT
from .dialogue import Message, Template
from .generation import generate
from .tokenizer import Tokenizer
from .weights import load_gpt2

FORGET = "/new"
LEAVE = "/quit"


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


class Chat:
    """A conversation with a model.

    Parameters
    ----------
    directory : str
        As in `find_model`.
    temperature : float
        0: always the likeliest token.
    max_new_tokens : int
        Tokens an answer may have.
    seed : int
        Of sampling; every answer moves on from it.
    """

    def __init__(
        self, directory: str, *, temperature: float = 0.0, max_new_tokens: int = 64, seed: int = 0
    ) -> None:
        folder = find_model(directory)
        config, parameters = load_gpt2(folder, framework="torch")
        self.model = GPT(config)
        self.model.load_state_dict(parameters)
        self.model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
        self.template = Template(Tokenizer.load(folder))
        self.temperature, self.max_new_tokens, self.seed = temperature, max_new_tokens, seed
        self.messages: list[Message] = []

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
        self.messages.append(Message("user", text))
        prompt = self.template.prompt(self.messages)
        room = self.model.config.n_ctx - self.max_new_tokens
        while len(prompt) > room and len(self.messages) > 1:
            del self.messages[0]  # the oldest turn is forgotten first
            prompt = self.template.prompt(self.messages)
        if len(prompt) > room:
            del self.messages[-1]
            refuse("message", f"at most {room} tokens", f"{len(prompt)}", "a short-context model")
        self.seed += 1
        said = generate(
            self.model,
            [prompt],
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            stop_tokens=(self.template.end,),
            seed=self.seed,
        )
        answer = self.template.text(said.token_lists()[0])
        self.messages.append(Message("assistant", answer))
        return answer

    def forget(self) -> None:
        """Begin a new conversation."""
        self.messages.clear()


def converse(chat: Chat, lines: Iterable[str]) -> Iterator[str]:
    """Answer lines of input until they end or the user leaves.

    Parameters
    ----------
    chat : Chat
    lines : iterable of str
        What the user says; `FORGET` begins anew, `LEAVE` ends.

    Yields
    ------
    str
        What to show.
    """
    for line in lines:
        text = line.strip()
        if text == LEAVE:
            return
        if text == FORGET:
            chat.forget()
            yield "(a new conversation)"
        elif text:
            yield chat.say(text)
