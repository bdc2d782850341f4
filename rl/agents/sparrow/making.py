"""How Sparrow is made: the stages of its run, each from what the ones before it left."""

import copy
import dataclasses
import functools
import hashlib
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ....core.checks import refuse
from ....kernels.model.gpt import GPT
from ....records import write_whole
from ...data.dialogue import Message, Template
from ...data.rankings import Ranking
from ...data.records import Dialogue, Label, Preference, Record
from ...data.sources import HELD_OUT, Prompt, exercise_prompts
from ...formats.tensors import save_tensors
from ...stages.ppo_stage import PPOStage
from ...stages.reward_model import RewardStage, scoring
from ...stages.scorer import SCORER, Scorer, load_scorer
from ...training.inputs import Inputs
from ..base import Base, base
from ..run import files_of, load_model, run_stage, save_model
from ..world.probes import probes
from ..world.rules import ALL_RULES, HOUSE, Messages
from ..world.users import User
from .labels import asked_about, labels_of, questions, rankings, rankings_of, rule_labels
from .policy import POLICY, PREFERENCE, policy_stage, preference_stage
from .probing import Attack, attack, drawn_by_kind, labels_from, on_twins
from .reward import SparrowReward
from .rule_model import Rule, RuleLabel, RuleModel, RuleSettings, RuleStage
from .settings import READ, SparrowSettings

RULES = "rules.json"
VALIDATION = 200  # held-out labels, and rankings


@dataclasses.dataclass(frozen=True)
class OwnRule:
    """A rule that somebody's labels name: it holds everywhere, and no program checks it."""

    text: str

    def applies(self, messages: Messages) -> bool:
        """Say that it does."""
        return True


def rules_named(texts: Sequence[str]) -> list[Rule]:
    """Return rules by their texts: the world's where they are such, else `OwnRule`."""
    known: dict[str, Rule] = {rule.text: rule for rule in ALL_RULES}
    return [known.get(text, OwnRule(text)) for text in texts]


def read_rules(folder: Path, policy: GPT, template: Template) -> RuleModel:
    """Read the rule model that a stage left, for a policy of the same sizes."""
    texts = json.loads((folder / RULES).read_text(encoding="utf-8"))
    scorer = load_scorer(folder / SCORER, policy.config)
    return RuleModel(scorer, template, rules_named(texts))


class _Probed(NamedTuple):
    """What a round of probing found, and what was said to the benign twins of that."""

    found: list[Attack]
    twins: list[Attack]


@dataclasses.dataclass(eq=False)
class Making:
    """A run: each stage is made when it is asked for, and only if it has not ended.

    Attributes
    ----------
    folder : pathlib.Path
    settings : SparrowSettings
    records : sequence of Record or None
        The user's own; None: the embedded world.
    quiet : bool
        No progress bars.
    """

    folder: Path
    settings: SparrowSettings
    records: Sequence[Record] | None = None
    quiet: bool = False
    _probed: dict[int, _Probed] = dataclasses.field(default_factory=dict, init=False)

    def all(self) -> None:
        """Train every stage that is left."""
        self.preference()
        for number in range(1 + self.rounds):
            self.rules(number)
            self.policy(number)

    # --- what it learns from ---------------------------------------------------------------------

    @functools.cached_property
    def base(self) -> Base:
        """The model that all stages begin from."""
        return base(self.settings.base, quiet=self.quiet)

    @property
    def rounds(self) -> int:
        """Rounds of probing: none where no program checks the rules."""
        return 0 if self.records else self.settings.rounds

    @functools.cached_property
    def rules_kept(self) -> list[Rule]:
        """The rules that the agent is to keep."""
        if self.records:
            named = (r.rule for r in self.records if isinstance(r, Label) and r.rule)
            return rules_named(list(dict.fromkeys(named)))
        return list(HOUSE)

    @functools.cached_property
    def rankings(self) -> tuple[list[Ranking], list[Ranking]]:
        """Rankings to learn from, and held out."""
        s, b = self.settings, self.base
        if self.records:
            own = [record for record in self.records if isinstance(record, Preference)]
            return _divided(rankings_of(own, b.template), "preferences")
        training, validation = (
            rankings(
                b.model, b.template, itertools.islice(questions(s.seed, held_out=held_out), n),
                s.ranked, s.noise, max_response=s.max_response, seed=s.seed,
            )
            for held_out, n in ((False, s.rankings), (True, VALIDATION))
        )  # fmt: skip
        return training, validation

    @functools.cached_property
    def labels(self) -> tuple[list[RuleLabel], list[RuleLabel]]:
        """Labels to learn from, and held out."""
        s, b = self.settings, self.base
        if self.records:
            own = [record for record in self.records if isinstance(record, Label)]
            return _divided(labels_of(own, b.template), "labels with a rule")
        rater = User(f"rater {s.seed}", rate=s.slips)
        training, validation = (
            rule_labels(
                b.model, b.template, asked_about(ALL_RULES, s.seed, held_out=held_out), n,
                max_response=s.max_response, seed=s.seed, user=rater,
            )
            for held_out, n in ((False, s.labels), (True, VALIDATION))
        )  # fmt: skip
        return training, validation

    @functools.cached_property
    def prompts(self) -> list[Prompt]:
        """What PPO asks, beside the probes that were found."""
        if self.records:
            return [_prompt(record, self.base.template) for record in self.records if _asks(record)]
        drawn = questions(self.settings.seed + 1, held_out=False)
        chosen = itertools.islice(drawn, self.settings.prompts)
        return exercise_prompts(self.base.template, chosen)

    # --- the stages ------------------------------------------------------------------------------

    def preference(self) -> None:
        """Train the preference model."""

        def stage() -> RewardStage:
            b, (training, validation) = self.base, self.rankings
            settings = dataclasses.replace(PREFERENCE, batch=min(PREFERENCE.batch, len(training)))
            return preference_stage(
                b.model, training, validation, b.template, settings, self.settings.seed
            )

        self._run(0, "reward", stage, lambda made, there: _save(made.scorer, there))

    def rules(self, number: int) -> None:
        """Train the rule model of a round on all labels, those of its probing among them."""

        def stage() -> RuleStage:
            b, s, (training, validation) = self.base, self.settings, self.labels
            rater = User(f"rater {s.seed}", rate=s.slips)
            said = [one for part in self._probed_until(number) for one in part.found + part.twins]
            labels = [*training, *labels_from(said, b.template, rater)]
            scorer = Scorer(copy.deepcopy(b.model), s.seed)
            return RuleStage(scorer, labels, validation, RuleSettings(), b.template, s.seed)

        def save(made: RuleStage, there: Path) -> None:
            _save(made.scorer, there)
            texts = [rule.text for rule in self.rules_kept]
            write_whole(there / RULES, json.dumps(texts, indent=1) + "\n")

        self._run(number, "rules", stage, save, (SCORER, RULES))

    def policy(self, number: int) -> None:
        """Train the policy of a round on preference and rules, and ask it what probing found."""

        def stage() -> PPOStage:
            b, s = self.base, self.settings
            preference = load_scorer(self.folder / "reward" / SCORER, b.model.config)
            rules = read_rules(self._round(number) / "rules", b.model, b.template)
            reward = SparrowReward(
                scoring(preference, b.template.pad), rules, b.template.end,
                rule_weight=s.rule_weight, length_weight=s.length_weight,
                format_weight=s.format_weight,
            )  # fmt: skip
            hard = [a.probe.exercise for part in self._probed_until(number) for a in part.found]
            prompts = [*self.prompts, *exercise_prompts(b.template, hard)]
            batch = min(POLICY.batch, len(prompts))
            settings = dataclasses.replace(
                POLICY, episodes=max(s.episodes, batch), batch=batch,
                minibatches=min(POLICY.minibatches, batch), max_response=s.max_response,
            )  # fmt: skip
            return policy_stage(b.model, preference, reward, prompts, b.template, settings, s.seed)

        self._run(
            number, "ppo", stage,
            lambda made, there: save_model(there, made.policy, self.base.template), ("model",),
        )  # fmt: skip

    def _probed_until(self, number: int) -> list[_Probed]:
        """Return what the rounds of probing up to one found; nothing before the first."""
        for n in range(1, number + 1):
            if n not in self._probed:
                self._probed[n] = self._probe(n)
        return [self._probed[n] for n in range(1, number + 1)]

    def _probe(self, number: int) -> _Probed:
        """Probe the agent of the round before."""
        s, before = self.settings, self._round(number - 1)
        policy, template = load_model(before / "ppo")
        rules = read_rules(before / "rules", policy, template)
        drawn = drawn_by_kind(probes(s.seed + 1000 * number, held_out=False), s.probes, s.worst_of)
        few: dict[str, int] = {"max_response": s.max_response, "seed": s.seed + number}
        found = attack(policy, rules, template, drawn, s.worst_of, **few)
        return _Probed(found, on_twins(policy, rules, template, found, **few))

    # --- where it is kept ------------------------------------------------------------------------

    def _round(self, number: int) -> Path:
        """Return a round's folder; that of the run itself before there is any."""
        return self.folder / f"round-{number}" if number else self.folder

    def _run(
        self, number: int, name: str, stage: Any, save: Any, left: tuple[str, ...] = (SCORER,)
    ) -> None:
        run_stage(
            self._round(number), self._inputs(number, name), stage, save, name=name, left=left,
            seed=self.settings.seed, quiet=self.quiet,
        )  # fmt: skip

    def _inputs(self, number: int, name: str) -> Inputs:
        """Return what a stage computes from: settings, the base, and the stages before it."""
        said = {f"sparrow.{key}": getattr(self.settings, key) for key in READ[name]}
        found = said | self.base.inputs
        if self.records:
            text = "\n".join(map(repr, self.records))
            found["sparrow.data"] = f"sha256 {hashlib.sha256(text.encode()).hexdigest()}"
        before = {
            "reward": [],
            "rules": [self._round(number - 1) / "ppo/model"] if number else [],
            "ppo": [self.folder / "reward", self._round(number) / "rules"],
        }[name]
        for there in before:
            files = files_of(there, str(there.relative_to(self.folder)))
            found |= {
                file: sum_ for file, sum_ in files.items() if file.endswith((".safetensors", RULES))
            }
        return found


def _save(scorer: Scorer, folder: Path) -> None:
    state = {name: tensor.contiguous() for name, tensor in scorer.state_dict().items()}
    write_whole(folder / SCORER, functools.partial(save_tensors, state))


def _divided(found: list, what: str) -> tuple[list, list]:
    """Keep every tenth for validation."""
    if len(found) < 2:
        cause = "sparrow learns from preferences and from labels that name a rule: it needs both"
        refuse("data", f"{what}, 2 at least", str(len(found)), cause)
    return [one for i, one in enumerate(found) if i % HELD_OUT], found[::HELD_OUT]


def _asks(record: Record) -> bool:
    return isinstance(record, Preference | Label | Dialogue)


def _prompt(record: Record, template: Template) -> Prompt:
    """Return the turns of a record up to where the assistant is to speak."""
    assert isinstance(record, Preference | Label | Dialogue)
    messages: tuple[Message, ...] = (
        record.prompt if isinstance(record, Preference) else record.messages
    )
    if messages[-1].role == "assistant":
        messages = messages[:-1]
    return Prompt(template.prompt(messages), tuple(messages))
