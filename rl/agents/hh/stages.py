"""The stages of an agent's run, in their order, each in a folder of its own.

    instructed           the base learns to obey a prompt                       instructions.py
    distilled            a system's turn is distilled into it                   distillation.py
    votes                a preference model learns from votes                   preference_model.py
    judge-1, policy-1    it learns from comparisons, λ between helpful and
                         harmless; PPO follows it                               online.py
    judge-2, policy-2    the same, with what the new policy says compared, too
    detector.json        what known prompts look like                           outliers.py

Every judge begins from what votes taught, and every policy from the distilled model; the
comparisons of all rounds so far are learnt from.
"""

import dataclasses
import functools
import hashlib
import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ....core.checks import refuse
from ....kernels.model.gpt import GPT
from ...bounds import ABOVE_0, ANY, COUNT, FROM_0, SHARE, setting
from ...configuration import PPOSettings
from ...data.dialogue import Template
from ...data.rankings import Ranking
from ...data.records import Preference, Record
from ...data.sources import Prompt, exercise_prompts
from ...data.tasks import Exercise, exercises
from ...formats.tensors import save_tensors
from ...stages.ppo_stage import PPOStage
from ...stages.scorer import SCORER, Scorer, load_scorer
from ...training.inputs import Inputs
from ..base import BaseSettings, base
from ..run import MODEL, files_of, load_model, run_stage, save_model
from ..world.probes import benign, probes
from ..world.rules import HOUSE
from .comparisons import AXES, compare, voted
from .distillation import DistillationSettings, DistillationStage, store
from .instructions import InstructionSettings, instruction_stage
from .online import policy_stage
from .outliers import Detector, fit_detector, states
from .preference_model import PreferenceSettings, PreferenceStage

DETECTOR = "detector.json"
# What of the house can be said without a conversation: the forbidden words.
PROMPT = " ".join(rule.text for rule in HOUSE if rule.kind == "R1")
HELD_OUT = 300  # exercises
PROMPTS = 600  # that PPO answers


@dataclasses.dataclass(frozen=True)
class Settings:
    """How the agent is made, and how it answers.

    Attributes
    ----------
    base, instructions, distillation, preferences, policy
        Of the stages; the policy's are PPO's.
    prompt : str
        The system's turn that is distilled; empty: none.
    questions : int
        Questions whose answers the public votes on; 0: no pretraining of the judge.
    rounds, comparisons : int
        Rounds of collecting; prompts of each kind in a round.
    noise : float
        The labellers', in worth.
    harmless_weight : float
        λ of the harmless comparisons. Bai et al. find 2 to 3 best; at this size that makes the
        agent refuse what it may say (docs/agents.md).
    candidates : int
        Answers sampled, of which the judge picks one.
    max_response : int
        Tokens an answer may have.
    refused : float
        The share of known prompts that may be taken for strange ones.
    """

    base: BaseSettings = dataclasses.field(default_factory=BaseSettings)
    instructions: InstructionSettings = dataclasses.field(default_factory=InstructionSettings)
    distillation: DistillationSettings = dataclasses.field(default_factory=DistillationSettings)
    preferences: PreferenceSettings = dataclasses.field(
        default_factory=functools.partial(PreferenceSettings, epochs=2)
    )
    policy: PPOSettings = dataclasses.field(
        default_factory=functools.partial(
            PPOSettings, episodes=640, batch=64, minibatches=2, max_response=16, lr=3e-4,
            value_lr=1e-3, lr_warmup=2, ptx=0.0,
        )
    )  # fmt: skip
    prompt: str = setting(PROMPT, ANY)
    questions: int = setting(1000, FROM_0)
    rounds: int = setting(1, COUNT)
    comparisons: int = setting(2000, COUNT)
    noise: float = setting(0.2, ABOVE_0)
    harmless_weight: float = setting(0.5, FROM_0)
    candidates: int = setting(8, COUNT)
    max_response: int = setting(16, COUNT)
    refused: float = setting(0.02, SHARE)


class Run:
    """An agent's run in a folder.

    Parameters
    ----------
    folder : pathlib.Path
    settings : Settings
    records : sequence of Record, optional
        The user's own comparisons, which stand for all that the world would give.
    quiet : bool
        No progress bars.

    Raises
    ------
    ValueError
        If none of the records is a comparison.
    """

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        records: Sequence[Record] | None,
        quiet: bool,
    ) -> None:
        self.folder, self.settings, self.quiet = folder, settings, quiet
        self.begun = base(settings.base, quiet=quiet)
        self.template: Template = self.begun.template
        self.seed = settings.base.seed
        self.own = None if records is None else self._own(records)

    def run(self) -> None:
        """Train all stages that are left."""
        self.instructed()
        self.votes()
        for number in range(1, self.rounds + 1):
            self.judge(number)
            self.policy(number)
        self.detector()

    @property
    def rounds(self) -> int:
        """How many there are; nobody can be asked anew about what a user has compared."""
        return 1 if self.own is not None else self.settings.rounds

    def instructed(self) -> None:
        """Make the model that policies begin from: with the prompt distilled into it."""
        s = self.settings
        if not s.prompt:
            return
        self._stage(
            "instructed",
            _said("instructions", s.instructions) | {"hh.prompt": s.prompt} | self.begun.inputs,
            lambda: instruction_stage(
                self.begun.model, self.template, s.instructions, s.prompt, self.seed
            ),
            lambda stage, there: save_model(there, stage.model, self.template),
        )  # fmt: skip
        self._stage(
            "distilled", _said("distillation", s.distillation) | {"hh.prompt": s.prompt}
            | self._left("instructed"),
            self._distillation,
            lambda stage, there: save_model(there, stage.student, self.template),
        )  # fmt: skip

    def _distillation(self) -> DistillationStage:
        s = self.settings
        teacher, _ = load_model(self.folder / "instructed")
        student, _ = load_model(self.folder / "instructed")
        training, validation = (
            store(teacher, self.template, s.prompt, self._mixed(n, held_out), s.distillation.kept,
                  max_response=s.max_response, seed=self.seed)
            for n, held_out in ((s.distillation.prompts, False), (HELD_OUT, True))
        )  # fmt: skip
        return DistillationStage(
            student, self.template, training, validation, s.distillation, self.seed
        )

    def first(self) -> GPT:
        """Return the model that policies begin from."""
        if not self.settings.prompt:
            return self.begun.model
        return load_model(self.folder / "distilled")[0]

    def votes(self) -> None:
        """Pretrain the preference model on votes for answers."""
        s = self.settings
        if not s.questions or self.own is not None:
            return

        def make() -> PreferenceStage:
            asked = list(itertools.islice(exercises(self.seed + 1, held_out=False), s.questions))
            ranked = voted(
                self.first(), self.template, asked, noise=s.noise, max_response=s.max_response,
                seed=self.seed,
            )  # fmt: skip
            return self._taught("votes", Scorer(self.first(), self.seed), {"votes": ranked}, {})

        inputs = _said("preferences", s.preferences) | {"hh.questions": s.questions,
                                                        "hh.noise": s.noise}  # fmt: skip
        self._stage("votes", inputs | self._first_files(), make, _save_scorer, SCORER)

    def judge(self, number: int) -> None:
        """Teach a preference model by the comparisons of all rounds so far."""
        s, name = self.settings, f"judge-{number}"
        inputs: Inputs = _said("preferences", s.preferences) | {
            "hh.harmless_weight": s.harmless_weight, "hh.noise": s.noise,
            "hh.comparisons": s.comparisons, "hh.records": self._records(),
        } | self._begun_from()  # fmt: skip
        for before in range(1, number):
            inputs |= self._left(f"policy-{before}")

        def make() -> PreferenceStage:
            kinds = self.comparisons(number)
            weights = {"harmless": s.harmless_weight} if "harmless" in kinds else {}
            return self._taught(name, self._untaught(), kinds, weights)

        self._stage(name, inputs, make, _save_scorer, SCORER)

    def policy(self, number: int) -> None:
        """Let PPO follow the round's judge."""
        s, name = self.settings, f"policy-{number}"

        def make() -> PPOStage:
            stage = policy_stage(
                self.first(), self.scorer(number), self._prompts(), self.template, s.policy,
                seed=self.seed,
            )  # fmt: skip
            stage.name = name
            return stage

        inputs = _said("policy", s.policy) | self._left(f"judge-{number}", SCORER)
        self._stage(
            name, inputs, make, lambda stage, there: save_model(there, stage.policy, self.template)
        )

    def detector(self) -> Detector:
        """Fit what known prompts look like to the last policy; quick, and so always anew."""
        model, _ = load_model(self.folder / f"policy-{self.rounds}")
        prompts = [p.ids for p in self._prompts()]
        known = states(model, prompts, self.template.pad)
        found = fit_detector(known, self.settings.refused)
        found.save(self.folder / DETECTOR)
        return found

    # --- what they learn from --------------------------------------------------------------------

    def comparisons(self, rounds: int) -> dict[str, list[Ranking]]:
        """Collect the comparisons of the first rounds, of each kind.

        In each round the two newest policies answer, the first one among them at the beginning.
        """
        if self.own is not None:
            return {"helpful": self.own}
        s = self.settings
        policies = [self.first()]
        found: dict[str, list[Ranking]] = {axis: [] for axis in AXES}
        for number in range(1, rounds + 1):
            for axis, draw in (("helpful", self._benign), ("harmless", self._probes)):
                found[axis] += compare(
                    policies[-2:], self.template, draw(s.comparisons, number), axis, noise=s.noise,
                    max_response=s.max_response, seed=self.seed + number,
                )  # fmt: skip
            if number < rounds:
                policies.append(load_model(self.folder / f"policy-{number}")[0])
        return found

    def _benign(self, n: int, number: int) -> list[Exercise]:
        return list(itertools.islice(benign(self.seed + 10 * number, held_out=False), n))

    def _probes(self, n: int, number: int) -> list[Exercise]:
        drawn = probes(self.seed + 10 * number, held_out=False)
        return [p.exercise for p in itertools.islice(drawn, n)]

    def _mixed(self, n: int, held_out: bool = False) -> list[Exercise]:
        """Draw benign exercises and probes in turn, and the probes' twins."""
        drawn = itertools.chain.from_iterable(
            (exercise, probe.exercise, probe.twin)
            for exercise, probe in zip(
                benign(self.seed, held_out=held_out), probes(self.seed, held_out=held_out),
                strict=False,
            )
        )  # fmt: skip
        return list(itertools.islice(drawn, n))

    def _prompts(self) -> list[Prompt]:
        """Return what PPO answers, and what the detector knows."""
        if self.own is not None:
            return [Prompt(ranking.prompt, ()) for ranking in self.own]
        return exercise_prompts(self.template, self._mixed(PROMPTS))

    def _own(self, records: Sequence[Record]) -> list[Ranking]:
        found = [
            Ranking(
                self.template.prompt(r.prompt),
                [self.template.response(text) for text in r.completions],
                list(r.ranks),
            )
            for r in records
            if isinstance(r, Preference)
        ]
        if not found:
            cause = "labels or feedback, which other agents learn from"
            refuse("records", "comparisons, chosen and rejected", f"{len(records)} others", cause)
        room = self.begun.model.config.n_ctx
        longest = max(map(len, found))
        if longest > room:
            cause = "a base with a longer context: base.n_ctx"
            refuse("records", f"conversations of {room} tokens at most", f"{longest}", cause)
        return found

    # --- what they share -------------------------------------------------------------------------

    def scorer(self, number: int) -> Scorer:
        """Return the judge of a round, frozen."""
        return load_scorer(self.folder / f"judge-{number}" / SCORER, self.begun.model.config)

    def _untaught(self) -> Scorer:
        """Return the preference model that every judge begins from."""
        file = self.folder / "votes" / SCORER
        if not file.exists():
            return Scorer(self.first(), self.seed)
        return load_scorer(file, self.begun.model.config).requires_grad_(True)

    def _taught(
        self, name: str, scorer: Scorer, kinds: dict[str, list[Ranking]], weights: dict[str, float]
    ) -> PreferenceStage:
        validation = {} if self.own is not None else self._validation()
        return PreferenceStage(
            name, scorer, kinds, weights, validation, self.settings.preferences,
            self.template.pad, self.seed,
        )  # fmt: skip

    def _validation(self) -> dict[str, list[Ranking]]:
        """Compare answers to prompts that nothing is taught by."""
        asked = {
            "helpful": list(itertools.islice(benign(0, held_out=True), HELD_OUT)),
            "harmless": [p.exercise for p in itertools.islice(probes(0, held_out=True), HELD_OUT)],
        }
        found = {
            axis: compare([self.first()], self.template, of, axis, noise=self.settings.noise,
                          max_response=self.settings.max_response, seed=0)
            for axis, of in asked.items()
        }  # fmt: skip
        return {axis: rankings for axis, rankings in found.items() if rankings}

    def _stage(
        self,
        name: str,
        inputs: Inputs,
        make: Callable[[], Any],
        save: Callable[[Any, Path], None],
        left: str = MODEL,
    ) -> None:
        run_stage(
            self.folder, inputs, make, save, name=name, left=(left,), seed=self.seed,
            quiet=self.quiet,
        )  # fmt: skip

    def _left(self, stage: str, what: str = MODEL) -> Inputs:
        """Return the checksums of what a stage left."""
        there = self.folder / stage
        found = files_of(there / what if what == MODEL else there, stage)
        return {k: v for k, v in found.items() if what == MODEL or k == f"{stage}/{what}"}

    def _first_files(self) -> Inputs:
        """Return the checksums of the model that policies and judges begin from."""
        return self._left("distilled") if self.settings.prompt else self.begun.inputs

    def _begun_from(self) -> Inputs:
        """Return the checksums of all that a judge begins from."""
        voted_on = (self.folder / "votes" / SCORER).exists()
        return self._first_files() | (self._left("votes", SCORER) if voted_on else {})

    def _records(self) -> str:
        """Say which comparisons are the user's."""
        if self.own is None:
            return "the world's"
        return f"{len(self.own)} of the user's, {hash_of(self.own)}"


def hash_of(rankings: Sequence[Ranking]) -> str:
    """Return a checksum of comparisons."""
    said = json.dumps([dataclasses.asdict(r) for r in rankings])
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def _said(table: str, settings: Any) -> Inputs:
    """Return settings as inputs; what JSON reads back is compared, so tuples are lists."""
    return {
        f"{table}.{name}": list(value) if isinstance(value, tuple) else value
        for name, value in dataclasses.asdict(settings).items()
    }


def _save_scorer(stage: PreferenceStage, there: Path) -> None:
    save_tensors(stage.scorer.state_dict(), there / SCORER)
