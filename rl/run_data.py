"""What a run learns from: tokenizer, texts, examples; and the record of each stage's inputs.

Everything is read, or made, when it is first asked for, and then kept.
"""

import dataclasses
import functools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..records import write_whole
from .corpus.draws import Mixture, Stream
from .corpus.mixture import (
    Set,
    described,
    files_of,
    is_mixture,
    plan_sets,
    read_mixture,
    read_texts,
)
from .data import sources
from .data.batches import Windows
from .data.dialogue import SPACE, SPECIAL_TOKENS, Encoded, Template
from .data.rankings import Ranking
from .data.sources import Prompt
from .formats.checksums import checksums, damaged
from .formats.hf_config import read_config
from .formats.tokenizer import Tokenizer
from .run_folder import RunFolder
from .stages.scorer import SCORER
from .training.inputs import Inputs, expect_same_inputs, read_by, settings_of

VALIDATION_WINDOWS = 64
CENTRED = 400  # conversations whose mean reward becomes 0
WEIGHTS = "model.weights"  # the folder that this setting names
TOKENIZER, MADE = "tokenizer", "made.json"  # the tokenizer's folder, and its ended.json
# As much text as the documentation, so that the exercises' words become tokens, too.
TOKENIZER_EXERCISES = 32_000


@dataclasses.dataclass
class RunData(RunFolder):
    """A run's folder, and what the run's stages learn from."""

    _has_said_ptx: bool = dataclasses.field(default=False, init=False)

    # --- what a stage computes from --------------------------------------------------------------

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
        return self._with_sets(found | read_by(c, also))

    def _with_sets(self, inputs: Inputs) -> Inputs:
        """Add the checksums of a mixture's files, where pretrain.data is one of the inputs."""
        data = self.configuration.pretrain.data
        if "pretrain.data" not in inputs or not is_mixture(data):
            return inputs
        sets = {
            f"{s.name} in pretrain.data": checksums(
                s.path if s.path.is_dir() else s.path.parent, files_of(s.path)
            )
            for s in self._sets
        }
        return inputs | sets

    def _files_of(self, folder: str) -> Inputs:
        """Return the checksums of the model, tokenizer or scorer that a stage begins from."""
        if folder == WEIGHTS:
            there = Path(self.configuration.model.weights)
        elif folder == TOKENIZER:
            there = self._tokenizer_folder
        else:
            there = Path(self.configuration.run.directory) / folder
            self._expect_ended(folder.partition("/")[0])
        files = [there / SCORER] if folder == "reward" else list(there.iterdir())
        names = checksums(there, (file for file in files if file.is_file()))
        return {f"{folder}/{name}": f"sha256 {found}" for name, found in names.items()}

    # --- the tokenizer ---------------------------------------------------------------------------

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """The run's tokenizer: that of the weights, the one trained before, or a new one."""
        if self.configuration.model.weights:
            return self._base_tokenizer.with_special_tokens(SPECIAL_TOKENS)
        return Tokenizer.load(self._tokenizer_folder)

    @functools.cached_property
    def _tokenizer_folder(self) -> Path:
        """Where the run's own tokenizer is, once it has been trained if it was not."""
        folder = Path(self.configuration.run.directory) / TOKENIZER
        if self.group.is_main:
            made = read_by(self.configuration, ["pretrain.data", "model.vocab_size"])
            made = self._with_sets(made)
            if not _is_whole(folder, made):
                self._train_tokenizer(folder, made)
        self.group.wait()
        return folder

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

    # --- running text ----------------------------------------------------------------------------

    @functools.cached_property
    def _sets(self) -> list[Set]:
        """The sets of a mixture; none where pretrain.data is a file of texts."""
        data = self.configuration.pretrain.data
        return read_mixture(data) if is_mixture(data) else []

    @functools.cached_property
    def _texts_of_sets(self) -> dict[str, tuple[list[str], list[str]]]:
        """Of each set the texts to train on, and those that are held out."""
        found = {s.name: read_texts(s.path) for s in self._sets}
        return {name: sources.divided_texts(texts, name) for name, texts in found.items()}

    @functools.cached_property
    def _texts(self) -> tuple[list[str], list[str]]:
        if not self._sets:
            return sources.texts(self.configuration.pretrain, self.skip_bad_lines)
        training, validation = zip(*self._texts_of_sets.values(), strict=True)
        return [text for texts in training for text in texts], [
            text for texts in validation for text in texts
        ]

    def _pretraining_source(self) -> Windows | Mixture:
        """Return what each step of pretraining reads; of a mixture the plan is told."""
        c = self.configuration
        if not self._sets:
            return self._windows(self.pretraining_text[0], c.pretrain.batch)
        streams = {
            name: Stream([self._tokens([text]) for text in training], c.run.seed, name)
            for name, (training, _) in self._texts_of_sets.items()
        }
        sizes = {name: stream.size for name, stream in streams.items()}
        p = c.pretrain
        planned = plan_sets(self._sets, sizes, p.steps * p.batch * p.time)
        self.say(described(planned, self._sets))
        weights = [each.weight for each in planned]
        chosen = [streams[each.name] for each in planned]
        return Mixture(chosen, weights, p.time, p.batch, p.steps, c.run.seed)

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

    # --- conversations ---------------------------------------------------------------------------

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


def _is_whole(folder: Path, made: Inputs) -> bool:
    """Say whether a tokenizer is there as it was made, from what it would be made from now."""
    try:
        said = json.loads((folder / MADE).read_text(encoding="utf-8"))
        before, files = said["inputs"], said["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    if damaged(folder, files):
        return False
    expect_same_inputs(before, made, folder)
    return True
