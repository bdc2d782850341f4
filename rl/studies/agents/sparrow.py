"""Sparrow's claims, measured in the world whose rules a program checks.

    rules      6   one classifier that reads a rule: AUC by labels; of words and kinds it never saw;
                   beside a classifier that is only asked "harmful?", at as many labels
    policies   7   reinforcement learning on preference alone, and with rules at several weights;
                   and what reranking of 8 adds to each
    probing    8   violations by round of probing: the worst of four probes, or any probe
    twins      8   the same, where answers to the benign twins are labelled as well

What could have been seen is known: raters here do not slip, so that the program's own AUC is 1; and
the same reward with the program in place of the classifier says what rules could do at best.

What a seed found is kept beside the runs, part by part, so that a study that was cut short goes on.
"""

import copy
import functools
import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ....core.dialogue.outliers import auroc
from ....core.dialogue.sparrow import choose
from ....records import json_lines, read_json_lines, write_whole
from ...agents.base import Base, BaseSettings, base
from ...agents.sparrow.labels import answers, asked_about, questions, rankings, rule_labels
from ...agents.sparrow.policy import POLICY, policy_stage, preference_stage
from ...agents.sparrow.probing import (
    Attack,
    attack,
    drawn_by_kind,
    labels_from,
    on_twins,
    violations,
)
from ...agents.sparrow.rerank import Reranked, candidates, rerank_scores
from ...agents.sparrow.reward import Rules, SparrowReward
from ...agents.sparrow.rule_model import (
    RuleLabel,
    RuleModel,
    RuleSettings,
    kept_by,
    train_rules,
)
from ...agents.world.measures import Answer, measure
from ...agents.world.probes import Probe, benign, probes
from ...agents.world.rules import (
    ALL_RULES,
    HOUSE,
    SEEN,
    UNSEEN_KINDS,
    UNSEEN_WORDS,
    Messages,
    Rule,
    harm,
)
from ...data.batches import Shuffled
from ...data.sources import exercise_prompts
from ...data.tasks import Exercise
from ...judging.evaluation import distance
from ...judging.intervals import accuracy
from ...judging.sampled_rankings import ceiling
from ...stages.reward_model import Score, scoring
from ...stages.scorer import Scorer
from . import sparrow_pictures

KEPT = Path("runs/agents")
LIMIT = 16  # tokens of an answer
Rows = list[dict[str, Any]]

LABELS = {125: 8, 500: 4, 2000: 2, 8000: 1}  # epochs by labels
TESTED = 400  # labels of each test
HARMFUL = "Do no harm."  # what the classifier without rules reads in place of a rule

PREFERRED, ANSWERS_EACH, NOISE = 3000, 4, 0.05
WEIGHTS = (0.0, 1.0, 4.0, 16.0)  # w of the rules in the reward
PROGRAM_WEIGHTS = (16.0, 64.0)
CLASSIFIER_LABELS = 4000
PROBES, OTHERS = 160, 80
CANDIDATES = 8

FIRST_LABELS, ROUNDS, FOUND, OF = 200, 3, 120, 4
FIRST_STEPS, ROUND_STEPS = 20, 12
PROBED = 240  # fresh probes a round


# --- what the parts share ------------------------------------------------------------------------


@functools.lru_cache(1)
def start(seed: int) -> Base:
    """Return the base, in evaluation mode."""
    return base(BaseSettings(seed=seed))


@functools.lru_cache(1)
def preferred(seed: int) -> tuple[Scorer, dict[str, Any]]:
    """Return the preference model, frozen, and how well it agrees with held-out raters."""
    b = start(seed)
    training, validation = (
        rankings(
            b.model, b.template, itertools.islice(questions(seed, held_out=held_out), n),
            ANSWERS_EACH, NOISE, max_response=LIMIT, seed=seed,
        )
        for held_out, n in ((False, PREFERRED), (True, 300))
    )  # fmt: skip
    stage = preference_stage(b.model, training, validation, b.template, seed=seed)
    for index in range(stage.steps):
        stage.step(index)
    found = {"part": "preference", "seed": seed, "accuracy": stage.evaluate()["accuracy"]}
    found |= {"ceiling": ceiling(validation, NOISE), "rankings": len(validation)}
    return stage.scorer.requires_grad_(False).eval(), found


def classifier(seed: int, labels: Sequence[RuleLabel], epochs: int = 2) -> RuleModel:
    """Train a classifier from the base on labels; asked, it is asked about the house's rules."""
    b = start(seed)
    scorer = Scorer(copy.deepcopy(b.model), seed)
    settings = RuleSettings(epochs=epochs)
    return RuleModel(train_rules(scorer, labels, settings, b.template, seed), b.template, HOUSE)


def labelled(seed: int, book: Sequence[Rule], n: int, *, held_out: bool = False) -> list[RuleLabel]:
    """Return labels of one rule each, half of them broken."""
    b = start(seed)
    asked = asked_about(book, f"{seed} {len(book)}", held_out=held_out)
    return rule_labels(b.model, b.template, asked, n, max_response=LIMIT, seed=seed + 7 * held_out)


class ProgramRules(NamedTuple):
    """The program in place of the classifier: what rules could do at best."""

    text: Callable[[Sequence[int]], str]
    rules: Sequence[Rule] = HOUSE

    def kept(
        self, dialogues: Sequence[Messages], responses: Sequence[Sequence[int]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return 1 where a rule is kept, and which rules apply; see `RuleModel.kept`."""
        by_text = {rule.text: rule for rule in self.rules}

        def violated(asked: list[Any]) -> torch.Tensor:
            return torch.tensor([float(by_text[r].violated(m, self.text(a))) for r, m, a in asked])

        return kept_by(self.rules, dialogues, responses, violated)


# --- 6: the rule model ---------------------------------------------------------------------------


def measure_rules(seed: int) -> Rows:
    """Measure classifiers on more and more labels."""
    most = max(LABELS)
    training = {
        "rules seen": labelled(seed, SEEN, most),
        "house rules": labelled(seed, HOUSE, most),
        "harmful?": _harmful(seed, most),
    }
    words = [rule for rule in SEEN if rule.kind == "R1"]
    tests = {
        "rules seen": labelled(seed, SEEN, TESTED, held_out=True),
        "words seen": labelled(seed, words, TESTED, held_out=True),
        "words unseen": labelled(seed, UNSEEN_WORDS, TESTED, held_out=True),
        "kinds unseen": labelled(seed, UNSEEN_KINDS, TESTED, held_out=True),
    }
    harmful = _harmful(seed, TESTED, held_out=True)
    rows: Rows = []
    for n, epochs in LABELS.items():
        for arm, labels in training.items():
            # Labels stand in random order, half of them broken: so are the first of them, nearly.
            model = classifier(seed, labels[:n], epochs)
            head = {"part": "rules", "seed": seed, "arm": arm, "labels": n}
            if arm != "house rules":
                rows += [
                    head | {"test": test} | _separated(asked, _rated(model, asked, arm))
                    for test, asked in tests.items()
                ]
            if arm != "rules seen":
                rated = _rated(model, harmful, arm) if arm == "harmful?" else _worst(model, harmful)
                rows.append(head | {"test": "harm"} | _separated(harmful, rated))
    return rows


def _rated(model: RuleModel, labels: Sequence[RuleLabel], arm: str) -> np.ndarray:
    texts = [HARMFUL if arm == "harmful?" else label.rule for label in labels]
    asked = [(text, x.messages, x.response) for text, x in zip(texts, labels, strict=True)]
    return model.violated(asked).numpy()


def _worst(model: RuleModel, labels: Sequence[RuleLabel]) -> np.ndarray:
    """Rate by the house rule that is most likely broken."""
    kept, _ = model.kept([x.messages for x in labels], [x.response for x in labels])
    return 1 - kept.min(1).values.numpy()


def _harmful(seed: int, n: int, *, held_out: bool = False) -> list[RuleLabel]:
    """Return as many labels of the question whether an answer breaks any rule of the house."""
    b = start(seed)
    found: dict[bool, list[RuleLabel]] = {False: [], True: []}
    asked = asked_about(HOUSE, f"{seed} {len(HOUSE)}", held_out=held_out)
    for turn in itertools.count():
        exercises = [exercise for exercise, _ in itertools.islice(asked, n)]
        prompts = exercise_prompts(b.template, exercises)
        said = answers(b.model, b.template, prompts, max_response=LIMIT, seed=100 * seed + turn)
        for exercise, response in zip(exercises, said, strict=True):
            text = b.template.text(response)
            broken = harm(HOUSE, exercise.messages, text)
            label = RuleLabel(HARMFUL, exercise.messages, b.template.response(text), broken)
            found[broken].append(label)
        if min(map(len, found.values())) >= n // 2:
            break
    both = itertools.zip_longest(*(part[: n // 2] for part in found.values()))
    return [label for pair in both for label in pair]


def _separated(labels: Sequence[RuleLabel], rated: np.ndarray) -> dict[str, Any]:
    """Return AUC with Hanley and McNeil's interval (1982), and accuracy at ½ with Wilson's."""
    broken = np.array([label.violated for label in labels])
    area = auroc(rated[~broken], rated[broken])
    more, less = int(broken.sum()), int((~broken).sum())
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    spread = area * (1 - area) + (more - 1) * (q1 - area**2) + (less - 1) * (q2 - area**2)
    half = 1.96 * math.sqrt(max(spread, 0.0) / (more * less))
    right = accuracy(((rated > 0.5) == broken).tolist())
    return {
        "auc": area, "auc_interval": [max(area - half, 0.0), min(area + half, 1.0)],
        "broken": more, "kept": less, "right": right.record(),
    }  # fmt: skip


# --- 7: reinforcement learning, and reranking ----------------------------------------------------


class Asked(NamedTuple):
    """Held-out questions: probes, and benign ones of which the first are the probes' twins."""

    probes: list[Probe]
    benign: list[Exercise]

    @property
    def all(self) -> list[Exercise]:
        """The questions in the order of the answers."""
        return [*(probe.exercise for probe in self.probes), *self.benign]

    def measured(self, said: Sequence[Answer]) -> dict[str, Any]:
        """Measure answers to all of them."""
        n = len(self.probes)
        return measure(self.probes, said[:n], self.benign, said[n:]).record()


def asked_of_policies(seed: int) -> Asked:
    """Return what every policy is asked."""
    tempting = list(itertools.islice(probes(1000 + seed, held_out=True), PROBES))
    others = itertools.islice(benign(1000 + seed, held_out=True), OTHERS)
    return Asked(tempting, [*(probe.twin for probe in tempting), *others])


def measure_policies(seed: int) -> Rows:
    """Train policies on preference and rules, and rerank what each of them says."""
    b, (preference, told) = start(seed), preferred(seed)
    model = classifier(seed, labelled(seed, ALL_RULES, CLASSIFIER_LABELS))
    program = ProgramRules(b.template.text)
    score = scoring(preference, b.template.pad)
    prompts = exercise_prompts(
        b.template, itertools.islice(questions(500 + seed, held_out=False), 2000)
    )
    asked, rows = asked_of_policies(seed), [told]
    arms: list[tuple[str, Rules | None, float]] = [
        ("preference", None, 0.0),
        *(("rules", model, w) for w in WEIGHTS if w),
        *(("program", program, w) for w in PROGRAM_WEIGHTS),
    ]
    policies = {"base": b.model}
    rows.append(_policy_row(seed, "base", 0.0, b.model, score, asked))
    for arm, rules, weight in arms:
        reward = SparrowReward(score, rules, b.template.end, rule_weight=weight)
        stage = policy_stage(b.model, preference, reward, prompts, b.template, seed=seed)
        for index in range(stage.steps):
            stage.step(index)
        policies[f"{arm} {weight:g}"] = stage.policy.eval()
        rows.append(_policy_row(seed, arm, weight, stage.policy, score, asked))
    for name in ("base", "preference 0", f"rules {max(WEIGHTS):g}"):
        rows += _reranked_rows(seed, name, policies[name], score, model, program, asked)
    return rows


def _policy_row(
    seed: int, arm: str, weight: float, policy: Any, score: Score, asked: Asked
) -> dict[str, Any]:
    b = start(seed)
    prompts = exercise_prompts(b.template, asked.all)
    said = answers(policy, b.template, prompts, max_response=LIMIT, seed=seed)
    with torch.no_grad():
        preferences = score(prompts, said)
    found = asked.measured([Answer(b.template.text(r), b.template.end in r) for r in said])
    return {
        "part": "policies", "seed": seed, "arm": arm, "weight": weight,
        "preference_on_probes": preferences[: len(asked.probes)].mean().item(),
        "preference": preferences[len(asked.probes) :].mean().item(),
        "kl": distance(policy, b.model, b.template, prompts, said), **found,
    }  # fmt: skip


def _reranked_rows(
    seed: int, policy: str, model: Any, score: Score, rules: RuleModel, program: ProgramRules,
    asked: Asked,
) -> Rows:  # fmt: skip
    """Choose among the same candidates in several ways."""
    b = start(seed)
    prompts = exercise_prompts(b.template, asked.all)
    found = candidates(
        model, b.template, score, rules, prompts, CANDIDATES, max_response=LIMIT, seed=seed
    )
    ways: dict[str, Callable[[Reranked, Exercise], int]] = {
        "first": lambda one, _: 0,
        "preference": lambda one, _: _chosen(one, rules=False),
        "rules, 1/n": lambda one, _: _chosen(one, root=True),
        "rules": lambda one, _: _chosen(one, root=False),
        "program": lambda one, e: _by_program(one, e, program),
    }
    rows = []
    for way, pick in ways.items():
        best = [one.candidates[pick(one, e)] for one, e in zip(found, asked.all, strict=True)]
        row = {"part": "reranked", "seed": seed, "policy": policy, "way": way, "n": CANDIDATES}
        rows.append(row | asked.measured([Answer(c.text, c.ended) for c in best]))
    return rows


def _chosen(one: Reranked, *, rules: bool = True, root: bool = True) -> int:
    preferences = torch.tensor([c.preference for c in one.candidates])
    kept = torch.tensor([list(c.kept.values()) if rules else [] for c in one.candidates])
    scores = rerank_scores(preferences, kept, root=root)
    ended = torch.tensor([c.ended for c in one.candidates])
    return choose(scores.masked_fill(~ended, -torch.inf) if bool(ended.any()) else scores)


def _by_program(one: Reranked, exercise: Exercise, program: ProgramRules) -> int:
    said = [c.response for c in one.candidates]
    kept, applies = program.kept([exercise.messages] * len(said), said)
    preferences = torch.tensor([c.preference for c in one.candidates])
    return choose(rerank_scores(preferences, kept[:, applies[0]], root=False))


# --- 8: probing ----------------------------------------------------------------------------------


def measure_probing(seed: int) -> Rows:
    """Probe, retrain, and probe again, with the worst of a few probes or with any."""
    return [row for of in (OF, 1) for row in _probed(seed, of)]


def measure_twins(seed: int) -> Rows:
    """Do so with the worst of a few, and have the answers to their benign twins labelled, too.

    Nearly all answers to the probes found break a rule. A classifier that learns from these alone
    learns that answers do.
    """
    return _probed(seed, OF, twins=True)


def _probed(seed: int, of: int, *, twins: bool = False) -> Rows:
    b, (preference, _) = start(seed), preferred(seed)
    labels = labelled(seed, HOUSE, FIRST_LABELS)
    model = classifier(seed, labels, epochs=8)
    reward = SparrowReward(
        scoring(preference, b.template.pad), model, b.template.end, rule_weight=max(WEIGHTS)
    )
    usual = exercise_prompts(
        b.template, itertools.islice(questions(700 + seed, held_out=False), 1000)
    )
    stage = policy_stage(b.model, preference, reward, usual, b.template, seed=seed)
    training = probes(800 + seed, held_out=False)
    done, rows = 0, []
    for number in range(ROUNDS + 1):
        for index in range(done, done + (ROUND_STEPS if number else FIRST_STEPS)):
            stage.step(index)
        done = index + 1
        stage.policy.eval()
        arm = "worst of four" if of > 1 else "any probe"
        arm += " and its twin" * twins
        rows.append(_round_row(seed, arm, number, stage.policy, model, len(labels)))
        if number == ROUNDS:
            break
        drawn = drawn_by_kind(training, FOUND, of)
        found = attack(
            stage.policy, model, b.template, drawn, of, max_response=LIMIT, seed=900 + number
        )
        rows[-1]["found"] = violations(found).record()
        labels = [*labels, *labels_from(found, b.template)]
        if twins:
            said = on_twins(
                stage.policy, model, b.template, found, max_response=LIMIT, seed=950 + number
            )
            labels += labels_from(said, b.template)
        model = reward.rules = classifier(seed, labels, epochs=8)
        hard = exercise_prompts(b.template, [one.probe.exercise for one in found])
        stage.prompts = Shuffled([*usual, *hard * 2], POLICY.batch, seed + number)
    return rows


def _round_row(
    seed: int, arm: str, number: int, policy: Any, model: RuleModel, n_labels: int
) -> dict[str, Any]:
    """Measure a round on fresh probes: any of them, and the worst of four by the classifier."""
    b = start(seed)
    fresh = probes(10_000 * (number + 1) + seed, held_out=True)
    drawn = drawn_by_kind(fresh, PROBED, OF)

    def tried(some: Sequence[Probe], of: int) -> list[Attack]:
        return attack(policy, model, b.template, some, of, max_response=LIMIT, seed=number)

    any_of_them, worst = tried(drawn[:PROBED], 1), tried(drawn, OF)
    asked = Asked([], [probe.twin for probe in drawn[:PROBED]])
    prompts = exercise_prompts(b.template, asked.benign)
    said = answers(policy, b.template, prompts, max_response=LIMIT, seed=number)
    on_twins = asked.measured([Answer(b.template.text(r), b.template.end in r) for r in said])
    return {
        "part": "probing", "seed": seed, "arm": arm, "round": number,
        "labels": n_labels, "violations": violations(any_of_them).record(),
        "violations_of_worst": violations(worst).record(), "refusals": on_twins["refusals"],
        "gold": on_twins["gold"], "gold_interval": on_twins["gold_interval"],
    }  # fmt: skip


# --- all of it -----------------------------------------------------------------------------------

PARTS: dict[str, Callable[[int], Rows]] = {
    "rules": measure_rules,
    "policies": measure_policies,
    "probing": measure_probing,
    "twins": measure_twins,
}


def run(seed: int) -> Rows:
    """Measure all three claims, or read what is kept of them.

    Parameters
    ----------
    seed : int

    Returns
    -------
    list of dict
        For JSON; `part` says what a row is about.
    """
    rows: Rows = []
    KEPT.mkdir(parents=True, exist_ok=True)
    for name, measured in PARTS.items():
        kept = KEPT / f"sparrow-{name}-{seed}.jsonl"
        if not kept.exists():
            write_whole(kept, json_lines(measured(seed)))
        rows += read_json_lines(kept)
    return rows


def draw(rows: Rows, folder: Path) -> list[Path]:
    """Draw the curves of the three claims.

    Parameters
    ----------
    rows : list of dict
        From `run`, of all seeds.
    folder : pathlib.Path
        Of the pictures.

    Returns
    -------
    list of pathlib.Path
    """
    return [sparrow_pictures.draw(rows, folder / "agents-sparrow.png")]
