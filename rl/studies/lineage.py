"""`gptwin train lineage`: five models that differ in one thing each, and what each of them can do.

OpenAI's index of models tells how GPT-3.5 came about; here every step is a run of the pipeline,
each with the settings below its folder and the data beside them, so that any step can be made
again by hand:

    base          text                                                  (davinci)
    code          as many steps on as much text, half of it code        (code-davinci-002)
    supervised    from `code`: demonstrations, then its own answers that were rated 7 of 7
                                                                        (text-davinci-002, FeedME)
    ppo           from `supervised`: rankings, a reward model, PPO      (text-davinci-003)
    dialogue      from `ppo`: conversations of several turns            (ChatGPT)

The text is Python's documentation, the code Python's own library. Up to PPO every exercise has one
turn, so that what dialogues add is seen. Rated are a model's own answers, by noisy labellers: what
they think of an answer is its gold reward and an error, on a scale from 1 to 7.
"""

import dataclasses
import itertools
import math
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from ...core.checks import refuse
from ...kernels.model.gpt import GPT
from ...records import json_lines, provenance, write_whole
from ..configuration import (
    Configuration,
    ModelSettings,
    PPOSettings,
    PretrainSettings,
    RewardSettings,
    RunSettings,
    SFTSettings,
)
from ..data.batches import Windows
from ..data.dialogue import Message, Template
from ..data.documentation import documentation
from ..data.sources import HELD_OUT, answered, exercise_prompts, running_tokens
from ..data.tasks import Exercise, demonstration, exercises, rank
from ..judging.evaluation import grade
from ..judging.plots import plt, saved
from ..pipeline import Pipeline
from ..stages.language_model import summed_loss

DIFFERS = {
    "base": "text", "code": "text and code", "supervised": "demonstrations, best-rated answers",
    "ppo": "rankings, PPO", "dialogue": "conversations",
}  # fmt: skip
MODELS = tuple(DIFFERS)
HEADER = ("text, bits/byte", "code, bits/byte", "one turn, gold", "several turns, gold")
SEVERAL_TURNS = "remember"  # the family of exercises that needs them
REPORT = "lineage.jsonl"
BEST = 7  # of the scale from 1
GENTLER = 4  # tuning a tuned model: a rate that is lower by this, and so many times fewer examples
MEASURED = 300  # exercises of each kind
WINDOW, WINDOWS = 64, 64  # tokens, and how many windows of a corpus are measured

SMALL = Configuration(
    model=ModelSettings(n_ctx=128, n_layer=2, n_head=4, d_model=96, vocab_size=768),
    run=RunSettings(directory="runs/lineage", checkpoint_every=10_000),
    pretrain=PretrainSettings(steps=200, batch=16, time=64, lr=4e-3, warmup=50),
    sft=SFTSettings(
        examples=16_000, epochs=1, batch=32, accumulate=4, lr=4e-3, warmup=50, dropout=0.0,
        carelessness=0.3,
    ),
    reward=RewardSettings(prompts=8000, k_min=4, k_max=4, epochs=1, batch=8, lr=5e-4, warmup=20),
    ppo=PPOSettings(
        episodes=3072, batch=128, minibatches=4, max_response=20, lr=3e-4, value_lr=1e-3, ptx=0.0
    ),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Lineage:
    """The five models below one folder.

    Attributes
    ----------
    configuration : Configuration
        Of all of them; `run.directory` is the folder.
    resume, quiet : bool
        As in `Pipeline`.
    """

    configuration: Configuration = SMALL
    resume: bool = False
    quiet: bool = False

    def __post_init__(self) -> None:
        """Refuse settings that name data or a model: they are what the lineage is made of."""
        c = self.configuration
        given = {
            "model.weights": c.model.weights, "pretrain.data": c.pretrain.data,
            "sft.data": c.sft.data, "reward.data": c.reward.data, "ppo.data": c.ppo.data,
        }  # fmt: skip
        for name, value in given.items():
            if value:
                refuse(name, "none, of a lineage", repr(value), "gptwin train all takes your data")

    def train(self) -> None:
        """Train what is not there yet, in order."""
        self.base().pretrain()
        self.code().pretrain()
        self.demonstrated().sft()
        self.supervised().sft()
        improved = self.improved()
        improved.reward()
        improved.ppo()
        self.dialogue().sft()

    def model(self, name: str) -> tuple[GPT, Template]:
        """Return one of the five, with the template of its tokenizer."""
        made: dict[str, tuple[Callable[[], Pipeline], str]] = {
            "base": (self.base, "pretrain"), "code": (self.code, "pretrain"),
            "supervised": (self.supervised, "sft"), "ppo": (self.improved, "ppo"),
            "dialogue": (self.dialogue, "sft"),
        }  # fmt: skip
        run, stage = made[name]
        pipeline = run()
        return pipeline.model_of(stage), pipeline.template

    # --- the runs, each from what the one before it left -----------------------------------------

    def base(self) -> Pipeline:
        """Text."""
        return self._run("base", pretrain={"data": self._file("text", texts)})

    def code(self) -> Pipeline:
        """Text and code."""
        return self._run("code", pretrain={"data": self._file("code", texts_and_code)})

    def demonstrated(self) -> Pipeline:
        """Half of the way to `supervised`: what people showed."""
        data = self._file("demonstrations", self._demonstrations)
        return self._run("demonstrated", "code/pretrain/model", sft={"data": data})

    def supervised(self) -> Pipeline:
        """The other half: the model's own answers, where people liked them best."""
        return self._run("supervised", "demonstrated/sft/model", sft=self._on_best_rated())

    def improved(self) -> Pipeline:
        """The same run with what its stages reward and ppo learn from."""
        return self._run(
            "supervised", "demonstrated/sft/model", sft=self._on_best_rated(),
            reward={"data": self._file("rankings", self._rankings)},
            ppo={"data": self._file("prompts", self._prompts)},
        )  # fmt: skip

    def dialogue(self) -> Pipeline:
        """Conversations of several turns."""
        data = self._file("dialogues", self._dialogues)
        sft = {"data": data, "lr": self.configuration.sft.lr / GENTLER}
        return self._run("dialogue", "supervised/ppo/model", sft=sft)

    def _on_best_rated(self) -> dict[str, Any]:
        data = self._file("best_rated", self._best_rated)
        return {"data": data, "lr": self.configuration.sft.lr / GENTLER}

    def _run(self, name: str, weights: str = "", **changes: Mapping[str, Any]) -> Pipeline:
        """Return a run in a folder of its own; `changes` are settings by their table."""
        c = self.configuration
        tables = {
            table: dataclasses.replace(getattr(c, table), **to) for table, to in changes.items()
        }
        return Pipeline(
            dataclasses.replace(
                c, **tables, run=dataclasses.replace(c.run, directory=str(self._root / name)),
                model=dataclasses.replace(
                    c.model, weights=str(self._root / weights) if weights else ""
                ),
            ),
            resume=self.resume, quiet=self.quiet,
        )  # fmt: skip

    # --- their data ------------------------------------------------------------------------------

    @property
    def _root(self) -> Path:
        return Path(self.configuration.run.directory)

    def _file(self, name: str, made: Callable[[], Iterable[Mapping[str, Any]]]) -> str:
        """Return a data file's path, once it has been written if it was not."""
        path = self._root / "data" / f"{name}.jsonl"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, json_lines(made()))
        return str(path)

    def _random(self, what: str) -> Random:
        return Random(f"lineage {what} {self.configuration.run.seed}")

    def _drawn(self, n: int, offset: int = 0) -> list[Exercise]:
        return one_turn(self.configuration.run.seed + offset, n, held_out=False)

    def _demonstrations(self) -> Iterator[dict[str, Any]]:
        rng, c = self._random("labeller"), self.configuration.sft
        for exercise in self._drawn(c.examples):
            yield as_messages(answered(exercise, demonstration(exercise, rng, c.carelessness)))

    def _best_rated(self) -> Iterator[dict[str, Any]]:
        """Keep those of the model's own answers that a labeller gives the best mark."""
        rng, c = self._random("rater"), self.configuration.reward
        for exercise, (said,) in self._sampled(self.demonstrated(), 1):
            if rated(said.gold, rng, c.noise) == BEST:
                yield as_messages(answered(exercise, said.text))

    def _rankings(self) -> Iterator[dict[str, Any]]:
        rng, c = self._random("ranker"), self.configuration.reward
        for exercise, said in self._sampled(self.supervised(), c.k_min):
            gold = {answer.text: answer.gold for answer in said}  # equal answers are one
            if len(gold) > 1:
                ranks = rank(list(gold.values()), rng, c.noise)
                prompt = as_messages(exercise.messages)["messages"]
                yield {"prompt": prompt, "completions": list(gold), "rank": ranks}

    def _sampled(self, run: Pipeline, n: int) -> Iterator[tuple[Exercise, list["Answer"]]]:
        """Yield exercises with n answers each of a run's supervised model."""
        c = self.configuration
        exercises = self._drawn(c.reward.prompts, offset=2)
        repeated = [exercise for exercise in exercises for _ in range(n)]
        grades = grade(
            run.model_of("sft"), run.template, exercise_prompts(run.template, repeated),
            max_response=c.ppo.max_response, seed=c.run.seed,
        )  # fmt: skip
        texts_ = [run.template.text(response) for response in grades.responses]
        said = [Answer(*both) for both in zip(texts_, grades.gold, strict=True)]
        for i, exercise in enumerate(exercises):
            yield exercise, said[i * n : (i + 1) * n]

    def _prompts(self) -> Iterator[dict[str, Any]]:
        return (as_messages(e.messages) for e in self._drawn(4000, offset=1))

    def _dialogues(self) -> Iterator[dict[str, Any]]:
        rng, c = self._random("partner"), self.configuration
        n = c.sft.examples // GENTLER
        for exercise in several_turns(c.run.seed + 3, n, held_out=False):
            yield as_messages(answered(exercise, demonstration(exercise, rng, c.sft.carelessness)))


class Answer(NamedTuple):
    """What was said, and its gold reward."""

    text: str
    gold: float


# --- the data ------------------------------------------------------------------------------------


def texts() -> Iterator[dict[str, str]]:
    """Return Python's documentation, but for what is held out."""
    training, _ = documentation()
    return ({"text": text} for text in training)


def texts_and_code() -> Iterator[dict[str, str]]:
    """Return the same, and as much of Python's own library."""
    training, _ = documentation()
    left = sum(map(len, training))
    yield from ({"text": text} for text in training)
    for text in library(held_out=False):
        if left <= 0:
            return
        yield {"text": text[:left]}
        left -= len(text)


def library(*, held_out: bool) -> list[str]:
    """Return the source of the standard library's top-level modules, or the tenth held out."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    chosen = [file for i, file in enumerate(files) if (i % HELD_OUT == 0) == held_out]
    found = (file.read_text(encoding="utf-8", errors="ignore") for file in chosen)
    return [text for text in found if text]


def one_turn(seed: int, n: int, *, held_out: bool) -> list[Exercise]:
    """Draw exercises of one turn."""
    drawn = (e for e in exercises(seed, held_out=held_out) if e.family != SEVERAL_TURNS)
    return list(itertools.islice(drawn, n))


def several_turns(seed: int, n: int, *, held_out: bool) -> list[Exercise]:
    """Draw conversations: half ask for what was said, half something new after an answer."""
    remembered = (e for e in exercises(seed, held_out=held_out) if e.family == SEVERAL_TURNS)
    pairs = one_turn(seed + 5, n, held_out=held_out)
    second = [
        dataclasses.replace(b, messages=(*answered(a, a.answer), *b.messages))
        for a, b in zip(pairs[::2], pairs[1::2], strict=False)
    ]
    return [*itertools.islice(remembered, n - len(second)), *second]


def rated(gold: float, rng: Random, noise: float) -> int:
    """Give an answer a mark from 1 to 7, as a labeller does who errs."""
    return min(BEST, max(1, round(1 + (BEST - 1) * rng.gauss(gold, noise))))


def as_messages(messages: Iterable[Message]) -> dict[str, Any]:
    """Return a conversation as a line of a data file."""
    return {"messages": [dataclasses.asdict(message) for message in messages]}


# --- what each can do ----------------------------------------------------------------------------


def measure(lineage: Lineage, n: int = MEASURED) -> list[dict[str, Any]]:
    """Measure the five models on what none of them has learnt from.

    Parameters
    ----------
    lineage : Lineage
        Trained.
    n : int
        Exercises of each kind.

    Returns
    -------
    list of dict
        For each model: bits for a byte of text and of code; of one turn and of several, the mean
        gold reward with its interval, perfect answers, and n.
    """
    limit = lineage.configuration.ppo.max_response
    kinds = {
        "one turn": one_turn(1, n, held_out=True),
        "several turns": several_turns(1, n, held_out=True),
    }
    found = []
    for name in MODELS:
        model, template = lineage.model(name)
        row: dict[str, Any] = {
            "model": name, "seed": lineage.configuration.run.seed,
            "text": bits_per_byte(model, template, documentation()[1]),
            "code": bits_per_byte(model, template, library(held_out=True)),
        }  # fmt: skip
        for kind, asked in kinds.items():
            grades = grade(model, template, exercise_prompts(template, asked), max_response=limit)
            row[kind] = {
                "gold": grades.mean, "interval": grades.interval,
                "right": sum(grades.passed), "n": len(asked),
            }  # fmt: skip
        found.append(row)
    return found


def bits_per_byte(model: GPT, template: Template, documents: Sequence[str]) -> float:
    """Return what a byte costs a model, whatever its tokens are."""
    tokens = running_tokens(template.tokenizer, documents, template.end_of_text)
    windows = Windows(tokens, WINDOW, 1, 0).all(WINDOWS)
    said = [token for window in windows for token in window.tokens[1:]]
    n_bytes = len(template.tokenizer.decode_bytes(said))
    summed, _ = summed_loss(model, windows, template.pad, model.wte.weight.device)
    return summed / math.log(2) / n_bytes


def table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Lay the models out for a terminal, what each differs in beside its name."""
    shown = Table("model", "differs in", *HEADER)
    for row in rows:
        shown.add_row(row["model"], DIFFERS[row["model"]], *cells(row))
    return shown


def cells(row: Mapping[str, Any]) -> list[str]:
    """Write what a model can do, under `HEADER`."""
    turns = (row["one turn"], row["several turns"])
    return [
        f"{row['text']:.2f}", f"{row['code']:.2f}",
        *(f"{turn['gold']:.3f} ± {turn['interval']:.3f}" for turn in turns),
    ]  # fmt: skip


def make_lineage(configuration: Configuration, *, resume: bool = False, quiet: bool = False) -> int:
    """Train the five, print the table, and store it below the run's folder.

    Parameters
    ----------
    configuration : Configuration
        `SMALL`, perhaps changed.
    resume, quiet : bool
        As in `Pipeline`.

    Returns
    -------
    int
        Exit code, 0.
    """
    lineage = Lineage(configuration, resume, quiet)
    lineage.train()
    rows = measure(lineage, MEASURED)
    root = Path(configuration.run.directory)
    write_whole(root / REPORT, json_lines([provenance("torch"), *rows]))
    console = Console()
    console.print(table(rows))
    console.print(f"Talk to the last one: gptwin chat {root / 'dialogue'}")
    return 0


# --- on several seeds ----------------------------------------------------------------------------


def measure_seed(seed: int, directory: Path) -> list[dict[str, Any]]:
    """Train and measure the five of one seed, at the size `SMALL`."""
    run = dataclasses.replace(SMALL.run, seed=seed, directory=str(directory / f"lineage-{seed}"))
    lineage = Lineage(dataclasses.replace(SMALL, run=run), resume=True, quiet=True)
    lineage.train()
    return measure(lineage)


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw what each model can do, a line a seed."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2))
    for seed in sorted({row["seed"] for row in rows}):
        of_seed = {row["model"]: row for row in rows if row["seed"] == seed}
        mine = [of_seed[name] for name in MODELS]
        for color, kind in enumerate(("text", "code")):
            bits = [row[kind] for row in mine]
            axes[0].plot(MODELS, bits, "o-", color=f"C{color}", linewidth=1, markersize=3)
        for color, kind in enumerate(("one turn", "several turns"), start=2):
            gold = [row[kind]["gold"] for row in mine]
            interval = [row[kind]["interval"] for row in mine]
            axes[1].errorbar(MODELS, gold, interval, color=f"C{color}", linewidth=1, capsize=2)
    for axis, title, kinds in zip(
        axes,
        ("bits for a byte of held-out text", "gold reward; a line a seed"),
        (("text", "code"), ("one turn", "several turns")),
        strict=True,
    ):
        lines = axis.get_lines()[: len(kinds)] if axis is axes[0] else axis.containers[: len(kinds)]
        axis.legend(lines, kinds, fontsize=7)
        axis.set_title(title, fontsize=9)
        axis.tick_params(labelsize=7)
    saved(figure, path)
