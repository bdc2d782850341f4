"""A run's models: loaded from the stage before, placed where they compute, written for the next.

How fast they compute is set here, too: threads, data type, compiler and the rows of a pass.
"""

import dataclasses
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from ..core.checks import refuse
from ..kernels.cpu import speed_up
from ..kernels.cpu.speed import has_cpp_compiler
from ..kernels.model.gpt import GPT
from .formats.weights import load_gpt2, save_gpt2, with_vocabulary
from .ranks.sharding import whole_state
from .run_data import RunData
from .stages.scorer import SCORER, Scorer
from .training.estimate import announce
from .training.inputs import read_ended
from .training.threads import use_threads

DTYPES = {"float32": None, "bfloat16": torch.bfloat16}  # None: as the parameters are


@dataclasses.dataclass
class RunModels(RunData):
    """A run's folder, its data, and the models that its stages pass on."""

    # --- from stage to stage ---------------------------------------------------------------------

    def model_of(self, stage: str) -> GPT:
        """Return a stage's trained model, in evaluation mode."""
        return self._model(stage).eval()

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

    def _scorer(self) -> Scorer:
        """Return the reward model, or an untrained value network where there is none."""
        scorer = Scorer(self._model("sft"), self.configuration.run.seed)
        if read_ended(self.folder("reward")) or not self.configuration.ppo.reward_fn:
            self._expect_ended("reward")
            scorer.load_state_dict(load_file(self.folder("reward") / SCORER))
        return scorer

    def _export(self, stage: str, model: GPT, name: str = "model") -> None:
        state = whole_state(model)
        if self.group.is_main:
            chat = None if stage == "pretrain" else self.template.exported
            save_gpt2(self.folder(stage) / name, model.config, state, self.tokenizer, chat)
        self.group.wait()

    # --- where and how fast they compute ---------------------------------------------------------

    def _placed(self, model: GPT) -> GPT:
        """Put a model where it computes, and make it fast there."""
        return speed_up(model.to(self.group.device))

    def _train_as_set(self, model: GPT, compiled: bool = False) -> None:
        """Let a model compute as `run.dtype` and, where it only trains, `run.compile` say."""
        run = self.configuration.run
        model.compute_dtype = DTYPES[run.dtype]
        if compiled:
            speed_up(model, self._compiler())

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

    def _say_threads(self) -> None:
        """Compute with as many threads as the run names, and say where fewer would be faster."""
        if self.group.device.type == "cpu":
            line = use_threads(self.configuration.run.threads)
            if line and not self.quiet:
                self.say(line)

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
