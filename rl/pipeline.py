"""The four stages in one folder, each starting from what the one before it left.

    runs/chat/
      tokenizer/           vocab.json, merges.txt, special tokens
      pretrain/  sft/  reward/  ppo/      a run each (see run.py), and in it
        model/             the stage's model in Hugging Face's layout
      reward/scorer.safetensors           the reward model: trunk and head

`gptwin train all --resume` goes on where the chain was cut. A stage has ended when its `ended.json`
says so, which is written last; it then stays as it is, unless what it left is damaged: then its end
is done again from its last checkpoint.
"""

import contextlib
import dataclasses
import functools
import importlib
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from ..core.checks import refuse
from ..kernels.cpu import speed_up
from ..kernels.cpu.speed import has_cpp_compiler
from ..kernels.model.gpt import GPT
from ..records import WRITING, write_whole
from .bounds import check, check_context
from .configuration import Configuration
from .data import sources
from .data.batches import Mixed, Shuffled, Windows
from .data.dialogue import SPACE, SPECIAL_TOKENS, Encoded, Template
from .data.rankings import Ranking
from .data.sources import Prompt
from .formats.checksums import checksums, first_damaged
from .formats.hf_config import read_config
from .formats.tensors import save_tensors
from .formats.tokenizer import Tokenizer
from .formats.weights import load_gpt2, save_gpt2, with_vocabulary
from .judging import plots
from .judging.best_of_n import measure
from .judging.evaluation import ANSWERED_AT_ONCE, MEASURED_AT_ONCE, distance, grade
from .judging.sampled_rankings import sample_rankings
from .ranks.group import Group
from .ranks.sharding import shard, whole_state
from .stages.language_model import EVALUATED_AT_ONCE, LanguageModelStage, summed_loss
from .stages.ppo import PPOStage
from .stages.reward_model import SCORED_AT_ONCE, RewardStage, Score, scoring
from .stages.scorer import SCORER, Scorer
from .training.estimate import announce, ppo_bytes, training_bytes
from .training.inputs import (
    Inputs,
    expect_same_inputs,
    read_by,
    read_ended,
    settings_of,
    write_ended,
)
from .training.lock import only_writer
from .training.run import CHECKPOINTS, Statistics, expect_resumable, train
from .training.threads import use_threads

STAGES = ("pretrain", "sft", "reward", "ppo")
DTYPES = {"float32": None, "bfloat16": torch.bfloat16}  # None: as the parameters are
VALIDATION_WINDOWS, VALIDATION_PROMPTS = 64, 200
CENTRED = 400  # conversations whose mean reward becomes 0
PLOTS = "plots"
# What each stage leaves in its folder, beside its log and its checkpoints.
LEFT = {
    "pretrain": ["model", PLOTS],
    "sft": ["model", PLOTS],
    "reward": [SCORER, PLOTS],
    "ppo": ["model", "ema", PLOTS],
}
WEIGHTS = "model.weights"  # the folder that this setting names
TOKENIZER, MADE = "tokenizer", "made.json"  # the tokenizer's folder, and its ended.json
# As much text as the documentation, so that the exercises' words become tokens, too.
TOKENIZER_EXERCISES = 32_000


def _whole_stage(method: Callable[["Pipeline"], None]) -> Callable[["Pipeline"], None]:
    """Let a stage begin from what it may, and say at its end that it has ended."""
    name = method.__name__

    @functools.wraps(method)
    def stage(self: "Pipeline") -> None:
        with self.writing():
            inputs = self.inputs(name)
            if self.resume and self.rests(name, inputs):
                return
            expect_resumable(self.folder(name), inputs, self.resume, self.group)
            method(self)
            if self.group.is_main:
                write_ended(self.folder(name), inputs, self._steps, LEFT[name])
            self.group.wait()

    return stage


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
    _is_writing: bool = dataclasses.field(default=False, init=False)
    _steps: int = dataclasses.field(default=0, init=False)
    _has_said_ptx: bool = dataclasses.field(default=False, init=False)

    def __post_init__(self) -> None:
        """Refuse, before anything is written, what cannot be done."""
        c = self.configuration
        check(c)
        if c.model.weights:
            config = read_config(Path(c.model.weights) / "config.json")
            check_context(c, config.n_ctx)
        self._compiler()
        self._say_threads()

    # --- the stages ------------------------------------------------------------------------------

    @_whole_stage
    def pretrain(self) -> None:
        """Learn to say the next token of running text."""
        c = self.configuration
        if c.model.weights:
            cause = "weights that are pretrained already: gptwin train sft goes on from them"
            refuse("model.weights", "none, to pretrain", repr(c.model.weights), cause)
        training, validation = self.pretraining_text
        with torch.random.fork_rng():
            torch.manual_seed(c.run.seed)
            model = self._placed(GPT(c.model.architecture(self.tokenizer.vocab_size)))
        self._train_as_set(model, compiled=True)
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

    @_whole_stage
    def sft(self) -> None:
        """Learn to answer as the demonstrations do."""
        c = self.configuration
        model = self._model("pretrain", c.model.weights, dropout=c.sft.dropout)
        self._train_as_set(model, compiled=True)
        examples, validation = self._demonstrations
        asked = Shuffled(examples, c.sft.batch, c.run.seed, "sft.batch")
        n_windows = round(c.sft.pretraining_share * c.sft.batch)
        if n_windows and c.sft.data and not c.pretrain.data:
            self._say_builtin("sft.pretraining_share", f"{n_windows} windows a step")
        source = (
            Mixed(asked, self._windows(self.pretraining_text[0], n_windows)) if n_windows else asked
        )
        stage = LanguageModelStage(
            "sft", model, source, validation, c.sft,
            c.sft.epochs * asked.steps_per_epoch, self.template.pad, self.group,
        )  # fmt: skip
        rows = self._rows_at_once(c.sft.batch, c.sft.accumulate)
        longest = max(len(example.tokens) for example in examples)
        self._announce("sft", model, training_bytes(model.config, rows, longest, self.group))
        self._run(stage)
        self._export("sft", model)

    @_whole_stage
    def reward(self) -> None:
        """Learn what people prefer from rankings."""
        c = self.configuration
        if c.reward.data:
            training, validation = self._rankings
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
        rows = self._centred_on(training)
        scorer = Scorer(self._model("sft"), c.run.seed)
        self._train_as_set(scorer.trunk)
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
            write_whole(self.folder("reward") / SCORER, functools.partial(save_tensors, state))
        self.group.wait()

    @_whole_stage
    def ppo(self) -> None:
        """Learn to answer so that people prefer the answer."""
        c = self.configuration
        policy = self._model("sft")
        prompts = self._prompts
        asked = Shuffled(prompts, c.ppo.batch, c.run.seed, "ppo.batch")
        value = self._scorer()
        if c.ppo.shared_trunk:
            value.trunk = policy
        stage = PPOStage(
            policy, value, self._score(), asked, c.ppo,
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
        with self.writing():
            self._read_data()
            for name in STAGES:
                if name == "pretrain" and self.configuration.model.weights:
                    continue
                started = time.monotonic()
                getattr(self, name)()
                self.seconds[name] = time.monotonic() - started

    # --- what a stage may begin from -------------------------------------------------------------

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Be the only one that writes to the run's folder while the context lasts."""
        if self._is_writing or not self.group.is_main:
            yield
            return
        root = Path(self.configuration.run.directory)
        with only_writer(root):
            self._is_writing = True
            for left_over in (*root.glob(f"{WRITING}*"), *root.glob(f"*/**/{WRITING}*")):
                shutil.rmtree(left_over, ignore_errors=True)  # of a process that was killed
            try:
                yield
            finally:
                self._is_writing = False

    def ended(self, stage: str) -> bool:
        """Say whether a stage has ended and left what the next one needs."""
        ended = read_ended(self.folder(stage))
        return ended is not None and ended.damage(self.folder(stage)) is None

    def rests(self, stage: str, inputs: Inputs) -> bool:
        """Say whether nothing of a stage is left to do.

        Parameters
        ----------
        stage : str
        inputs : dict
            From `inputs`.

        Returns
        -------
        bool

        Raises
        ------
        ValueError
            If it has ended, from other inputs.
        """
        folder = self.folder(stage)
        ended = read_ended(folder)
        if ended is None:
            return False
        expect_same_inputs(ended.inputs, inputs, folder)
        c = self.configuration.ppo
        if stage == "ppo" and ended.steps != c.episodes // c.batch:
            return False
        damaged = ended.damage(folder)
        if damaged is None:
            return True
        self.say(f"Warning: {folder / damaged} is damaged: writing it again")
        if not (folder / CHECKPOINTS).exists():
            cause = "a damaged disk; there is no checkpoint to write it again from"
            refuse(str(folder / damaged), f"the file that {stage} left", "another", cause)
        return False

    def inputs(self, stage: str) -> Inputs:
        """Return what a stage computes from (training/inputs.py).

        Parameters
        ----------
        stage : str

        Returns
        -------
        dict
        """
        c = self.configuration
        found = settings_of(c, stage)
        also: list[str] = []
        text = ["pretrain.data", "pretrain.time"]
        if stage == "pretrain" or (stage == "sft" and c.model.weights):
            found |= self._files_of(WEIGHTS if c.model.weights else TOKENIZER)
        elif stage == "sft":
            found |= self._files_of("pretrain/model")
        else:
            found |= self._files_of("sft/model")
        if stage == "sft" and c.sft.pretraining_share:
            also += text
        if stage == "reward":
            also += ["sft.data", "sft.examples", "sft.carelessness"]
            also += [] if c.reward.data else ["ppo.max_response"]
        if stage == "ppo":
            also += text if c.ppo.ptx or not c.ppo.data else []
            if self.ended("reward"):
                found |= self._files_of("reward")
        return found | read_by(c, also)

    def _files_of(self, folder: str) -> Inputs:
        """Return the checksums of the model, tokenizer or scorer that a stage begins from."""
        there = Path(self.configuration.run.directory) / folder
        if folder == WEIGHTS:
            there = Path(self.configuration.model.weights)
        elif folder == TOKENIZER:
            self.tokenizer  # noqa: B018 (made, if it is not there)
        else:
            self._expect_ended(folder.partition("/")[0])
        files = [there / SCORER] if folder == "reward" else list(there.iterdir())
        names = checksums(there, (file for file in files if file.is_file()))
        return {f"{folder}/{name}": f"sha256 {found}" for name, found in names.items()}

    def _expect_ended(self, stage: str) -> None:
        folder = self.folder(stage)
        ended = read_ended(folder)
        if ended is None:
            cause = f"{stage} has not been trained: gptwin train {stage} (--resume if it was cut)"
            refuse("run.directory", f"a run in which {stage} has ended", str(folder), cause)
        damaged = ended.damage(folder)
        if damaged and not damaged.startswith(PLOTS):
            cause = f"a damaged disk, or an edit: gptwin train {stage} --resume writes it again"
            refuse(str(folder / damaged), f"the file that {stage} left", "another", cause)

    def say(self, line: str) -> None:
        """Tell the user something, once whatever the number of ranks."""
        if self.group.is_main:
            print(line, file=sys.stderr)

    # --- what they share -------------------------------------------------------------------------

    def folder(self, stage: str) -> Path:
        """Return a stage's folder."""
        return Path(self.configuration.run.directory) / stage

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """The run's tokenizer: that of the weights, the one trained before, or a new one."""
        if self.configuration.model.weights:
            return self._base_tokenizer.with_special_tokens(SPECIAL_TOKENS)
        folder = Path(self.configuration.run.directory) / TOKENIZER
        if self.group.is_main:
            made = read_by(self.configuration, ["pretrain.data", "model.vocab_size"])
            if not _is_whole(folder, made):
                self._train_tokenizer(folder, made)
        self.group.wait()
        return Tokenizer.load(folder)

    def _train_tokenizer(self, folder: Path, made: Inputs) -> None:
        training, _ = self._texts
        spoken = [
            SPACE + message.content
            for e in sources.drawn(0, TOKENIZER_EXERCISES, held_out=False)
            for message in sources.answered(e, e.answer)
        ]
        if self.configuration.pretrain.data:
            self._say_builtin("the tokenizer", "the words of the built-in exercises")
        size = self.configuration.model.vocab_size
        Tokenizer.train([*training, *spoken], size, SPECIAL_TOKENS).save(folder)
        sums = checksums(folder, (f for f in folder.iterdir() if f.is_file() and f.name != MADE))
        write_whole(folder / MADE, json.dumps({"inputs": made, "files": sums}, indent=1) + "\n")

    @functools.cached_property
    def _base_tokenizer(self) -> Tokenizer:
        """The tokenizer of the weights to start from, before a chat's tokens are added."""
        return Tokenizer.load(self.configuration.model.weights)

    @functools.cached_property
    def template(self) -> Template:
        """How a conversation becomes tokens."""
        return Template(self.tokenizer)

    def model_of(self, stage: str) -> GPT:
        """Return a stage's trained model, in evaluation mode."""
        return self._model(stage).eval()

    # --- what they learn from --------------------------------------------------------------------

    @functools.cached_property
    def _n_ctx(self) -> int:
        """Tokens that the model of the chain reads at most."""
        c = self.configuration
        if c.model.weights:
            return read_config(Path(c.model.weights) / "config.json").n_ctx
        for stage in ("sft", "pretrain"):
            if (self.folder(stage) / "model/config.json").exists() and self.ended(stage):
                return read_config(self.folder(stage) / "model/config.json").n_ctx
        return c.model.architecture(self.tokenizer.vocab_size).n_ctx

    @functools.cached_property
    def _demonstrations(self) -> tuple[list[Encoded], list[Encoded]]:
        c = self.configuration
        return sources.demonstrations(
            self.template, c.sft, self._n_ctx, c.run.seed, self.skip_bad_lines
        )

    @functools.cached_property
    def _rankings(self) -> tuple[list[Ranking], list[Ranking]]:
        return sources.rankings(
            self.template, self.configuration.reward, self._n_ctx, self.skip_bad_lines
        )

    @functools.cached_property
    def _prompts(self) -> list[Prompt]:
        c = self.configuration
        return sources.prompts(
            self.template, c.ppo, self._n_ctx, c.run.seed + 1, 4000, self.skip_bad_lines
        )

    def _read_data(self) -> None:
        """Read what the stages that are left will learn from: faults are found before step 1."""
        c = self.configuration
        left = [stage for stage in STAGES if not (self.resume and self.ended(stage))]
        if "pretrain" in left and not c.model.weights:
            self._windows(self.pretraining_text[0], c.pretrain.batch)
        if "sft" in left:
            Shuffled(self._demonstrations[0], c.sft.batch, c.run.seed, "sft.batch")
        if "reward" in left and c.reward.data:
            Shuffled(self._rankings[0], c.reward.batch, c.run.seed, "reward.batch")
        if "ppo" in left:
            Shuffled(self._prompts, c.ppo.batch, c.run.seed, "ppo.batch")
            self._pretraining_term()
            if c.ppo.reward_fn:
                imported(c.ppo.reward_fn)

    def _centred_on(self, training: Sequence[Ranking]) -> list[list[int]]:
        """Return the conversations whose mean reward is to be 0: a labeller's, or the best ranked.

        Where the rankings are the user's and the demonstrations are not, these are exercises, of
        which such a reward model knows nothing.
        """
        c = self.configuration
        if c.reward.data and not c.sft.data:
            self.say(
                "reward: without sft.data, the answers that were ranked best earn 0 on average"
            )
            best = (r.completions[r.ranks.index(min(r.ranks))] for r in training)
            return [r.prompt + answer for r, answer in zip(training[:CENTRED], best, strict=False)]
        rows = [example.tokens for example in self._demonstrations[0][:CENTRED]]
        return [row[: self._n_ctx] for row in rows]

    def _say_builtin(self, setting: str, what: str) -> None:
        """Say that something of gptwin's own is mixed into what the user brought."""
        self.say(f"Note: {setting} mixes in {what}, which gptwin brings along, not your data")

    @functools.cached_property
    def _texts(self) -> tuple[list[str], list[str]]:
        return sources.texts(self.configuration.pretrain, self.skip_bad_lines)

    @functools.cached_property
    def pretraining_text(self) -> tuple[np.ndarray, list[Encoded]]:
        """The tokens to pretrain on, and held-out windows."""
        training, validation = (self._tokens(documents) for documents in self._texts)
        held_out = self._windows(validation, 1, "the held-out part of pretrain.data")
        return training, held_out.all(VALIDATION_WINDOWS)

    def _tokens(self, documents: Sequence[str]) -> np.ndarray:
        return sources.running_tokens(self.tokenizer, documents, self.template.end_of_text)

    def _windows(self, tokens: np.ndarray, batch: int, name: str = "pretrain.data") -> Windows:
        c = self.configuration
        return Windows(tokens, c.pretrain.time, batch, c.run.seed, name)

    def _run(self, stage: Any) -> None:
        self._steps = stage.steps
        train(
            stage, self.configuration, inputs=self.inputs(stage.name), resume=self.resume,
            group=self.group, quiet=self.quiet,
        )  # fmt: skip
        if self.group.is_main:
            plots.learning_curves(self.folder(stage.name))

    def _rows_at_once(self, batch: int, accumulate: int) -> int:
        """Return the examples of a micro-batch on one rank."""
        return -(-batch // (accumulate * self.group.world))

    def _answers_at_once(self, most: int) -> int:
        """Return the answers of a pass without gradients: at most those of PPO's minibatch."""
        c = self.configuration.ppo
        return min(most, self._rows_at_once(c.batch, c.minibatches))

    def _announce(self, stage: str, model: torch.nn.Module, needed: int) -> None:
        if self.group.is_main and not self.quiet:
            size = sum(parameter.numel() for parameter in model.parameters())
            print(announce(stage, size, needed, self.group), file=sys.stderr)

    def _placed(self, model: GPT) -> GPT:
        """Put a model where it computes, and make it fast there."""
        return speed_up(model.to(self.group.device))

    def _train_as_set(self, model: GPT, compiled: bool = False) -> None:
        """Let a model compute as `run.dtype` and, where it only trains, `run.compile` say."""
        run = self.configuration.run
        model.compute_dtype = DTYPES[run.dtype]
        if compiled:
            speed_up(model, self._compiler())

    def _say_threads(self) -> None:
        """Compute with as many threads as the run names, and say where fewer would be faster."""
        if self.group.device.type == "cpu":
            line = use_threads(self.configuration.run.threads)
            if line and not self.quiet:
                self.say(line)

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
        if not weights:
            self._expect_ended(stage)
        config, parameters = load_gpt2(folder, framework="torch")
        if weights:
            known, wanted = self._base_tokenizer.vocab_size, self.tokenizer.vocab_size
            seed = self.configuration.run.seed
            config, parameters = with_vocabulary(config, parameters, known, wanted, seed)
        model = GPT(dataclasses.replace(config, dropout=dropout))
        model.load_state_dict(parameters)
        return self._placed(model)

    def _export(self, stage: str, model: GPT, name: str = "model") -> None:
        state = whole_state(model)
        if self.group.is_main:
            chat = None if stage == "pretrain" else self.template.exported
            save_gpt2(self.folder(stage) / name, model.config, state, self.tokenizer, chat)
        self.group.wait()

    def _scorer(self) -> Scorer:
        """Return the reward model, or an untrained value network where there is none."""
        scorer = Scorer(self._model("sft"), self.configuration.run.seed)
        if read_ended(self.folder("reward")) or not self.configuration.ppo.reward_fn:
            self._expect_ended("reward")
            scorer.load_state_dict(load_file(self.folder("reward") / SCORER))
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
        shard(scorer.trunk, self.group)
        return scoring(scorer, template.pad, self._answers_at_once(SCORED_AT_ONCE))

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
        own_text = c.ppo.pretraining_data or c.pretrain.data
        if c.ppo.data and not own_text and not self._has_said_ptx:
            self._has_said_ptx = True
            what = "Python's documentation"
            self._say_builtin(f"ppo.ptx = {c.ppo.ptx:g} (0: leave it out)", what)
        if c.ppo.pretraining_data:
            data = dataclasses.replace(c.pretrain, data=c.ppo.pretraining_data)
            training = self._tokens(sources.texts(data, self.skip_bad_lines)[0])
        else:
            training, _ = self.pretraining_text
        per_step = max(self.group.world, c.ppo.ptx_ratio * c.ppo.batch // c.ppo.minibatches)
        return self._windows(training, per_step, "ppo.pretraining_data")

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
            grades = grade(
                policy, self.template, prompts, max_response=limit, group=group,
                at_once=min(ANSWERED_AT_ONCE, self._rows_at_once(self.configuration.ppo.batch, 1)),
            )  # fmt: skip
            proxy = score(group.part(prompts), group.part(grades.responses)).sum().item()
            summed, counted = summed_loss(
                policy, windows, self.template.pad, group.device,
                at_once=self._answers_at_once(EVALUATED_AT_ONCE),
            )  # fmt: skip
            return {
                "gold": grades.mean,
                "pass_rate": grades.pass_rate,
                "score": group.total(proxy) / len(prompts),
                "kl": distance(
                    policy,
                    reference,
                    self.template,
                    prompts,
                    grades.responses,
                    at_once=self._answers_at_once(MEASURED_AT_ONCE),
                ),
                "pretraining_loss": summed / counted,
            }

        return judge


def _is_whole(folder: Path, made: Inputs) -> bool:
    """Say whether a tokenizer is there as it was made, from what it would be made from now."""
    try:
        said = json.loads((folder / MADE).read_text(encoding="utf-8"))
        before, files = said["inputs"], said["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    if first_damaged(folder, files) is not None:
        return False
    expect_same_inputs(before, made, folder)
    return True


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
