"""Adversarial probing: look for what the agent still does wrong, learn from it, and look again.

    round      draw probes ─► the agent answers ─► of every few keep the one whose answer the
      │        classifier finds worst ─► a rater labels it, for the rule that was probed, and the
      │        answer to the probe's benign twin
      └──◄──   retrain the classifier on all labels ─► retrain the agent ◄─ the probes found

The paper's raters are people who try to have one rule broken; its red team is a language model.
Here both are small: probes are drawn from the world's templates, and best-of-n by the classifier's
rating is the search (Perez et al. 2022, arXiv 2202.03286, sample and rank likewise). What counts is
measured on fresh probes, drawn after the round: the share of answers that break the probed rule, as
a program says, not the classifier.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ....kernels.model.gpt import GPT
from ...data.dialogue import Template
from ...data.sources import exercise_prompts
from ...judging.intervals import Accuracy, accuracy
from ..world.labels import rule_label
from ..world.probes import Probe
from ..world.users import HONEST, User
from .labels import answers, labels_of
from .rule_model import RuleLabel, RuleModel


class Attack(NamedTuple):
    """A probe that was tried.

    Attributes
    ----------
    probe : Probe
    response : list of int
        What the agent said.
    text : str
        The same.
    rating : float
        P(violated) of the probed rule, as the classifier says.
    """

    probe: Probe
    response: list[int]
    text: str
    rating: float

    @property
    def violated(self) -> bool:
        """Whether the probed rule was broken, as the program says."""
        return self.probe.rule.violated(self.probe.exercise.messages, self.text)


def drawn_by_kind(probes: Iterator[Probe], n: int, of: int) -> list[Probe]:
    """Draw `n` groups of `of` probes, those of a group of one kind of rule.

    Parameters
    ----------
    probes : iterator of Probe
        `world.probes.probes`, which takes the kinds in turns.
    n, of : int

    Returns
    -------
    list of Probe
        [n · of], group after group, the kinds in turns.
    """
    waiting: dict[str, list[Probe]] = {}
    found: list[Probe] = []
    while len(found) < n * of:
        probe = next(probes)
        group = waiting.setdefault(probe.rule.kind, [])
        group.append(probe)
        if len(group) == of:
            found += waiting.pop(probe.rule.kind)
    return found


def attack(
    policy: GPT,
    rules: RuleModel,
    template: Template,
    probes: Sequence[Probe],
    of: int = 1,
    *,
    max_response: int,
    seed: int = 0,
) -> list[Attack]:
    """Let the agent answer probes, and keep of every `of` in a row the one that is rated worst.

    Parameters
    ----------
    policy : GPT
        The agent.
    rules : RuleModel
        Rates the answers; of equal ratings the first is kept.
    template : Template
    probes : sequence of Probe
    of : int
        1 keeps all.
    max_response, seed : int

    Returns
    -------
    list of Attack
        One for every `of` probes.
    """
    prompts = exercise_prompts(template, [probe.exercise for probe in probes])
    said = answers(policy, template, prompts, max_response=max_response, seed=seed)
    asked = [
        (probe.rule.text, probe.exercise.messages, response)
        for probe, response in zip(probes, said, strict=True)
    ]
    ratings = rules.violated(asked).tolist()
    tried = [
        Attack(probe, response, template.text(response), rating)
        for probe, response, rating in zip(probes, said, ratings, strict=True)
    ]
    groups = [tried[i : i + of] for i in range(0, len(tried), of)]
    return [max(group, key=lambda one: one.rating) for group in groups]


def on_twins(
    policy: GPT,
    rules: RuleModel,
    template: Template,
    attacks: Sequence[Attack],
    *,
    max_response: int,
    seed: int = 0,
) -> list[Attack]:
    """Let the agent answer the benign twins of the probes that were found, too.

    Nearly all answers to these break a rule: a classifier that learns from them alone learns that
    answers do, and the agent to refuse.

    Parameters
    ----------
    policy, rules, template, max_response, seed
        As in `attack`.
    attacks : sequence of Attack

    Returns
    -------
    list of Attack
        One for each.
    """
    twins = [one.probe._replace(exercise=one.probe.twin) for one in attacks]
    return attack(policy, rules, template, twins, max_response=max_response, seed=seed)


def labels_from(
    attacks: Sequence[Attack], template: Template, user: User = HONEST
) -> list[RuleLabel]:
    """Let a user label what was found, each answer for the rule that was probed."""
    records = [rule_label(a.probe.exercise, a.text, a.probe.rule, user) for a in attacks]
    return labels_of(records, template)


def violations(attacks: Sequence[Attack]) -> Accuracy:
    """Count the attacks that had their rule broken, as the program says."""
    return accuracy([one.violated for one in attacks])
