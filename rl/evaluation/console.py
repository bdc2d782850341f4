"""What `gptwin evaluate` does: ask, print the accuracy with n and interval, store every answer."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ...core.checks import refuse
from ...records import json_lines, provenance, write_whole
from ..data.dialogue import Template
from ..judging.evaluation import mean_with_interval
from ..judging.intervals import Accuracy, accuracy
from .asking import HOLE, Asking, Chatting, Plain
from .choices import CONTEXT_FREE, SCORES
from .free_form import FreeAnswer, answer_freely, most_confident, pass_at_k
from .items import KINDS, ChoiceItem, FreeItem, Item, read_items
from .models import load_model
from .multiple_choice import ChoiceAnswer, answer_choices, chance

CONFIDENT = 0.1  # the share of answers that the confidence line is of
ANSWERS = "evaluation.jsonl"


@dataclasses.dataclass(frozen=True)
class Options:
    r"""What `gptwin evaluate` is told.

    Attributes
    ----------
    shots : int
        Examples before each question.
    train : str
        A file of examples to draw them from, of the same kind as the questions.
    scores : tuple of str
        Of `SCORES`; empty: all.
    against : str
        The context-free text of the score `against`.
    template : str
        What stands around a question of a plain text; ``\n`` means a line end.
    end : str
        What follows each answer and is scored with it.
    chat : bool
        Ask as a user of a model that chats.
    samples, temperature, beams, max_new_tokens
        As in `answer_freely`.
    seed : int
        Of shots and samples.
    out : str
        The file that every answer is stored in.
    """

    shots: int = 0
    train: str = ""
    scores: tuple[str, ...] = ()
    against: str = CONTEXT_FREE
    template: str = HOLE
    end: str = ""
    chat: bool = False
    samples: int = 1
    temperature: float = 0.0
    beams: int = 1
    max_new_tokens: int = 32
    seed: int = 0
    out: str = ANSWERS


def evaluate(model: str, data: str, options: Options) -> int:
    """Ask a model the questions of a file.

    Parameters
    ----------
    model : str
        As in `find_weights`.
    data : str
        As in `read_items`.
    options : Options

    Returns
    -------
    int
        Exit code.

    Raises
    ------
    ValueError
        If a file, a question or an option is wrong.
    """
    if options.shots and not options.train:
        refuse("--shots", "0 without --train FILE, the examples to draw from", str(options.shots))
    _expect_folder(options.out)
    items = read_items(data)
    training = read_items(options.train) if options.train else []
    if training and type(training[0]) is not type(items[0]):
        refuse("--train", f"a file of the same kind: a {KINDS[type(items[0])]} a line",
               f"a {KINDS[type(training[0])]}")  # fmt: skip
    loaded = load_model(model)
    asking = _asking(Template(loaded.tokenizer) if options.chat else loaded.tokenizer, options)
    asked: dict[str, Any] = {
        "training": [item.shot for item in training], "shots": options.shots, "seed": options.seed,
    }  # fmt: skip
    head: dict[str, Any] = {
        "model": str(loaded.folder), "data": data, "options": dataclasses.asdict(options),
    }  # fmt: skip
    console = Console()
    console.print(f"{data}: {_described(items)}; {loaded.folder}", highlight=False, soft_wrap=True)
    choices = [item for item in items if isinstance(item, ChoiceItem)]
    if choices:
        methods = options.scores or SCORES
        answered = answer_choices(
            loaded.model, asking, choices, methods=methods, context_free=options.against, **asked
        )
        head["results"] = _print_choices(console, answered, methods)
        records = [answer.record(methods) for answer in answered]
        used = [len(answer.shots) for answer in answered]
    else:
        free = answer_freely(
            loaded.model, asking, [item for item in items if isinstance(item, FreeItem)],
            max_new_tokens=options.max_new_tokens, samples=options.samples,
            temperature=options.temperature, beams=options.beams, **asked,
        )  # fmt: skip
        head["results"] = _print_free(console, free, options.samples)
        records = [answer.record() for answer in free]
        used = [len(answer.shots) for answer in free]
    if min(used) < options.shots:
        n = sum(k < options.shots for k in used)
        console.print(
            f"{n} of {len(used)} questions had room for fewer than {options.shots} examples, "
            f"down to {min(used)}: the oldest were dropped, whole", highlight=False,
        )  # fmt: skip
    write_whole(options.out, json_lines([provenance("torch") | head, *records]))
    console.print(f"Every answer: {options.out}", highlight=False, soft_wrap=True)
    return 0


def _asking(by: Any, options: Options) -> Asking:
    if options.chat:
        for name, value, default in (
            ("--template", options.template, HOLE),
            ("--end", options.end, ""),
        ):
            if value != default:
                refuse(name, "none with --chat, whose turns have a form of their own", repr(value))
        return Chatting(by)
    return Plain(by, _typed(options.template), end=_typed(options.end))


def _typed(text: str) -> str:
    r"""Read ``\n`` as a line end, which is not easily typed."""
    return text.replace("\\n", "\n")


def _expect_folder(out: str) -> None:
    """Find out before the first question that the answers would have no place."""
    if not Path(out).parent.is_dir():
        refuse("--out", "a file in a folder that is there", out)


def _described(items: Sequence[Item]) -> str:
    if not isinstance(items[0], ChoiceItem):
        return f"{len(items)} prompts"
    choices = [item for item in items if isinstance(item, ChoiceItem)]
    return f"{len(items)} questions, of which a guess answers {chance(choices):.1%}"


def _print_choices(
    console: Console, answers: Sequence[ChoiceAnswer], methods: Sequence[str]
) -> dict[str, Any]:
    found = {m: accuracy([answer.is_right(m) for answer in answers]) for m in methods}
    _print_accuracies(console, "score", found)
    begun = sum(answer.scores.one_begins_another for answer in answers)
    if begun:
        console.print(
            f"In {begun} questions a choice is what another one begins with, which a sum can "
            r"never prefer: --end '\n' scores an end with each", highlight=False,
        )  # fmt: skip
    return {method: share.record() for method, share in found.items()}


def _print_free(console: Console, answers: Sequence[FreeAnswer], samples: int) -> dict[str, Any]:
    results: dict[str, Any] = {"n_cut": sum(answer.n_cut for answer in answers)}
    if samples == 1:
        sure = most_confident(answers, CONFIDENT)
        found = {
            "exact match": accuracy([answer.rights[0] for answer in answers]),
            f"of the surest {CONFIDENT:.0%}": accuracy(sure),
        }
        _print_accuracies(console, "answers", found)
        results |= {name: share.record() for name, share in found.items()}
    else:
        table = Table("pass@k", "share", "95%", "n")
        for k in sorted({1, *(k for k in (5, 10, 50, 100) if k < samples), samples}):
            chances = [pass_at_k(samples, sum(answer.rights), k) for answer in answers]
            mean, half = mean_with_interval(chances)
            table.add_row(str(k), f"{mean:.1%}", f"± {half:.1%}", str(len(chances)))
            results[f"pass@{k}"] = {"share": mean, "half_width": half, "n": len(chances)}
        console.print(table)
    if results["n_cut"]:
        console.print(
            f"{results['n_cut']} answers were cut by --max-new-tokens, and are compared as they "
            "are", highlight=False,
        )  # fmt: skip
    return results


def _print_accuracies(console: Console, title: str, found: dict[str, Accuracy]) -> None:
    table = Table(title, "right", "n", "accuracy", "95% (Wilson)")
    for name, share in found.items():
        low, high = share.interval
        table.add_row(
            name, str(share.right), str(share.n), f"{share.share:.1%}", f"{low:.1%} to {high:.1%}"
        )
    console.print(table)
