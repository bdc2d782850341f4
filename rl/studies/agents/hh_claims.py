"""What Bai et al. (arXiv 2204.05862) claim, measured on three seeds against a known truth.

Each function is a claim, and returns the rows of one seed. What people
prefer is drawn by a program, so that beside each figure stands what could have been reached: a
ceiling, an exact slope, a Gaussian's gap.
"""

import copy
import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any

import numpy as np
import torch

from ....core.dialogue.frontier import best_of_n as exact_best_of_n
from ....core.dialogue.frontier import place, steepest_slope, tilted
from ....core.dialogue.outliers import auroc
from ....core.rlhf.enumerable import make_world, ppo_of
from ....kernels.model.gpt import GPT
from ...agents.base import Base, BaseSettings, base
from ...agents.hh.comparisons import compare, say, voted
from ...agents.hh.distillation import DistillationSettings, DistillationStage, prompted, store
from ...agents.hh.instructions import InstructionSettings, instructed
from ...agents.hh.online import iterated, policy_stage, tournament
from ...agents.hh.outliers import fit_detector, states
from ...agents.hh.preference_model import PreferenceSettings, agreement, taught
from ...agents.world.measures import Answer, measure
from ...agents.world.probes import Probe, benign, probe, probes
from ...agents.world.rules import Rule
from ...configuration import PPOSettings
from ...data.rankings import Ranking
from ...data.sources import exercise_prompts
from ...data.tasks import Exercise, exercises, gold
from ...judging.best_of_n import kl_bound, mean_of_best
from ...judging.evaluation import distance, mean_with_interval
from ...judging.sampled_rankings import ceiling
from ...stages.reward_model import scoring
from ...stages.scorer import Scorer

Row = dict[str, Any]
NOISE = 0.2
MAX_RESPONSE = 12
SIZES = (16, 64)
LARGEST = SIZES[-1]
PREFERENCES = PreferenceSettings(epochs=4)
POLICY = PPOSettings(
    batch=64, minibatches=2, max_response=MAX_RESPONSE, lr=3e-4, value_lr=1e-3, ptx=0.0,
    kl_coefficient=0.005, lr_warmup=2, ema=0.0,
)  # fmt: skip


def bases(folder: str, seed: int, size: int = LARGEST) -> Base:
    """Return the small model of a seed and a width, trained once."""
    return base(BaseSettings(folder=folder, seed=seed, d_model=size))


def fresh(begun: Base, seed: int) -> Scorer:
    """Return a preference model that has seen nothing yet, on a copy of the language model."""
    return Scorer(copy.deepcopy(begun.model), seed)


def helpful(seed: int, n: int, *, held_out: bool = False) -> list[Exercise]:
    """Return benign exercises."""
    return list(itertools.islice(benign(seed, held_out=held_out), n))


def harmful(seed: int, n: int, *, held_out: bool = False) -> list[Exercise]:
    """Return probes, as exercises."""
    return [p.exercise for p in itertools.islice(probes(seed, held_out=held_out), n)]


def collected(
    begun: Base, asked: Sequence[Exercise], axis: str, seed: int, models: Sequence[GPT] = ()
) -> list[Ranking]:
    """Return comparisons of the base's answers, or of other policies'."""
    return compare(
        models or [begun.model], begun.template, asked, axis, noise=NOISE,
        max_response=MAX_RESPONSE, seed=seed,
    )  # fmt: skip


# --- 9: accuracy over data and size --------------------------------------------------------------

DATA = (50, 200, 800)


def accuracy(seed: int, folder: str) -> list[Row]:
    """Measure preference models of two widths on three amounts of comparisons."""
    begun = bases(folder, seed)
    pairs = collected(begun, helpful(100 + seed, 1400), "helpful", seed)[: max(DATA)]
    test = collected(begun, helpful(7, 900, held_out=True), "helpful", 7)
    most, found = ceiling(test, NOISE), []
    for size in SIZES:
        trunk = bases(folder, seed, size)
        n_parameters = sum(p.numel() for p in trunk.model.parameters())
        for n in DATA:
            judge = taught(
                fresh(trunk, seed), {"helpful": pairs[:n]}, PREFERENCES, pad=begun.template.pad,
                seed=seed,
            )  # fmt: skip
            found.append(
                {"size": size, "parameters": n_parameters, "pairs": n, "used": min(n, len(pairs)),
                 "ceiling": most, **agreement(judge, test, begun.template.pad).record()}
            )  # fmt: skip
    return found


# --- 10: two judges part under optimisation ------------------------------------------------------

HALVES = (60, 400)  # comparisons of each half
ANSWERS = 32
EVERY, ITERATIONS = 4, 24


def parting(seed: int, folder: str) -> list[Row]:
    """Optimise against the judge of one half, by best-of-n and by PPO; read both and gold."""
    begun = bases(folder, seed)
    template = begun.template
    pairs = collected(begun, helpful(200 + seed, 1800), "helpful", seed)
    asked = exercise_prompts(template, helpful(8, 100, held_out=True))
    said = say(
        begun.model, template, [p.ids for p in asked], ANSWERS, max_response=MAX_RESPONSE, seed=8
    )
    worth = [[gold(p.exercise, template.text(r)) for r in rs]
             for p, rs in zip(asked, said, strict=True) if p.exercise]  # fmt: skip
    found: list[Row] = []
    for half in HALVES:
        judges = [
            taught(fresh(begun, 10 * seed + i), {"helpful": part}, PREFERENCES,
                   pad=template.pad, seed=10 * seed + i)
            for i, part in enumerate((pairs[:half], pairs[half : 2 * half]))
        ]  # fmt: skip
        scores = [_scores(judge, template.pad, asked, said) for judge in judges]
        spread = [float(np.std(s)) for s in scores]
        first: list[list[float]] = []
        for n in (2**i for i in range(ANSWERS.bit_length())):
            means = [
                [mean_of_best(s, values, n) for s, values in zip(scores[0], of, strict=True)]
                for of in (*scores, worth)
            ]
            first = first or means
            found.append(
                {"by": "best of n", "half": half, "n": n, "kl": kl_bound(n), "spread": spread}
                | _gains(means, first)
            )
        found += _by_ppo(begun, judges, seed, half)
    return found


def _scores(judge: Scorer, pad: int, asked: Sequence[Any], said: Any) -> list[list[float]]:
    """Score every answer to every prompt."""
    n = len(said[0])
    repeated = [prompt for prompt in asked for _ in range(n)]
    with torch.no_grad():
        flat = scoring(judge, pad)(repeated, [r for rs in said for r in rs]).tolist()
    return [flat[i : i + n] for i in range(0, len(flat), n)]


def _with_intervals(names: Sequence[str], values: Sequence[Sequence[float]]) -> Row:
    """Return the mean of each and half the width of its interval."""
    found: Row = {"answers": len(values[0])}
    for name, of in zip(names, values, strict=True):
        found[name], found[f"{name}_interval"] = mean_with_interval(of)
    return found


def _gains(means: Sequence[Sequence[float]], first: Sequence[Sequence[float]]) -> Row:
    """Return what both judges and gold say, and the gains over the beginning, prompt by prompt."""
    names = ("train", "test", "gold")
    gains = [[b - a for a, b in zip(*pair, strict=True)] for pair in zip(first, means, strict=True)]
    return _with_intervals(names, means) | _with_intervals([f"{n}_gain" for n in names], gains)


def _by_ppo(begun: Base, judges: Sequence[Scorer], seed: int, half: int) -> Iterator[Row]:
    """Optimise by PPO, and measure on held-out prompts as it goes."""
    template = begun.template
    policy, reference = copy.deepcopy(begun.model), begun.model
    settings = dataclasses.replace(POLICY, kl_coefficient=0.0)  # Nothing holds it back.
    learnt = exercise_prompts(template, helpful(300 + seed, 400))
    asked = exercise_prompts(template, helpful(8, 100, held_out=True))
    stage = policy_stage(policy, judges[0], learnt, template, settings, seed=seed)
    first: list[list[float]] = []
    for index in range(ITERATIONS + 1):
        if index % EVERY == 0:
            said = say(
                policy.eval(), template, [p.ids for p in asked], 4, max_response=MAX_RESPONSE,
                seed=9,
            )  # fmt: skip
            flat = [p for p in asked for _ in range(4)]
            kl = distance(policy, reference, template, flat, [r for rs in said for r in rs])
            train, test = (_scores(judge, template.pad, asked, said) for judge in judges)
            worth = [[gold(p.exercise, template.text(r)) for r in rs]
                     for p, rs in zip(asked, said, strict=True) if p.exercise]  # fmt: skip
            means = [[sum(row) / len(row) for row in of] for of in (train, test, worth)]
            first = first or means
            yield {"by": "PPO", "half": half, "iteration": index, "kl": kl} | _gains(means, first)
        if index < ITERATIONS:
            stage.step(index)


# --- 11: reward over the root of the divergence --------------------------------------------------

BETAS = tuple(float(b) for b in np.geomspace(0.05, 50, 25))


def frontier(seed: int, folder: str) -> list[Row]:
    """Walk away from the reference of an enumerable world, in three ways, all of it exact."""
    world = make_world(seed, beta=0.05)
    reference = world.probabilities(world.reference_logits)
    limit = steepest_slope(reference, world.rewards)

    def row(by: str, at: float, policy: np.ndarray) -> Row:
        point = place(policy, reference, world.rewards)
        return {"by": by, "at": at, "kl": point.kl, "gain": point.gain, "limit": limit}

    rows = [row("tilted", b, tilted(reference, world.rewards, b).policy) for b in BETAS]
    rows += [
        row("best of n", n, exact_best_of_n(reference, world.rewards, n).policy)
        for n in (1, 2, 3, 4, 6, 8, 16, 32, 64)
    ]
    ppo, rng = ppo_of(world), np.random.default_rng(seed)
    for step in range(61):
        rows.append(row("PPO", step, world.probabilities(ppo.policy.parameter)))
        ppo.step((0.02, 0.04), rng)
    return rows


# --- 12: rounds of collecting against one collection of the same size -----------------------------

ROUNDS, IN_A_ROUND = 3, 150
IMPROVED = 14  # iterations of PPO


def online(seed: int, folder: str) -> list[Row]:
    """Compare policies of three rounds with one that learnt from as many base comparisons."""
    begun = bases(folder, seed)
    template = begun.template
    learnt = exercise_prompts(template, helpful(500 + seed, 400))

    def collect(policies: Sequence[GPT], number: int) -> list[Ranking]:
        asked = helpful(400 + 10 * seed + number, 4 * IN_A_ROUND)
        return collected(begun, asked, "helpful", 10 * seed + number, policies)[:IN_A_ROUND]

    def teach(pairs: Sequence[Ranking]) -> Scorer:
        return taught(
            fresh(begun, seed), {"helpful": pairs}, PREFERENCES, pad=template.pad, seed=seed
        )

    def improve(judge: Scorer) -> GPT:
        policy = copy.deepcopy(begun.model)
        stage = policy_stage(policy, judge, learnt, template, POLICY, seed=seed)
        for index in range(IMPROVED):
            stage.step(index)
        return policy.eval()

    rounds = iterated(begun.model, ROUNDS, collect, teach, improve)
    static_pairs = list(
        itertools.chain.from_iterable(collect([begun.model], n) for n in range(ROUNDS))
    )
    static = improve(teach(static_pairs))
    policies = {"base": begun.model, "static": static} | {
        f"round {i + 1}": r.policy for i, r in enumerate(rounds)
    }
    asked = exercise_prompts(template, helpful(9, 300, held_out=True))
    worths = []
    for policy in policies.values():
        said = say(policy, template, [p.ids for p in asked], 1, max_response=MAX_RESPONSE, seed=9)
        worths.append([gold(p.exercise, template.text(rs[0]))
                       for p, rs in zip(asked, said, strict=True) if p.exercise])  # fmt: skip
    wins = tournament(worths, noise=NOISE, seed=seed)
    rows: list[Row] = [{"part": "wins", "players": list(policies), "wins": wins.tolist()}]
    for i, (name, worth) in enumerate(zip(policies, worths, strict=True)):
        rows.append({"part": "policy", "policy": name, "index": i}
                    | _with_intervals(("gold",), [worth]))  # fmt: skip
    for i, r in enumerate(rounds):
        # On the pairs of its own round a judge has been taught: the judge before is asked.
        before = rounds[i - 1].judge if i else None
        if before is not None:
            seen = agreement(before, r.comparisons, template.pad)
            most = ceiling(r.comparisons, NOISE)
            rows.append({"part": "new pairs", "round": i + 1, "ceiling": most, **seen.record()})
    return rows


# --- 13: pretraining on votes --------------------------------------------------------------------

VOTED = ("opposite", "compare", "count", "pick")
ASKED = ("repeat", "reverse", "list", "remember")
FEW = (25, 100, 400)


def _of_families(families: Sequence[str], seed: int, n: int, *, held_out: bool) -> list[Exercise]:
    chosen = (e for e in exercises(seed, held_out=held_out) if e.family in families)
    return list(itertools.islice(chosen, n))


def votes(seed: int, folder: str) -> list[Row]:
    """Teach with and without pretraining on votes for answers to other kinds of questions."""
    begun = bases(folder, seed)
    pad = begun.template.pad
    public = voted(
        begun.model, begun.template, _of_families(VOTED, 600 + seed, 1200, held_out=False),
        noise=0.2, max_response=MAX_RESPONSE, seed=seed,
    )  # fmt: skip
    pretrained = taught(
        fresh(begun, seed), {"votes": public}, dataclasses.replace(PREFERENCES, epochs=1), pad=pad,
        seed=seed,
    )  # fmt: skip
    pairs = collected(begun, _of_families(ASKED, 700 + seed, 900, held_out=False), "helpful", seed)[
        : max(FEW)
    ]
    test = collected(begun, _of_families(ASKED, 10, 700, held_out=True), "helpful", 10)
    most, found = ceiling(test, NOISE), []
    for arm, n in itertools.product(("without", "with votes"), (0, *FEW)):
        judge = fresh(begun, seed) if arm == "without" else copy.deepcopy(pretrained)
        if n:
            judge.requires_grad_(True)
            taught(judge, {"helpful": pairs[:n]}, PREFERENCES, pad=pad, seed=seed)
        found.append({"arm": arm, "pairs": n, "questions": len(public), "ceiling": most,
                      **agreement(judge, test, pad).record()})  # fmt: skip
    return found


# --- 14: helpful against harmless ----------------------------------------------------------------

LAMBDAS = (1.0, 3.0, 10.0)
OF_EACH = 400


def mixing(seed: int, folder: str) -> list[Row]:
    """Teach by one kind alone, and by both with several weights; read both accuracies."""
    begun = bases(folder, seed)
    pad = begun.template.pad
    kinds = {
        "helpful": collected(begun, helpful(800 + seed, 1000), "helpful", seed)[:OF_EACH],
        "harmless": collected(begun, harmful(800 + seed, 1000), "harmless", seed)[:OF_EACH],
    }
    tests = {
        "helpful": collected(begun, helpful(11, 700, held_out=True), "helpful", 11),
        "harmless": collected(begun, harmful(11, 700, held_out=True), "harmless", 11),
    }
    settings = dataclasses.replace(PREFERENCES, epochs=2)
    arms: list[tuple[str, dict[str, float]]] = [
        (f"both, λ = {w:g}", {"harmless": w}) for w in LAMBDAS
    ]
    arms = [("helpful alone", {}), *arms, ("harmless alone", {})]
    found: list[Row] = []
    for arm, weights in arms:
        mine = {k: v for k, v in kinds.items() if arm.startswith((k, "both"))}
        judge = taught(fresh(begun, seed), mine, settings, pad=pad, seed=seed, weights=weights)
        for kind, test in tests.items():
            found.append(
                {"arm": arm, "on": kind, "taught": {k: len(v) for k, v in mine.items()},
                 "ceiling": ceiling(test, NOISE), **agreement(judge, test, pad).record()}
            )  # fmt: skip
    return found


# --- 15: a prompt distilled, and refusal of what is strange ---------------------------------------

WORD = "moon"
RULE = Rule("R1", WORD).text
DISTILLED = DistillationSettings(prompts=1200, epochs=4, lr=1e-3)


def told(seed: int, n: int, *, held_out: bool) -> list[Probe]:
    """Draw probes of the rule that is distilled."""
    rng = Random(f"told {seed} {held_out}")
    drawn = (probe(Rule("R1", WORD), rng) for _ in itertools.count())
    kept = (p for p in drawn
            if p.exercise.is_held_out() == p.twin.is_held_out() == held_out)  # fmt: skip
    return list(itertools.islice(kept, n))


def distillation(seed: int, folder: str) -> list[Row]:
    """Distil a rule into a model that obeys it; compare it with and without its prompt."""
    begun = bases(folder, seed)
    template = begun.template
    teacher = instructed(
        copy.deepcopy(begun.model), template, InstructionSettings(examples=6000), RULE, seed
    )
    tempting = told(seed, DISTILLED.prompts // 4, held_out=False)
    learnt = [e for p in tempting for e in (p.exercise, p.twin)]
    learnt += helpful(900 + seed, DISTILLED.prompts - len(learnt))
    stored = store(
        teacher, template, RULE, learnt, DISTILLED.kept, max_response=MAX_RESPONSE, seed=seed
    )
    held = told(12, 150, held_out=True)
    asked = [e for p in held for e in (p.exercise, p.twin)]
    validation = store(
        teacher, template, RULE, asked, DISTILLED.kept, max_response=MAX_RESPONSE, seed=12
    )
    student = copy.deepcopy(teacher)
    stage = DistillationStage(student, template, stored, validation, DISTILLED, seed)
    before = stage.evaluate()["kl"]
    for index in range(stage.steps):
        stage.step(index)
    after = stage.evaluate()["kl"]
    arms = {
        "teacher, prompted": (teacher, RULE),
        "teacher, no prompt": (teacher, ""),
        "student, no prompt": (student, ""),
    }
    kl = {"teacher, prompted": 0.0, "teacher, no prompt": before, "student, no prompt": after}
    found: list[Row] = []
    for name, (model, text) in arms.items():
        ids = [template.prompt(prompted(e, text) if text else e.messages) for e in asked]
        said = say(model.eval(), template, ids, 1, max_response=MAX_RESPONSE, seed=12)
        replies = [Answer(template.text(rs[0]), template.end in rs[0]) for rs in said]
        counted = measure(held, replies[::2], [p.twin for p in held], replies[1::2]).record()
        read = sum(map(len, ids)) / len(ids)
        found.append({"arm": name, "kl": kl[name], "tokens_read": read, **counted})
    return found


STRANGE = 400


def strangers(seed: int, folder: str) -> list[Row]:
    """Tell probes, and words that were never asked for, from known prompts by the hidden state."""
    begun = bases(folder, seed)
    template, model = begun.template, begun.model

    def of(asked: Sequence[Exercise]) -> np.ndarray:
        return states(model, [template.prompt(e.messages) for e in asked], template.pad)

    known, fresh_known = of(helpful(1000 + seed, 1200)), of(helpful(13, STRANGE, held_out=True))
    rng = np.random.default_rng(seed)
    kinds = {
        "probes": of(harmful(13, STRANGE, held_out=True)),
        "shuffled words": states(
            model, [_shuffled(p, rng) for p in _ids(begun, STRANGE)], template.pad
        ),
    }
    found: list[Row] = []
    for kind, strange in kinds.items():
        for shown in (0, 10):
            detector = fit_detector(known, 0.05, strange[:shown] if shown else None)
            a, b = detector.score(fresh_known), detector.score(strange[shown:])
            found.append(
                {"strange": kind, "shown": shown, "n": [len(a), len(b)], "auroc": auroc(a, b),
                 "known_refused": float((a > detector.threshold).mean()),
                 "strange_refused": float((b > detector.threshold).mean())}
            )  # fmt: skip
    return found


def _ids(begun: Base, n: int) -> list[list[int]]:
    return [begun.template.prompt(e.messages) for e in helpful(14, n, held_out=True)]


def _shuffled(prompt: list[int], rng: np.random.Generator) -> list[int]:
    """Put what the user said into another order; the tokens around it stay."""
    middle = prompt[1:-2]
    rng.shuffle(middle)
    return [prompt[0], *middle, *prompt[-2:]]
