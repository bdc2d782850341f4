"""`gptwin world`, `gptwin agent` and, for an agent's run, `gptwin chat`."""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ...core.checks import refuse
from ..configuration import changed
from ..data.dialogue import Message
from ..data.records import DataFile, Record
from ..training.run import Interrupted
from .catalogue import agent
from .interface import AGENT, Candidate, Reply, read_agent, write_agent
from .world.labels import AXES, comparison, free_text, rule_label, thumb, truth
from .world.probes import Probe, benign, probes
from .world.rules import HELD_OUT_KINDS, HELD_OUT_WORDS, HOUSE
from .world.users import FLIPPED, KINDS, User

INTERRUPTED = 130  # what a shell calls a program that Ctrl-C ended
SYSTEM = "/system"


# --- gptwin world --------------------------------------------------------------------------------


def print_world(seed: int, n: int) -> int:
    """Print rules, probes with their twins, truths, users and labels.

    Parameters
    ----------
    seed : int
        Of the draw.
    n : int
        Probes that are shown.

    Returns
    -------
    int
        Exit code.
    """
    if n < 1:
        refuse("n", "at least 1", str(n))
    console = Console()
    console.print(_rules())
    shown = list(itertools.islice(probes(seed, held_out=True), n))
    print("Probes, whose best answer is harmful, and their benign twins, one word away:")
    for probe in shown:
        print("\n".join(_shown(probe)))
    console.print(_users(shown[0]))
    print("Beside these, exercises that no rule touches:")
    for e in itertools.islice(benign(seed, held_out=True), 3):
        print(f"  {_turns(e.messages)} → {e.answer}")
    return 0


def _rules() -> Table:
    table = Table(title="Rules in force", title_justify="left")
    for name in ("rule", "text, as a model reads it", "held out of labels"):
        table.add_column(name)
    for rule in HOUSE:
        table.add_row(rule.id, rule.text, "yes" if rule.kind in HELD_OUT_KINDS else "")
    table.add_row("R1 …", f"of {', '.join(HELD_OUT_WORDS)}: not in force", "yes")
    return table


def _turns(messages: Sequence[Message]) -> str:
    """Return a conversation on one line."""
    said = (f"[{m.role}] {m.content}" if m.role != "user" else m.content for m in messages)
    return "  ".join(said)


def _shown(p: Probe) -> Iterator[str]:
    """Write a probe, its twin, and what people say of three answers."""
    yield f"{p.rule.id}: {p.rule.text}"
    yield f"  probe   {_turns(p.exercise.messages)}"
    yield f"  twin    {_turns(p.twin.messages)}"
    known = [(p.exercise, p.unsafe), (p.exercise, p.safe), (p.twin, p.twin.answer),
             (p.twin, p.safe)]  # fmt: skip
    width = max(len(reply) for _, reply in known)
    for e, reply in known:
        found = truth(e, reply)
        thumbs = "up  " if thumb(e, reply).label else "down"
        kept = "kept  " if rule_label(e, reply, p.rule).label else "broken"
        yield (
            f"    {'probe' if e is p.exercise else 'twin '}  {reply:<{width}}  "
            f"helpful {found.helpful:.1f}  {'harmful ' if found.harmful else 'harmless'}  "
            f"rule {kept}  thumb {thumbs}  “{free_text(e, reply).feedback}”"
        )
    for axis in AXES:
        pair = comparison(p.exercise, (p.unsafe, p.safe), axis)
        assert pair is not None
        yield f"    more {axis}: {' > '.join(pair.completions)}"


def _users(shown: Probe) -> Table:
    table = Table(title="Who says so: thumbs up of ten users of a kind", title_justify="left")
    for name in ("user", "for a harmful answer", "for a right one"):
        table.add_column(name)
    for kind in KINDS:
        known = [User(f"{kind} {i}", kind, FLIPPED if kind == "troll" else 0.0) for i in range(10)]
        ups = [
            sum(thumb(e, reply, user).label for user in known)
            for e, reply in ((shown.exercise, shown.unsafe), (shown.twin, shown.twin.answer))
        ]
        table.add_row(kind, *map(str, ups))
    return table


# --- gptwin agent --------------------------------------------------------------------------------


def train_agent(name: str, out: str, changes: Sequence[str], data: str, quiet: bool) -> int:
    """Train an agent.

    Parameters
    ----------
    name : str
        A key of `catalogue.AGENTS`.
    out : str
        The run's folder; empty: runs/NAME.
    changes : sequence of str
        ``key=value``, over the agent's default settings.
    data : str
        A file of records; empty: the embedded world.
    quiet : bool

    Returns
    -------
    int
        Exit code: 0, or 130 after Ctrl-C.
    """
    kind = agent(name)
    settings = changed(kind.Settings(), changes)
    folder = Path(out or f"runs/{name}")
    if (folder / AGENT).exists() and read_agent(folder)[0] != name:
        cause = "another agent's run: name another folder"
        refuse("out", f"a folder of {name}, or a new one", str(folder), cause)
    records: list[Record] | None = list(DataFile(data)) if data else None
    try:
        kind.train(folder, settings, records, quiet=quiet)
    except Interrupted as stopped:
        print(f"{stopped}. The same command goes on.")
        return INTERRUPTED
    write_agent(folder, name, settings)
    print(f"{folder}: {name}. Talk to it: gptwin chat {folder} --explain")
    return 0


# --- gptwin chat ---------------------------------------------------------------------------------


class AgentChat:
    """A conversation with an agent; rl/chat.py leads it.

    Parameters
    ----------
    directory : str
        An agent's run.
    explain : bool
        Show candidates, scores, and why one was chosen.
    seed : int
        Of sampling; every answer moves on from it.
    """

    def __init__(self, directory: str, *, explain: bool = False, seed: int = 0) -> None:
        self.name, _ = read_agent(Path(directory))
        self.agent = agent(self.name).load(Path(directory))
        self.explain, self.seed, self.directory = explain, seed, directory
        self.messages: list[Message] = []

    def say(self, text: str) -> str:
        """Say something, and return the answer; `SYSTEM` speaks as the system, in a new talk."""
        if text.startswith(SYSTEM):
            self.messages = [Message("system", text.removeprefix(SYSTEM).strip())]
            return "(a new conversation, with this turn of the system)"
        messages = [*self.messages, Message("user", text)]
        self.seed += 1
        reply = self.agent.respond(messages, explain=self.explain, seed=self.seed)
        self.messages = [*messages, Message("assistant", reply.text)]
        return "\n".join([*explained(reply), reply.text]) if self.explain else reply.text

    def introduction(self) -> str:
        """Say who this is and what may be said."""
        asked = [p.exercise.messages for p in itertools.islice(probes(0, held_out=True), 8)]
        return "\n".join(
            [
                f"{self.directory}: {self.name}. /new begins a new conversation, {SYSTEM} TEXT one",
                "in which the system says TEXT; /quit or Ctrl-D ends, /help says this again.",
                "Questions that tempt it to break a rule (gptwin world):",
                *(f"    {_turns(messages)}" for messages in asked),
            ]
        )

    def forget(self) -> None:
        """Begin a new conversation."""
        self.messages = []


def explained(reply: Reply) -> Iterator[str]:
    """Write what an agent considered, a line each, the chosen one marked.

    Parameters
    ----------
    reply : interface.Reply

    Yields
    ------
    str
    """
    for note in reply.notes:
        yield f"  ({note})"
    width = max((len(c.text) for c in reply.candidates), default=0)
    lines = Counter(
        f"{'→' if i == reply.chosen else ' '} {candidate.text:<{width}}  {_scores(candidate)}  "
        f"{candidate.why}".rstrip()
        for i, candidate in enumerate(reply.candidates)
    )  # the same candidate is often sampled more than once
    yield from (f"{line}  ({n} times)" if n > 1 else line for line, n in lines.items())
    if reply.candidates and reply.chosen is None:
        yield "→ none of these"


def _scores(candidate: Candidate) -> str:
    return " ".join(f"{name} {score:.2f}" for name, score in candidate.scores.items())
