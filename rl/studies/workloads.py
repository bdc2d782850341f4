"""What benchmarks run of the pipeline: generation, and one PPO iteration by phase.

Benchmarks do not import the pipeline, nor the pipeline them: the command line hands these over. A
workload runs once and calls `mark(phase)` as each phase begins; who measures looks at the clock.
Its gate runs once more, from the same start, on both backends, and returns what must be the same.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from ...core.model.presets import GPTConfig, preset
from ...kernels.common import launch
from ...kernels.cpu import speed_up
from ...kernels.model.gpt import GPT
from ..configuration import PPOSettings
from ..data.sources import Prompt
from ..ranks.group import Group
from ..stages.generation import Generation, generate
from ..stages.ppo_stage import PPOStage
from ..stages.reward_model import scoring
from ..stages.rollout import response_log_probs, side_by_side
from ..stages.scorer import Scorer
from ..training.run import Statistics

Mark = Callable[[str], None]

TINY = GPTConfig(vocab_size=61, n_ctx=32, n_layer=2, n_head=2, d_model=16)
END, PAD = 0, 1  # ids; nothing here is text
# By such a share an iteration's statistics may differ between the kernels and eager PyTorch: where
# rounding changes one of thousands of draws, the rest of its episode differs.
SAME = {"score": 0.02, "reward": 0.02, "entropy": 0.02, "value_loss": 0.05, "gradient_norm": 0.1}


@dataclasses.dataclass(frozen=True)
class Workload:
    """Something that is run whole.

    Attributes
    ----------
    name : str
    settings : dict
        What it was.
    run : callable
        `(mark) -> int`: does it once, and returns how many tokens were made.
    gate : callable
        `() -> {name: (came, expected, share that they may differ by)}`.
    """

    name: str
    settings: dict[str, Any]
    run: Callable[[Mark], int]
    gate: Callable[[], dict[str, tuple[float, float, float]]]


def ppo(device: str, *, tiny: bool) -> dict[str, Callable[[], Workload]]:
    """Return one PPO iteration: policy, value and reference of GPT-2 124M's size, in float32.

    Parameters
    ----------
    device : str
    tiny : bool
        A small model, to try it.

    Returns
    -------
    dict
        Name to what makes the workload: size, what is done, and who does it.
    """
    n = 4 if tiny else 64
    return {
        f"{n} episodes | iteration | gptwin{how}": functools.partial(_ppo, n, device, tiny, graphs)
        for how, graphs in (("", False), (", CUDA graphs", True))
    }


def _ppo(n_episodes: int, device: str, tiny: bool, graphs: bool) -> Workload:
    """Make an iteration of 124M, whose reward costs nothing."""
    if graphs and device != "cuda":
        raise NotImplementedError(
            "PPO refuses ppo.cuda_graphs without a GPU; generation tries them"
        )
    config = TINY if tiny else preset("gpt2")
    settings = PPOSettings(
        episodes=10**6, batch=n_episodes, minibatches=2 if tiny else 8,
        max_response=6 if tiny else 64, missing_end="keep", cuda_graphs=graphs,
    )  # fmt: skip
    n_prompt = 5 if tiny else 64
    begin = functools.partial(_stage, config, settings, n_prompt, device, END, None)
    return _iterations(config, settings, begin)


def ppo_like(
    config: GPTConfig,
    *,
    batch: int,
    n_prompt: int,
    n_response: int,
    epochs: int,
    minibatches: int,
    shared_trunk: bool,
    device: str = "cpu",
) -> Workload:
    """Return an iteration of a given shape, with a reward model of the policy's size.

    Parameters
    ----------
    config : GPTConfig
        Of policy, reference, value network and reward model.
    batch, n_prompt, n_response : int
        Episodes, and their tokens; no episode ends early.
    epochs, minibatches : int
        Passes over the episodes, and optimizer steps in each.
    shared_trunk : bool
        The value is a head on the policy, not a network of its own.
    device : str

    Returns
    -------
    Workload
    """
    settings = PPOSettings(
        episodes=10**6, batch=batch, minibatches=minibatches, inner_epochs=epochs,
        max_response=n_response, missing_end="keep", shared_trunk=shared_trunk, ptx=0.0,
    )  # fmt: skip
    reward = Scorer(_model(config, device), seed=1).requires_grad_(False).eval()
    begin = functools.partial(_stage, config, settings, n_prompt, device, config.vocab_size, reward)
    return _iterations(config, settings, begin)


def ppo_repeated(
    config: GPTConfig,
    weights: Mapping[str, Mapping[str, torch.Tensor]],
    prompts: torch.Tensor,
    responses: torch.Tensor,
    **settings: Any,
) -> Statistics:
    """Run an iteration that another trainer has run, with its responses in place of our own.

    Parameters
    ----------
    config : GPTConfig
    weights : dict
        Of "policy", "reference", "value" and "reward": tensors under Hugging Face's names.
    prompts, responses : torch.Tensor of int64 [batch, ...]
        Without padding.
    **settings
        Of `PPOSettings`; Adam's are PyTorch's.

    Returns
    -------
    dict of str to float
        As of `PPOStage.step`.
    """
    policy, reference = (_loaded(config, weights[name]) for name in ("policy", "reference"))
    scorers = {}
    for name in ("value", "reward"):
        scorers[name] = Scorer(_loaded(config, weights[name]))
        scorers[name].weight.data.copy_(weights[name]["score.weight"][0])
        scorers[name].bias.requires_grad_(False)  # the other's head has none
    said = responses.tolist()
    chosen = {
        "episodes": len(said), "batch": len(said), "max_response": responses.shape[1], "ptx": 0.0,
        "missing_end": "keep", "lr_warmup": 0, "value_lr": settings["lr"], "betas": (0.9, 0.999),
        "eps": 1e-8, "clip": 1e9,
    }  # fmt: skip
    stage = PPOStage(
        policy, scorers["value"], scoring(scorers["reward"].requires_grad_(False).eval(), PAD),
        _Prompts(lambda index: [Prompt(ids, ()) for ids in prompts.tolist()]),
        PPOSettings(**chosen | settings), pad=PAD, end=config.vocab_size, seed=0, group=Group(),
    )  # fmt: skip
    stage.reference.load_state_dict(reference.state_dict())

    def repeat(model: GPT, asked: Sequence[list[int]], **_: Any) -> Generation:
        batch = side_by_side(asked, said, PAD, torch.device("cpu"))
        log_probs = response_log_probs(model, batch, 1.0)
        return Generation(responses, log_probs, batch.mask.sum(1), None)

    stage.generate = repeat
    return stage.step(0)


def _loaded(config: GPTConfig, weights: Mapping[str, torch.Tensor]) -> GPT:
    """Make a model of another trainer's weights, without its head."""
    model = speed_up(GPT(config))
    prefix = "transformer."
    model.load_state_dict(
        {name.removeprefix(prefix): x for name, x in weights.items() if name.startswith(prefix)}
    )
    return model


def _iterations(
    config: GPTConfig, settings: PPOSettings, begin: Callable[["_Watcher"], PPOStage]
) -> Workload:
    """Make iterations whose phases are seen from outside, each stage by a watcher of its own."""
    watcher = _Watcher()
    stage = begin(watcher)
    iterations = iter(range(10**6))

    def run(mark: Mark) -> int:
        watcher.listen(mark)
        return int(stage.step(next(iterations))["tokens"])

    def gate() -> dict[str, tuple[float, float, float]]:
        found = begin(_Watcher()).step(0)
        with launch.backend("eager"):
            expected = begin(_Watcher()).step(0)
        same = {name: (found[name], expected[name], share) for name, share in SAME.items()}
        # Of a cache that is right, what a forward pass without one says again.
        return same | {"generation_difference": (1 + found["generation_difference"], 1.0, 0.02)}

    about = {"model": dataclasses.asdict(config), "dtype": "float32",
             "ppo": dataclasses.asdict(settings)}  # fmt: skip
    return Workload("an iteration", about, run, gate)


def _stage(
    config: GPTConfig,
    settings: PPOSettings,
    n_prompt: int,
    device: str,
    end: int,
    reward: Scorer | None,
    watcher: "_Watcher",
) -> PPOStage:
    """Make a stage at its start, always the same, which a watcher follows."""
    policy = _model(config, device)
    value = Scorer(policy if settings.shared_trunk else _model(config, device), seed=0)
    by_model = None if reward is None else scoring(reward, PAD)
    prompts = [Prompt(ids, ()) for ids in _prompts(settings.batch, n_prompt, config.vocab_size)]

    def batch(index: int) -> list[Prompt]:
        watcher.mark("roll out")
        return prompts

    def score(_: Sequence[Prompt], responses: Sequence[list[int]]) -> torch.Tensor:
        watcher.mark("reward")
        if by_model is None:
            scores = torch.tensor([float(len(r)) for r in responses], device=device)
        else:
            scores = by_model(prompts, responses)
        watcher.mark("credit")
        return scores

    group = Group(device=torch.device(device))
    stage = PPOStage(policy, value, score, _Prompts(batch), settings, pad=PAD, end=end, seed=0,
                     group=group)  # fmt: skip
    policy.register_forward_pre_hook(watcher.before_forward, with_kwargs=True)
    for model in {value.trunk, stage.reference} - {policy}:
        model.register_forward_pre_hook(watcher.before_scoring)
    return stage


@dataclasses.dataclass(frozen=True)
class _Prompts:
    """Always the same prompts."""

    batch: Callable[[int], list[Prompt]]


class _Watcher:
    """Tells which phase an iteration is in, by who is called."""

    def __init__(self) -> None:
        self.listen(lambda phase: None)

    def listen(self, mark: Mark) -> None:
        """Begin an iteration."""
        self._mark, self.phase = mark, ""

    def mark(self, phase: str) -> None:
        """Pass a phase on when it begins."""
        if phase != self.phase:
            self.phase = phase
            self._mark(phase)

    def before_scoring(self, model: GPT, _: Any) -> None:
        """Tell that a model other than the policy is called, unless it is trained."""
        if not model.training:
            self.mark("log-probabilities and values")

    def before_forward(self, policy: GPT, _: Any, options: dict[str, Any]) -> None:
        """Tell by how the policy is called: with a cache, in evaluation, or in training."""
        if policy.training:
            self.mark("update and average")
        elif options.get("cache") is None:
            self.mark("log-probabilities and values")


def _model(config: GPTConfig, device: str) -> GPT:
    return speed_up(GPT(config, torch.Generator().manual_seed(0)).to(device))


def _prompts(n: int, length: int, vocab: int) -> list[list[int]]:
    """Draw prompts of equal length, without the end token."""
    drawn = torch.randint(2, vocab, (n, length), generator=torch.Generator().manual_seed(1))
    return drawn.tolist()


WORKLOADS: dict[str, Callable[..., Any]] = {"generation": generate, "ppo": ppo}
