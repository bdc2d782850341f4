"""What `gptwin train` and `gptwin chat` do, between the command line and the pipeline."""

import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..core.checks import refuse
from .agents.console import AgentChat
from .agents.interface import AGENT
from .chat import Chat, Talk, converse
from .configuration import Configuration, load
from .pipeline import STAGES, Pipeline
from .ranks.group import join, leave
from .studies import chatgpt, lineage
from .training.run import Interrupted

# What trains more than a chain, at settings of its own.
WHOLE = {
    "chatgpt": (chatgpt.SMALL, chatgpt.make_chatgpt),
    "lineage": (lineage.SMALL, lineage.make_lineage),
}
INTERRUPTED = 130  # what a shell calls a program that Ctrl-C ended


def train(
    what: str,
    config: str | None,
    changes: Sequence[str],
    *,
    resume: bool,
    skip_bad_lines: bool,
    quiet: bool,
) -> int:
    """Run a stage, or the chain.

    Parameters
    ----------
    what : str
        "pretrain", "sft", "reward", "ppo", "all"; "chatgpt": the chain at its small size, graded
        at its end; or "lineage": five models that differ in one thing each.
    config, changes
        As in `configuration.load`.
    resume, skip_bad_lines, quiet : bool
        As in `Pipeline`.

    Returns
    -------
    int
        Exit code: 0, 1 if a stage missed its threshold, 130 after Ctrl-C.

    Raises
    ------
    ValueError
        If `what` or a setting is wrong.
    """
    if what not in (*STAGES, "all", *WHOLE):
        refuse("stage", f"one of {', '.join(STAGES)}, all, {', '.join(WHOLE)}", repr(what))
    defaults, make = WHOLE.get(what, (Configuration(), None))
    configuration = load(config, changes, defaults)
    group = join(sharded=configuration.run.fsdp)
    try:
        if make:
            return make(configuration, resume=resume, quiet=quiet)
        pipeline = Pipeline(configuration, group, resume, quiet, skip_bad_lines)
        getattr(pipeline, what)()
        return 0
    except Interrupted as stopped:
        print(f"{stopped}. Go on with --resume", file=sys.stderr)
        return INTERRUPTED
    finally:
        leave()


def chat(
    directory: str,
    *,
    temperature: float,
    max_new_tokens: int | None,
    seed: int,
    best_of: int = 1,
    explain: bool = False,
) -> int:
    """Talk to a model, from a terminal or from a pipe.

    Parameters
    ----------
    directory, temperature, max_new_tokens, seed, best_of
        As in `Chat`; or an agent's run, which samples as its settings say.
    explain : bool
        Show what an agent considered, and why one was chosen.

    Returns
    -------
    int
        Exit code.
    """
    talk: Talk
    if (Path(directory) / AGENT).exists():
        talk = AgentChat(directory, explain=explain, seed=seed)
    elif explain:
        cause = "a plain model, which considers nothing: gptwin agent NAME makes one that does"
        refuse("run", f"an agent's, with {AGENT}, to explain", directory, cause)
    else:
        talk = Chat(
            directory, temperature=temperature, max_new_tokens=max_new_tokens, seed=seed,
            best_of=best_of,
        )  # fmt: skip
    if isinstance(sys.stdin, io.TextIOWrapper):
        # A line that is not UTF-8 is refused when it is encoded; the lines after it are read.
        sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")
    if sys.stdin.isatty():
        print(talk.introduction())
    for answer in converse(talk, _lines()):
        print(answer, flush=True)
    return 0


def _lines() -> Iterator[str]:
    prompt = "> " if sys.stdin.isatty() else ""
    while True:
        try:
            yield input(prompt)
        except (EOFError, KeyboardInterrupt):
            return
