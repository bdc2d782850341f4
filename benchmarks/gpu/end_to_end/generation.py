"""End to end: generation by GPT-2 124M, everyone's, in tokens a second.

    gptwin                       the cache grows; the kernels are launched one after another
    gptwin, static step          shapes and addresses stay the same (kernels/model/decode_step.py)
    gptwin, CUDA graphs          that step is recorded once, and then replayed
    gptwin, batch-invariant      the same under `batch_invariant`, whose cost is seen so
    eager                        the growing cache, in eager PyTorch
    transformers                 generate() with its growing cache
    transformers, static cache   ... with its static one: on a GPU it compiles itself

All sample at temperature 1 from the same weights, and no sequence ends early. The gate: the
log-probability that a provider gives each token it drew is what the model in float32 eager PyTorch
gives it, which is shown prompt and answer whole, without a cache; and gptwin's ways draw the same
tokens. The weights are `SHARPENED`, so that what a token is worth depends on the tokens before it:
a fresh model says nearly the same whatever is in its cache.

What generates lives in the pipeline, which benchmarks do not import: it is handed in.
"""

import contextlib
import copy
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import torch

from ....core.model.presets import GPTConfig, preset
from ....kernels.common import launch
from ....kernels.model.gpt import GPT
from ...models import QUICK, describe_model, draw_parameters
from ...training_step import as_tensors, load_transformers, transformers_model
from ..operations.results import BATCH_INVARIANT, cell_name
from .phases import Checks, Makers, Mark

SHARPENED = 3.0
# Of the largest log-probability: what bfloat16 rounds away in twelve layers, and what float32 does.
TOLERANCES = {torch.bfloat16: 0.03, torch.float32: 1e-3}
GPTWIN = {
    "gptwin": {},
    "gptwin, static step": {"static": True},
    "gptwin, CUDA graphs": {"graphs": True},
    BATCH_INVARIANT: {"graphs": True, "invariant": True},
}
NOT_RECORDED = "not recorded, for lack of a GPU: the same step, launched each time"

Generate = Callable[..., Any]  # rl.generation.generate


@dataclasses.dataclass(frozen=True)
class PromptSize:
    """How much is generated.

    Attributes
    ----------
    prompts, prompt_tokens, new_tokens : int
        The last two of each.
    """

    prompts: int
    prompt_tokens: int
    new_tokens: int

    @property
    def name(self) -> str:
        """As the cells are called."""
        many = "prompts" if self.prompts > 1 else "prompt"
        return f"{self.prompts} {many}, {self.prompt_tokens} + {self.new_tokens} tokens"


SIZES, TINY_SIZES = (
    (PromptSize(64, 64, 128), PromptSize(1, 64, 128)),
    (PromptSize(3, 5, 4), PromptSize(1, 5, 4)),
)


def generation(generate: Generate, device: str, *, tiny: bool) -> Makers:
    """Return what makes everyone's workload at every size.

    Parameters
    ----------
    generate : callable
        The pipeline's.
    device : str
    tiny : bool
        For a dry run.

    Returns
    -------
    dict
        A cell's name to what makes its workload.
    """
    makers: dict[str, Callable[[], Generating]] = {}
    for size in TINY_SIZES if tiny else SIZES:
        scene = Scene(generate, size, device, tiny)
        # Without kernels there is nothing that could be batch-invariant.
        own = {
            who: how for who, how in GPTWIN.items() if device == "cuda" or who != BATCH_INVARIANT
        }
        ways = {who: functools.partial(gptwin, scene, **how) for who, how in own.items()}
        ways["eager"] = functools.partial(eager, scene)
        ways["transformers"] = functools.partial(transformers, scene, None)
        ways["transformers, static cache"] = functools.partial(transformers, scene, "static")
        for who, make in ways.items():
            makers[cell_name(size.name, "generate", who)] = make
    return makers


class Scene:
    """The weights, the prompts and the truth of a size, made when somebody needs them.

    Parameters
    ----------
    generate : callable
    size : PromptSize
    device : str
    tiny : bool
    """

    def __init__(self, generate: Generate, size: PromptSize, device: str, tiny: bool) -> None:
        self.generate, self.size, self.device = generate, size, device
        self.config: GPTConfig = QUICK if tiny else preset("gpt2")
        self.dtype = torch.float32 if tiny else torch.bfloat16

    @functools.cached_property
    def parameters(self) -> dict[str, torch.Tensor]:
        """The weights, in the dtype that is timed."""
        drawn = as_tensors(draw_parameters(self.config))
        return {
            name: (p * SHARPENED if p.ndim > 1 else p).to(self.dtype) for name, p in drawn.items()
        }

    @functools.cached_property
    def prompts(self) -> torch.Tensor:
        """Tokens [prompt, time]."""
        shape = (self.size.prompts, self.size.prompt_tokens)
        drawn = torch.randint(
            self.config.vocab_size, shape, generator=torch.Generator().manual_seed(1)
        )
        return drawn.to(self.device)

    @functools.cached_property
    def model(self) -> GPT:
        """The model of gptwin's and eager PyTorch's ways."""
        model = GPT(self.config).to(self.device, self.dtype).eval()
        model.load_state_dict(self.parameters)
        return model

    def say(self, **how: Any) -> Any:
        """Generate by the pipeline."""
        return self.generate(
            self.model, self.prompts.tolist(), max_new_tokens=self.size.new_tokens, **how
        )

    @functools.cached_property
    def plain(self) -> torch.Tensor:
        """The tokens that gptwin draws in the plainest way."""
        return self.say().tokens

    @torch.no_grad()
    def log_probs(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the true log-probability of new tokens [prompt, step]."""
        model = copy.deepcopy(self.model).float()
        with launch.backend("eager"):
            hidden = model(torch.cat([self.prompts, tokens], 1)[:, :-1])
            logits = model.logits(hidden[:, self.size.prompt_tokens - 1 :])
        return logits.log_softmax(-1).gather(2, tokens[..., None])[..., 0]

    def check(self, tokens: torch.Tensor, log_probs: torch.Tensor) -> Checks:
        """Return what the gate compares of new tokens and what they are said to be worth."""
        expected = self.log_probs(tokens)
        return {"log_probs": (log_probs.float(), expected, TOLERANCES[self.dtype])}

    def describe(self, **more: Any) -> dict[str, Any]:
        """Return what was chosen, for the result file."""
        sizes = dataclasses.asdict(self.size)
        return describe_model(self.config, dtype=str(self.dtype), **sizes, **more)


@dataclasses.dataclass(frozen=True)
class Generating:
    """A provider's way; see `phases.Workload`."""

    settings: dict[str, Any]
    run: Callable[[Mark], int]
    gate: Callable[[], Checks]


def gptwin(
    scene: Scene, *, static: bool = False, graphs: bool = False, invariant: bool = False
) -> Generating:
    """Make one of gptwin's ways."""

    def say() -> Any:
        with launch.batch_invariant() if invariant else contextlib.nullcontext():
            return scene.say(static=static, graphs=graphs)

    def run(mark: Mark) -> int:
        mark("generate")
        return int(say().lengths.sum())

    def gate() -> Checks:
        said = say()
        checks = scene.check(said.tokens, said.log_probs)
        if invariant:  # it rounds otherwise, and draws other tokens now and then
            return checks
        return {**checks, "tokens": (said.tokens, scene.plain, 0.0)}

    recorded = "recorded" if scene.device == "cuda" else NOT_RECORDED
    settings = scene.describe(
        static_step=static or graphs,
        batch_invariant=invariant,
        **{"cuda_graphs": recorded} if graphs else {},
    )
    return Generating(settings, run, gate)


def eager(scene: Scene) -> Generating:
    """Make the plain way, in eager PyTorch."""

    def run(mark: Mark) -> int:
        mark("generate")
        with launch.backend("eager"):
            return int(scene.say().lengths.sum())

    def gate() -> Checks:
        with launch.backend("eager"):
            said = scene.say()
        return scene.check(said.tokens, said.log_probs)

    return Generating(scene.describe(), run, gate)


def transformers(scene: Scene, cache: str | None) -> Generating:
    """Make the way of transformers' `generate`.

    Parameters
    ----------
    scene : Scene
    cache : str, optional
        What it calls its cache; None for its own choice, which grows.
    """
    model = transformers_model(scene.config).to(scene.device, scene.dtype).eval()
    load_transformers(model, scene.parameters)
    options = {
        "attention_mask": torch.ones_like(scene.prompts), "use_cache": True, "pad_token_id": 0,
        "max_new_tokens": scene.size.new_tokens, "min_new_tokens": scene.size.new_tokens,
        "do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0,
    }  # fmt: skip
    if cache:
        options["cache_implementation"] = cache

    def run(mark: Mark) -> int:
        mark("generate")
        said = model.generate(scene.prompts, **options)
        return said.numel() - scene.prompts.numel()

    def gate() -> Checks:
        said = model.generate(
            scene.prompts, **options, return_dict_in_generate=True, output_logits=True
        )
        tokens = said.sequences[:, scene.prompts.shape[1] :]
        logits = torch.stack(said.logits, 1).float()  # [prompt, step, vocab]
        log_probs = logits.log_softmax(-1).gather(2, tokens[..., None])[..., 0]
        return scene.check(tokens, log_probs)

    return Generating(scene.describe(cache=cache or "its own choice"), run, gate)
