"""The four stages in one folder, each starting from what the one before it left.

    runs/chat/
      tokenizer/           vocab.json, merges.txt, special tokens
      pretrain/  sft/  reward/  ppo/      a run each (see run.py), and in it
        model/             the stage's model in Hugging Face's layout
      reward/scorer.safetensors           the reward model: trunk and head

`gptwin train all --resume` goes on where the chain was cut. A stage has ended when its `ended.json`
says so, which is written last; it then stays as it is, unless what it left is damaged: then its end
is done again from its last checkpoint.

`Pipeline` holds the stages. It stands on `RunModels` (run_models.py: what they pass on), that on
`RunData` (run_data.py: what they learn from), and that on `RunFolder` (run_folder.py: what has
ended).
"""

import dataclasses
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ..core.checks import refuse
from ..kernels.model.gpt import GPT
from ..records import write_whole
from .bounds import check, check_context
from .data import sources
from .data.batches import Mixed, Shuffled
from .formats.hf_config import read_config
from .formats.tensors import save_tensors
from .judging import plots
from .judging.best_of_n import FILE as BEST_OF_N
from .judging.best_of_n import measure
from .judging.evaluation import ANSWERED_AT_ONCE, MEASURED_AT_ONCE, distance, grade
from .judging.reward_function import ByFunction, imported
from .judging.sampled_rankings import sample_rankings
from .ranks.sharding import shard, whole_state
from .run_folder import PLOTS
from .run_models import RunModels
from .stages.language_model import EVALUATED_AT_ONCE, LanguageModelStage, summed_loss
from .stages.ppo_stage import PPOStage
from .stages.reward_model import SCORED_AT_ONCE, RewardStage, Score, scoring
from .stages.scorer import SCORER, Scorer
from .training.estimate import ppo_bytes, training_bytes
from .training.inputs import write_ended
from .training.run import LOG, SETTINGS, Statistics, expect_resumable, train

STAGES = ("pretrain", "sft", "reward", "ppo")
VALIDATION_PROMPTS = 200
# What each stage leaves in its folder, beside its checkpoints.
TOLD = [SETTINGS, LOG, PLOTS]
LEFT = {
    "pretrain": ["model", *TOLD],
    "sft": ["model", *TOLD],
    "reward": [SCORER, *TOLD],
    "ppo": ["model", "ema", BEST_OF_N, *TOLD],
}


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
class Pipeline(RunModels):
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

    seconds: dict[str, float] = dataclasses.field(default_factory=dict, init=False)
    _steps: int = dataclasses.field(default=0, init=False)

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
        _, validation = self.pretraining_text
        source = self._pretraining_source()
        with torch.random.fork_rng():
            torch.manual_seed(c.run.seed)
            model = self._placed(GPT(c.model.architecture(self.tokenizer.vocab_size)))
        self._train_as_set(model, compiled=True)
        stage = LanguageModelStage(
            "pretrain", model, source, validation,
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
                    say=self.say,
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

    # --- what they share -------------------------------------------------------------------------

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

    def _run(self, stage: Any) -> None:
        self._steps = stage.steps
        train(
            stage, self.configuration, inputs=self.inputs(stage.name), resume=self.resume,
            group=self.group, quiet=self.quiet,
        )  # fmt: skip
        if self.group.is_main:
            plots.learning_curves(self.folder(stage.name))

    # --- what scores and judges PPO's answers ----------------------------------------------------

    def _score(self) -> Score:
        """Return what scores the policy's answers: the reward model, or the user's function."""
        if self.configuration.ppo.reward_fn:
            function = imported(self.configuration.ppo.reward_fn)
            return ByFunction(function, self.template, self.group.device)
        scorer = self._scorer().requires_grad_(False).eval()
        shard(scorer.trunk, self.group)
        return scoring(scorer, self.template.pad, self._answers_at_once(SCORED_AT_ONCE))

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
