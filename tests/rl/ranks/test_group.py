"""Two processes compute what one does, data parallel and sharded: gloo on the CPU, one launch."""

import dataclasses
import os

import numpy as np
import pytest
import tiny
import torch
from ranks import two_ranks

from gptwin.rl.configuration import (
    Configuration,
    PPOSettings,
    PretrainSettings,
    RewardSettings,
    RunSettings,
    SFTSettings,
)
from gptwin.rl.data.batches import Shuffled, Windows
from gptwin.rl.formats import checkpoint
from gptwin.rl.ranks.group import Group, join
from gptwin.rl.ranks.sharding import whole_state
from gptwin.rl.stages.language_model import LanguageModelStage
from gptwin.rl.stages.ppo_stage import PPOStage
from gptwin.rl.stages.reward_model import Ranking, RewardStage
from gptwin.rl.stages.scorer import Scorer
from gptwin.rl.training import run
from gptwin.rl.training.run import Interrupted, read_log, train

STEPS = 3
# Adam's first step shows the gradient's sign alone, and rounding would decide some: eps is large.
EPS = 1.0


def pretrain(group):
    windows = Windows(np.arange(300) % 250, time=12, batch_size=5, seed=0)
    settings = PretrainSettings(lr=1e-2, eps=EPS)
    return LanguageModelStage(
        "pretrain", tiny.gpt(), windows, windows.all(3), settings, STEPS, tiny.template().pad, group
    )


def sft(group):
    examples = tiny.conversations(14)
    # 3 conversations in 2 micro-batches: the second rank's last one is empty.
    settings = SFTSettings(lr=1e-2, batch=3, dropout=0.0, eps=EPS, accumulate=2)
    source = Shuffled(examples, settings.batch, seed=0)
    return LanguageModelStage(
        "sft", tiny.gpt(), source, examples[:5], settings, STEPS, tiny.template().pad, group
    )


def reward(group):
    end = [tiny.template().end]
    word = tiny.template().tokenizer.encode(" word")
    answers = [word * 3 + end, word + end, word * 2 + end]
    rankings = [Ranking(p.ids, answers[: 2 + i % 2], [0, 1, 2][: 2 + i % 2])
                for i, p in enumerate(tiny.prompts(9))]  # fmt: skip
    settings = RewardSettings(batch=3, lr=1e-2, eps=EPS)
    scorer = Scorer(tiny.gpt(), seed=0)
    pad, rows = tiny.template().pad, [rankings[0].prompt]
    return RewardStage(scorer, rankings, rankings[:5], settings, rows, pad, 0, group)


def ppo(group, **settings):
    settings = PPOSettings(**{
        "batch": 7, "minibatches": 2, "episodes": 7 * STEPS, "max_response": 5, "lr": 1e-2,
        "value_lr": 1e-2, "lr_warmup": 0, "ptx": 0.5, "eps": EPS, "adaptive_kl": True,
    } | settings)  # fmt: skip
    policy, t = tiny.gpt(), tiny.template()
    value = Scorer(policy if settings.shared_trunk else tiny.gpt(seed=1), seed=0)
    return PPOStage(
        policy, value, lambda _, responses: torch.tensor([float(r[0] % 7) for r in responses]),
        Shuffled(tiny.prompts(21), settings.batch, 0), settings, pad=t.pad, end=t.end, seed=0,
        group=group, pretraining=Windows(np.arange(200) % 250, time=8, batch_size=3, seed=0),
        judge=lambda policy, reference: {"norm": policy.wte.weight.norm().item()},
    )  # fmt: skip


STAGES = {
    "pretrain": pretrain,
    "sft": sft,
    "reward": reward,
    "ppo": ppo,
    "ppo, one trunk": lambda group: ppo(group, shared_trunk=True),
}


def modules(stage):
    if isinstance(stage, PPOStage):
        return [stage.policy, stage.value]
    return [stage.scorer if isinstance(stage, RewardStage) else stage.model]


def outcome(make, group, state=None, steps=range(STEPS)):
    """Run a stage, from a state if there is one: statistics, evaluation, weights, the stage."""
    stage = make(group)
    if state is not None:
        stage.load_state_dict(state)
    found = [stage.step(i) for i in steps]
    weights = [whole_state(module) for module in modules(stage)]
    return {"found": found, "evaluation": stage.evaluate(), "weights": weights}, stage


class Noise:
    """A stage whose loss is a draw of the rank's own: what a resumed rank must draw again."""

    name, steps = "noise", 6

    def __init__(self, group, stop_at=None):
        self.group, self.stop_at, self.drawn = group, stop_at, []

    def step(self, index):
        self.drawn.append(torch.rand(()).item())
        if index == self.stop_at and self.group.rank == 1:  # one rank alone hears of it
            os.kill(os.getpid(), run.signal.SIGINT)
        return {"loss": self.drawn[-1], "tokens": 1.0}

    def evaluate(self):
        return {}

    def state_dict(self):
        return {"nothing": None}

    def load_state_dict(self, state):
        assert state == {"nothing": None}


def noise(group, folder):
    """Draw six numbers; then again, stopped by a signal to one rank and resumed."""
    configuration = Configuration(run=RunSettings(str(folder / "a"), checkpoint_every=100))
    whole = Noise(group)
    train(whole, configuration, group=group, quiet=True)
    changed = dataclasses.replace(configuration.run, directory=str(folder / "b"))
    configuration = dataclasses.replace(configuration, run=changed)
    first, second = Noise(group, stop_at=2), Noise(group)
    with pytest.raises(Interrupted, match="stopped after step 3, which is kept"):
        train(first, configuration, group=group, quiet=True)
    torch.rand(5)
    train(second, configuration, group=group, quiet=True, resume=True)
    return whole.drawn, first.drawn + second.drawn


def kept_and_read(group, folder):
    """Keep a sharded PPO after a step, and let another one go on from there."""
    first = ppo(group)
    first.step(0)
    kept = checkpoint.save(folder / "shards", 1, first.state_dict(), 1, group)
    group.wait()
    other = ppo(group)
    other.step(0)  # whatever it holds is overwritten
    _, state = checkpoint.load(kept, other.state_dict())
    other.load_state_dict(state)
    found = [other.step(i) for i in range(1, STEPS)]
    return {"found": found, "weights": [whole_state(m) for m in modules(other)]}


def on_rank(group, folder):
    found = {name: outcome(make, group)[0] for name, make in STAGES.items()}
    found["noise"] = noise(group, folder)
    sharded = dataclasses.replace(group, sharded=True)
    for name, make in STAGES.items():
        found[f"sharded {name}"], stage = outcome(make, sharded)
    shares = [p.to_local().numel() / p.numel() for p in stage.policy.parameters()]
    found["share"] = sum(shares) / len(shares)
    found["resumed"] = kept_and_read(sharded, folder)
    torch.save(found, folder / f"{group.rank}.pt")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What both ranks found, and the folder they worked in."""
    if torch.cuda.is_available():
        pytest.skip("two processes would share one GPU")
    folder = tmp_path_factory.mktemp("ranks")
    two_ranks(on_rank, folder)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)], folder


def assert_alike(actual, expected):
    for one, two in zip(expected["found"], actual["found"], strict=True):
        assert set(one) == set(two)
        for name in set(one) - {"generation_difference"}:
            assert two[name] == pytest.approx(one[name], rel=2e-3, abs=1e-5), name
    for one, two in zip(expected["weights"], actual["weights"], strict=True):
        for name in one:
            torch.testing.assert_close(two[name], one[name], rtol=1e-3, atol=2e-5, msg=name)


@pytest.mark.parametrize("how", ["", "sharded "])
@pytest.mark.parametrize("name", STAGES)
def test_two_ranks_are_one(name, how, ranks):
    expected, _ = outcome(STAGES[name], Group())
    for found in ranks[0]:
        actual = found[how + name]
        assert_alike(actual, expected)
        for key, value in expected["evaluation"].items():
            assert actual["evaluation"][key] == pytest.approx(value, rel=1e-3, abs=1e-5)


def test_a_sharded_run_holds_half_of_each_parameter_and_resumes_from_shards(ranks):
    for found in ranks[0]:
        assert found["share"] == pytest.approx(0.5, abs=0.05)
        for one, two in zip(
            found["sharded ppo"]["found"][1:], found["resumed"]["found"], strict=True
        ):
            assert one == two
        for one, two in zip(
            found["sharded ppo"]["weights"], found["resumed"]["weights"], strict=True
        ):
            for name in one:
                torch.testing.assert_close(two[name], one[name], rtol=0, atol=0)
    kept = ranks[1] / "shards/step-00000001"
    assert len(list((kept / checkpoint.SHARDS).glob("*.safetensors"))) == 2
    with pytest.raises(ValueError, match=r"^run\.fsdp: expected true, to go on from a sharded"):
        checkpoint.load(kept)


def test_each_rank_draws_its_own_numbers_and_the_same_after_a_stop(ranks):
    whole = [found["noise"][0] for found in ranks[0]]
    assert not set(whole[0]) & set(whole[1])
    for found in ranks[0]:
        assert found["noise"][0] == found["noise"][1]
    assert [record["step"] for record in read_log(ranks[1] / "b/noise")] == list(range(1, 7))


def test_alone_is_a_group_of_one():
    group = join()
    assert (group.rank, group.world, group.is_main) == (0, 1, True)
    assert group.total(3.5) == 3.5
    assert group.part([1, 2]) == group.joined([1, 2]) == [1, 2]
    with pytest.raises(ValueError, match=r"^run\.fsdp: expected several ranks"):
        join(sharded=True)


def test_parts_are_the_whole():
    parts = [Group(rank, 3).part(list(range(8))) for rank in range(3)]
    assert sorted(i for part in parts for i in part) == list(range(8))
