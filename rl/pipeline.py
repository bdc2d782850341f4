"""The four stages in one folder, each starting from what the one before it left.

    runs/chat/
      tokenizer/           vocab.json, merges.txt, special tokens
      pretrain/  sft/  reward/  ppo/      a run each (see run.py), and in it
        model/             the stage's model in Hugging Face's layout
      reward/scorer.safetensors           the reward model: trunk and head

`gptwin train all --resume` goes on where the chain was cut: a stage that has ended stays as it is.
"""

import dataclasses
import functools
import importlib
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from ..core.checks import refuse
from ..kernels.cpu.compiled_step import has_cpp_compiler
from ..kernels.model.gpt import GPT
from ..records import write_whole
from .configuration import Configuration
from .data import sources
from .data.batches import Mixed, Shuffled, Windows
from .data.dialogue import SPACE, SPECIAL_TOKENS, Encoded, Template
from .data.sources import Prompt
from .formats.tokenizer import Tokenizer
from .formats.weights import load_gpt2, save_gpt2
from .judging import plots
from .judging.best_of_n import measure
from .judging.evaluation import distance, grade
from .judging.sampled_rankings import sample_rankings
from .ranks.group import Group
from .ranks.sharding import shard, whole_state
from .stages.language_model import LanguageModelStage, summed_loss
from .stages.ppo import PPOStage
from .stages.reward_model import RewardStage, Score, scoring
from .stages.scorer import SCORER, Scorer
from .training.estimate import announce, ppo_bytes, training_bytes
from .training.run import Statistics, train

STAGES = ("pretrain", "sft", "reward", "ppo")
DTYPES = {"float32": None, "bfloat16": torch.bfloat16}  # None: as the parameters are
VALIDATION_WINDOWS, VALIDATION_PROMPTS = 64, 200
# As much text as the documentation, so that the exercises' words become tokens, too.
TOKENIZER_EXERCISES = 32_000


@dataclasses.dataclass
class Pipeline:
    """A run of the chain, or of a part of it.

    Attributes
    ----------
    configuration : Configuration
        The resolved settings.
    group : Group
        The ranks.
    resume, quiet, skip_bad_lines : bool
        As in `run.train` and `data.DataFile`.
    seconds : dict
        What each stage of `all` took.
    """

    configuration: Configuration
    group: Group = dataclasses.field(default_factory=Group)
    resume: bool = False
    quiet: bool = False
    skip_bad_lines: bool = False
    seconds: dict[str, float] = dataclasses.field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._compiler()  # refused before anything is written

    # --- the stages ------------------------------------------------------------------------------

    def pretrain(self) -> None:
        """Learn to say the next token of running text."""
        c = self.configuration
        training, validation = self.pretraining_text
        with torch.random.fork_rng():
            torch.manual_seed(c.run.seed)
            model = GPT(c.model.architecture(self.tokenizer.vocab_size)).to(self.group.device)
        self._make_fast(model, compiled=True)
        stage = LanguageModelStage(
            "pretrain", model, self._windows(training, c.pretrain.batch), validation,
            c.pretrain, c.pretrain.steps, self.template.pad, self.group,
        )  # fmt: skip
        rows = self._rows_at_once(c.pretrain.batch, c.pretrain.accumulate)
        self._announce(
            "pretrain", model, training_bytes(model.config, rows, c.pretrain.time, self.group)
        )
        self._run(stage)
        self._export("pretrain", model)

    def sft(self) -> None:
        """Learn to answer as the demonstrations do."""
        c = self.configuration
        model = self._model("pretrain", c.model.weights, dropout=c.sft.dropout)
        self._make_fast(model, compiled=True)
        training, validation = sources.demonstrations(c.sft, c.run.seed, self.skip_bad_lines)
        examples = sources.encoded(self.template, training)
        asked = Shuffled(examples, c.sft.batch, c.run.seed)
        n_windows = round(c.sft.pretraining_share * c.sft.batch)
        source = (
            Mixed(asked, self._windows(self.pretraining_text[0], n_windows)) if n_windows else asked
        )
        stage = LanguageModelStage(
            "sft", model, source, sources.encoded(self.template, validation), c.sft,
            c.sft.epochs * asked.steps_per_epoch, self.template.pad, self.group,
        )  # fmt: skip
        rows = self._rows_at_once(c.sft.batch, c.sft.accumulate)
        longest = max(len(example.tokens) for example in examples)
        self._announce("sft", model, training_bytes(model.config, rows, longest, self.group))
        self._run(stage)
        self._export("sft", model)

    def reward(self) -> None:
        """Learn what people prefer from rankings."""
        c = self.configuration
        if c.reward.data:
            training, validation = sources.rankings(self.template, c.reward, self.skip_bad_lines)
        else:
            sft = self._model("sft").eval()
            training, validation = (
                sample_rankings(
                    sft,
                    self.template,
                    c.reward,
                    c.ppo.max_response,
                    c.run.seed,
                    held_out=held_out,
                    group=self.group,
                )
                for held_out in (False, True)
            )
        demonstrations, _ = sources.demonstrations(c.sft, c.run.seed, self.skip_bad_lines)
        rows = [example.tokens for example in sources.encoded(self.template, demonstrations[:400])]
        scorer = Scorer(self._model("sft"), c.run.seed)
        self._make_fast(scorer.trunk)
        stage = RewardStage(
            scorer, training, validation, c.reward, rows, self.template.pad, c.run.seed, self.group
        )
        most = self._rows_at_once(c.reward.batch, c.reward.accumulate)
        longest = max(len(r.prompt) + max(map(len, r.completions)) for r in training)
        completions = most * max(len(r.completions) for r in training)
        config = scorer.trunk.config
        self._announce("reward", scorer, training_bytes(config, completions, longest, self.group))
        self._run(stage)
        state = whole_state(scorer)
        if self.group.is_main:
            write_whole(self.folder("reward") / SCORER, functools.partial(save_file, state))
        self.group.wait()

    def ppo(self) -> None:
        """Learn to answer so that people prefer the answer."""
        c = self.configuration
        policy = self._model("sft")
        prompts = sources.prompts(
            self.template, c.ppo.data, c.run.seed + 1, 4000, self.skip_bad_lines
        )
        value = self._scorer()
        if c.ppo.shared_trunk:
            value.trunk = policy
        for model in (policy, value.trunk):
            model.compiled_loops = self._compiler()
        stage = PPOStage(
            policy, value, self._score(), Shuffled(prompts, c.ppo.batch, c.run.seed), c.ppo,
            pad=self.template.pad, end=self.template.end, seed=c.run.seed, group=self.group,
            pretraining=self._pretraining_term(), judge=self._judge(),
        )  # fmt: skip
        longest = max(len(prompt.ids) for prompt in prompts)
        self._announce("ppo", policy, ppo_bytes(policy.config, c.ppo, longest, self.group))
        self._run(stage)
        if self.group.is_main:
            curve = plots.graded(self.folder("ppo"))
            plots.over_optimisation({"PPO": curve}, self.folder("ppo") / plots.CURVE)
        self._measure_best_of_n()
        self._export("ppo", policy)
        with torch.no_grad():
            for parameter, average in zip(policy.parameters(), stage.average, strict=True):
                parameter.copy_(average)
        self._export("ppo", policy, "ema")

    def all(self) -> None:
        """Run the chain; with `resume`, what is left of it."""
        for name in STAGES:
            if name == "pretrain" and self.configuration.model.weights:
                continue
            if not (self.resume and self.ended(name)):
                started = time.monotonic()
                getattr(self, name)()
                self.seconds[name] = time.monotonic() - started

    # --- what they share -------------------------------------------------------------------------

    def folder(self, stage: str) -> Path:
        """Return a stage's folder."""
        return Path(self.configuration.run.directory) / stage

    def ended(self, stage: str) -> bool:
        """Say whether a stage has left what the next one needs."""
        return (self.folder(stage) / (SCORER if stage == "reward" else "model")).exists()

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """The run's tokenizer: that of the weights, the one trained before, or a new one."""
        if self.configuration.model.weights:
            return Tokenizer.load(self.configuration.model.weights)
        folder = Path(self.configuration.run.directory) / "tokenizer"
        if not folder.exists() and self.group.is_main:
            training, _ = self._texts
            spoken = [
                SPACE + message.content
                for e in sources.drawn(0, TOKENIZER_EXERCISES, held_out=False)
                for message in sources.answered(e, e.answer)
            ]
            size = self.configuration.model.vocab_size
            Tokenizer.train([*training, *spoken], size, SPECIAL_TOKENS).save(folder)
        self.group.wait()
        return Tokenizer.load(folder)

    @functools.cached_property
    def template(self) -> Template:
        """How a conversation becomes tokens."""
        return Template(self.tokenizer)

    def model_of(self, stage: str) -> GPT:
        """Return a stage's trained model, in evaluation mode."""
        return self._model(stage).eval()

    @functools.cached_property
    def _texts(self) -> tuple[list[str], list[str]]:
        return sources.texts(self.configuration.pretrain, self.skip_bad_lines)

    @functools.cached_property
    def pretraining_text(self) -> tuple[np.ndarray, list[Encoded]]:
        """The tokens to pretrain on, and held-out windows."""
        training, validation = (self._tokens(documents) for documents in self._texts)
        return training, self._windows(validation, 1).all(VALIDATION_WINDOWS)

    def _tokens(self, documents: Sequence[str]) -> np.ndarray:
        return sources.running_tokens(self.tokenizer, documents, self.template.end_of_text)

    def _windows(self, tokens: np.ndarray, batch: int) -> Windows:
        c = self.configuration
        return Windows(tokens, c.pretrain.time, batch, c.run.seed)

    def _run(self, stage: Any) -> None:
        train(
            stage,
            self.configuration,
            resume=self.resume,
            group=self.group,
            quiet=self.quiet,
        )
        if self.group.is_main:
            plots.learning_curves(self.folder(stage.name))

    def _rows_at_once(self, batch: int, accumulate: int) -> int:
        """Return the examples of a micro-batch on one rank."""
        return -(-batch // (accumulate * self.group.world))

    def _announce(self, stage: str, model: torch.nn.Module, needed: int) -> None:
        if self.group.is_main and not self.quiet:
            size = sum(parameter.numel() for parameter in model.parameters())
            print(announce(stage, size, needed, self.group), file=sys.stderr)

    def _make_fast(self, model: GPT, compiled: bool = False) -> None:
        """Let a model compute as `run.dtype` and, where it only trains, `run.compile` say."""
        run = self.configuration.run
        if run.dtype not in DTYPES:
            refuse("run.dtype", " or ".join(DTYPES), repr(run.dtype))
        model.compute_dtype = DTYPES[run.dtype]
        if compiled and self._compiler():
            model.compile(backend=run.compile)

    def _compiler(self) -> str:
        """Return what `run.compile` says, once it can be done."""
        run = self.configuration.run
        if run.compile:
            if run.fsdp:
                refuse("run.compile", "none, with run.fsdp=true", repr(run.compile))
            backends = torch.compiler.list_backends()
            if run.compile not in backends:
                refuse("run.compile", f"one of {', '.join(backends)}", repr(run.compile))
            on_cpu = self.group.device.type == "cpu"
            if run.compile == "inductor" and on_cpu and not has_cpp_compiler():
                cause = "none installed (g++ or clang++), or CXX names another"
                refuse("run.compile", "inductor and a C++ compiler", "no C++ compiler", cause)
        return run.compile

    def _model(self, stage: str, weights: str = "", dropout: float = 0.0) -> GPT:
        folder = Path(weights) if weights else self.folder(stage) / "model"
        if not folder.exists():
            cause = f"{stage} has not been trained: gptwin train {stage}, or gptwin train all"
            refuse("run.directory", f"a run in which {stage} has ended", str(folder), cause)
        config, parameters = load_gpt2(folder, framework="torch")
        model = GPT(dataclasses.replace(config, dropout=dropout))
        model.load_state_dict(parameters)
        return model.to(self.group.device)

    def _export(self, stage: str, model: GPT, name: str = "model") -> None:
        state = whole_state(model)
        if self.group.is_main:
            save_gpt2(self.folder(stage) / name, model.config, state, self.tokenizer)
        self.group.wait()

    def _scorer(self) -> Scorer:
        """Return the reward model, or an untrained value network where there is none."""
        file = self.folder("reward") / SCORER
        scorer = Scorer(self._model("sft"), self.configuration.run.seed)
        if file.exists():
            scorer.load_state_dict(load_file(file))
        elif not self.configuration.ppo.reward_fn:
            refuse("run.directory", "a run with a reward model", str(file), "gptwin train reward")
        return scorer

    def _score(self) -> Score:
        """Return what scores the policy's answers: the reward model, or the user's function."""
        template, device = self.template, self.group.device
        if self.configuration.ppo.reward_fn:
            function = imported(self.configuration.ppo.reward_fn)

            def by_function(
                prompts: Sequence[Prompt], responses: Sequence[list[int]]
            ) -> torch.Tensor:
                texts = [template.text(response) for response in responses]
                found = function([p.messages for p in prompts], texts)
                return checked_scores(found, len(texts)).to(device)

            return by_function
        scorer = self._scorer().requires_grad_(False).eval()
        scorer.trunk.compiled_loops = self._compiler()
        shard(scorer.trunk, self.group)
        return scoring(scorer, template.pad)

    def _measure_best_of_n(self) -> None:
        """Measure what PPO is to be compared with: best-of-n of the model that it began from."""
        c = self.configuration
        if c.ppo.data or c.ppo.best_of < 1:
            return
        held_out = sources.drawn(0, VALIDATION_PROMPTS, held_out=True)
        prompts = sources.exercise_prompts(self.template, held_out)
        measure(
            self.model_of("sft"), self.template, self._score(), prompts, c.ppo.best_of,
            self.folder("ppo"), max_response=c.ppo.max_response, seed=c.run.seed, group=self.group,
        )  # fmt: skip
        if self.group.is_main:
            plots.best_of_n(self.folder("ppo"))

    def _pretraining_term(self) -> Windows | None:
        c = self.configuration
        if c.ppo.ptx == 0:
            return None
        if c.ppo.pretraining_data:
            data = dataclasses.replace(c.pretrain, data=c.ppo.pretraining_data)
            training = self._tokens(sources.texts(data, self.skip_bad_lines)[0])
        else:
            training, _ = self.pretraining_text
        per_step = max(self.group.world, c.ppo.ptx_ratio * c.ppo.batch // c.ppo.minibatches)
        return self._windows(training, per_step)

    def _judge(self) -> Callable[[GPT, GPT], Statistics] | None:
        """Return what measures the policy on held-out exercises, unless prompts are the user's."""
        if self.configuration.ppo.data:
            return None
        held_out = sources.drawn(0, VALIDATION_PROMPTS, held_out=True)
        prompts = sources.exercise_prompts(self.template, held_out)
        score = self._score()
        _, windows = self.pretraining_text

        def judge(policy: GPT, reference: GPT) -> Statistics:
            limit = self.configuration.ppo.max_response
            group = self.group
            grades = grade(policy, self.template, prompts, max_response=limit, group=group)
            proxy = score(group.part(prompts), group.part(grades.responses)).sum().item()
            summed, counted = summed_loss(policy, windows, self.template.pad, group.device)
            return {
                "gold": grades.mean,
                "pass_rate": grades.pass_rate,
                "score": group.total(proxy) / len(prompts),
                "kl": distance(policy, reference, self.template, prompts, grades.responses),
                "pretraining_loss": summed / counted,
            }

        return judge


def imported(path: str) -> Callable[..., Any]:
    """Return the function that a setting names.

    Parameters
    ----------
    path : str
        "package.module:function".

    Returns
    -------
    callable

    Raises
    ------
    ValueError
        If there is none.
    """
    module, colon, name = path.partition(":")
    if not colon:
        refuse("ppo.reward_fn", "package.module:function", repr(path))
    sys.path.append("")  # a file beside where gptwin was started, as `python -m` has it
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        refuse("ppo.reward_fn", "a function that can be imported", f"{path}: {error}")
    finally:
        # Not for good: in the checkout, others would take kernels/ for a package of that name.
        del sys.path[len(sys.path) - 1 - sys.path[::-1].index("")]


def checked_scores(found: Any, n: int) -> torch.Tensor:
    """Return what a reward function returned as a tensor, or refuse it.

    Parameters
    ----------
    found : sequence of float, or array
        As the user's function returned it.
    n : int
        Responses that it was asked about.

    Returns
    -------
    torch.Tensor of float32 [n]

    Raises
    ------
    ValueError
        If these are not `n` finite numbers.
    """
    try:
        scores = torch.as_tensor(found, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        refuse("ppo.reward_fn", f"{n} numbers", f"{type(found).__name__}: {error}")
    if scores.shape != (n,):
        got = f"shape {tuple(scores.shape)}"
        refuse("ppo.reward_fn", f"{n} numbers, one for each response", got)
    if not scores.isfinite().all():
        first = int((~scores.isfinite()).nonzero()[0])
        refuse("ppo.reward_fn", "finite scores", f"{scores[first].item()} for response {first}")
    return scores
