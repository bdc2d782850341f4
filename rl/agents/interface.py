"""What a dialogue agent is, and what it says: an answer, and why this one.

    agent = Lamda.train(Path("runs/lamda"), Settings())      # or with records of your own
    reply = agent.respond((Message("user", "Say: tree moon"),), explain=True)
    reply.text                 I cannot say that.
    reply.candidates[0]        tree moon     {"safe": 0.08, ...}    below the threshold of 0.9
    reply.chosen               3

Every agent samples or decides in its own way; what it considered it shows alike. A run's folder
holds `agent.json`, which names the agent, and a folder for each of its stages, made as the stages
of `gptwin train` are (run.py).
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ...core.checks import refuse
from ...records import write_whole
from ..data.dialogue import Message
from ..data.records import Record

AGENT = "agent.json"
Messages = Sequence[Message]


@dataclasses.dataclass(frozen=True)
class Candidate:
    """Something that an agent could have said, or did on its way to an answer.

    Attributes
    ----------
    text : str
    scores : mapping of str to float
        What the agent's own judges think of it, by their names.
    why : str
        Why it was taken or left, in a few words.
    """

    text: str
    scores: Mapping[str, float] = dataclasses.field(default_factory=dict)
    why: str = ""


@dataclasses.dataclass(frozen=True)
class Reply:
    """What an agent says.

    Attributes
    ----------
    text : str
        The answer.
    candidates : tuple of Candidate
        What was considered, in the order in which it was sampled.
    chosen : int or None
        Which of them the answer is; None where it is none of them, such as a canned refusal.
    notes : tuple of str
        What happened on the way: a tool that was asked, a memory that was written.
    ended : bool
        Whether the model ended it by itself.
    """

    text: str
    candidates: tuple[Candidate, ...] = ()
    chosen: int | None = None
    notes: tuple[str, ...] = ()
    ended: bool = True


SomeAgent = TypeVar("SomeAgent", bound="Agent")


class Agent(Protocol):
    """A dialogue agent.

    Attributes
    ----------
    name : str
        Its name in the catalogue.
    Settings : type
        A frozen dataclass of its settings, each with a bound (rl/bounds.py); `base` among them is
        `base.BaseSettings`.
    """

    name: str
    Settings: type

    @classmethod
    def train(
        cls: type[SomeAgent],
        folder: Path,
        settings: Any,
        records: Sequence[Record] | None = None,
        *,
        quiet: bool = False,
    ) -> SomeAgent:
        """Train in a folder; stages that have ended there are read, one that was cut goes on.

        Parameters
        ----------
        folder : pathlib.Path
            The run's.
        settings : Settings
        records : sequence of Record, optional
            The user's own; default: drawn from the embedded world.
        quiet : bool
            No progress bars.

        Returns
        -------
        Agent
        """

    @classmethod
    def load(cls: type[SomeAgent], folder: Path) -> SomeAgent:
        """Read an agent that `train` left."""

    def respond(self, messages: Messages, *, explain: bool = False, seed: int = 0) -> Reply:
        """Answer a conversation.

        Parameters
        ----------
        messages : sequence of Message
            The turns so far; the last is not the assistant's.
        explain : bool
            Say of each candidate why it was taken or left; scores and candidates are there anyway.
        seed : int
            Of sampling.

        Returns
        -------
        Reply
        """


def write_agent(folder: Path, name: str, settings: Any) -> None:
    """Say in a run's folder which agent it is of, and with which settings."""
    folder.mkdir(parents=True, exist_ok=True)
    said = {"agent": name, "settings": dataclasses.asdict(settings)}
    write_whole(folder / AGENT, json.dumps(said, indent=1) + "\n")


def read_agent(folder: Path) -> tuple[str, dict[str, Any]]:
    """Read what `write_agent` wrote.

    Parameters
    ----------
    folder : pathlib.Path
        An agent's run.

    Returns
    -------
    name, settings : str, dict

    Raises
    ------
    ValueError
        If there is no agent.
    """
    try:
        said = json.loads((folder / AGENT).read_text(encoding="utf-8"))
        return said["agent"], said["settings"]
    except (OSError, ValueError, KeyError) as error:
        cause = "no agent's run: gptwin agent NAME --out DIR makes one"
        refuse("run", f"a folder with {AGENT}", f"{folder}: {error}", cause)
