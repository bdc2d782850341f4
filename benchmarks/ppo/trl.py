"""TRL's PPO, the peer of rl/stages/ppo.py: version 1.12.0 is the last that has it.

Its trainer owns the loop, so who takes turns with it is called at the end of each iteration. The
phases are seen from outside: when its generation begins and ends, when its update first runs the
policy and the value network together.
"""

import dataclasses
import importlib
import os
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from ...core.model.presets import GPTConfig
from ..timing import Mark
from ..training_step import checkout_hidden

KL_COEFFICIENT = 0.05  # TRL's default


@dataclasses.dataclass(frozen=True)
class Shape:
    """One PPO iteration, alike for everyone.

    Attributes
    ----------
    config : GPTConfig
        Of policy, reference, value network and reward model.
    batch, n_prompt, n_response : int
        Episodes, and their tokens; no episode ends early.
    epochs, minibatches : int
        Passes over the episodes, and optimizer steps in each.
    """

    config: GPTConfig
    batch: int = 16
    n_prompt: int = 32
    n_response: int = 96
    epochs: int = 4
    minibatches: int = 1


def expect_installed() -> None:
    """Import what `train` needs.

    Raises
    ------
    ImportError
        If trl, transformers or datasets is not installed.
    """
    _libraries()


def train(
    shape: Shape,
    iterations: int,
    mark: Mark,
    after: Callable[[], None],
    device: str = "cpu",
) -> None:
    """Run TRL's trainer.

    Parameters
    ----------
    shape : Shape
    iterations : int
    mark : callable
        Told the phases: "roll out", "judge and credit", "update".
    after : callable
        Called between iterations, when TRL holds nothing but its models.
    device : str
        "cpu" or "cuda".

    Raises
    ------
    ImportError
        If trl, transformers or datasets is not installed.
    """
    libraries = _libraries()
    models = _models(libraries.hf, shape.config)
    models["reference"].load_state_dict(models["policy"].state_dict())

    callback: Any = libraries.hf.TrainerCallback

    class Turns(callback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            mark("")
            after()
            mark("roll out")

    def marking(phase: str, function: Callable[..., Any], then: str = "") -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            mark(phase)
            result = function(*args, **options)
            if then:
                mark(then)
            return result

        return call

    trainer, wrapper = libraries.ppo, libraries.ppo.PolicyAndValueWrapper
    generation, forward = trainer.batch_generation, wrapper.forward
    trainer.batch_generation = marking("roll out", generation, "judge and credit")
    wrapper.forward = marking("update", forward)
    try:
        _run(libraries, shape, iterations, models, Turns(), lr=1e-5, seed=0, device=device)
    finally:
        trainer.batch_generation, wrapper.forward = generation, forward


@dataclasses.dataclass(frozen=True)
class Observed:
    """An iteration of TRL's, for another to repeat.

    Attributes
    ----------
    weights : dict
        Of "policy", "reference", "value" and "reward" before it: name to tensor.
    tokens : torch.Tensor of int64 [batch, prompt + response]
        What was asked and answered.
    statistics : dict of str to float
        What TRL logged.
    """

    weights: dict[str, dict[str, torch.Tensor]]
    tokens: torch.Tensor
    statistics: dict[str, float]


def observe(shape: Shape, lr: float, seed: int) -> Observed:
    """Run one iteration, with a reference that is not the policy.

    Parameters
    ----------
    shape : Shape
    lr : float
        Learning rate.
    seed : int
        Of models, prompts and sampling.

    Returns
    -------
    Observed
    """
    libraries = _libraries()
    torch.manual_seed(seed)
    models = _models(libraries.hf, shape.config)
    weights = {
        name: {n: x.clone() for n, x in model.state_dict().items()}
        for name, model in models.items()
    }
    said: list[torch.Tensor] = []
    logged: dict[str, float] = {}

    callback: Any = libraries.hf.TrainerCallback

    class Listener(callback):
        def on_log(self, *_: Any, logs: Any = None, **__: Any) -> None:
            logged.update(logs or {})

    generation = libraries.ppo.batch_generation

    def listening(*args: Any, **options: Any) -> Any:
        tokens, logits = generation(*args, **options)
        said.append(tokens.clone())
        return tokens, logits

    libraries.ppo.batch_generation = listening
    try:
        _run(libraries, shape, 1, models, Listener(), lr=lr, seed=seed)
    finally:
        libraries.ppo.batch_generation = generation
    return Observed(weights, said[0], logged)


class _Libraries(NamedTuple):
    """What is imported late: TRL may not be installed."""

    datasets: Any
    hf: Any
    ppo: Any  # the trainer's module
    settings: Any


def _libraries() -> _Libraries:
    os.environ |= {"HF_HUB_OFFLINE": "1", "TRL_EXPERIMENTAL_SILENCE": "1",
                   "TOKENIZERS_PARALLELISM": "false"}  # fmt: skip
    with checkout_hidden():
        return _Libraries(
            datasets=importlib.import_module("datasets"),
            hf=importlib.import_module("transformers"),
            ppo=importlib.import_module("trl.experimental.ppo.ppo_trainer"),
            settings=importlib.import_module("trl.experimental.ppo").PPOConfig,
        )


def _models(hf: Any, config: GPTConfig) -> dict[str, torch.nn.Module]:
    scalar = {"policy": False, "reference": False, "value": True, "reward": True}
    return {name: _model(hf, config, of_scalar) for name, of_scalar in scalar.items()}


def _run(
    libraries: _Libraries,
    shape: Shape,
    iterations: int,
    models: dict[str, torch.nn.Module],
    callback: Any,
    *,
    lr: float,
    seed: int,
    device: str = "cpu",
) -> None:
    """Train on prompts drawn at random."""
    n = shape.batch * iterations
    prompts = torch.randint(2, shape.config.vocab_size, (n, shape.n_prompt)).tolist()
    data = libraries.datasets.Dataset.from_dict({"input_ids": prompts})
    with tempfile.TemporaryDirectory() as folder:
        settings = libraries.settings(
            output_dir=folder, use_cpu=device == "cpu", bf16=False, gradient_checkpointing=False,
            report_to="none", save_strategy="no", disable_tqdm=True,
            per_device_train_batch_size=shape.batch // shape.minibatches,
            gradient_accumulation_steps=shape.minibatches, num_mini_batches=shape.minibatches,
            local_rollout_forward_batch_size=shape.batch, num_ppo_epochs=shape.epochs,
            response_length=shape.n_response, total_episodes=n, missing_eos_penalty=None,
            num_sample_generations=0, logging_steps=10**6, temperature=1.0, seed=seed,
            learning_rate=lr, kl_coef=KL_COEFFICIENT,
        )  # fmt: skip
        libraries.ppo.PPOTrainer(
            args=settings, model=models["policy"], ref_model=models["reference"],
            processing_class=_tokenizer(libraries.hf, shape.config.vocab_size),
            reward_model=models["reward"], value_model=models["value"], train_dataset=data,
            eval_dataset=data, callbacks=[callback],
        ).train()  # fmt: skip


def _model(hf: Any, config: GPTConfig, scalar: bool) -> torch.nn.Module:
    """Make transformers' GPT-2 with a head of words or of one number; nothing ends a sequence."""
    settings = hf.GPT2Config(
        vocab_size=config.vocab_size, n_positions=config.n_ctx, n_embd=config.d_model,
        n_layer=config.n_layer, n_head=config.n_head, pad_token_id=0, bos_token_id=None,
        eos_token_id=None, num_labels=1, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    kind = hf.GPT2ForSequenceClassification if scalar else hf.GPT2LMHeadModel
    return kind(settings)


def _tokenizer(hf: Any, vocab: int) -> Any:
    """Make a tokenizer of `vocab` words, which TRL wants but does not use on ids."""
    tokenizers = importlib.import_module("tokenizers")
    words = {"<pad>": 0, "<eos>": 1, **{f"t{i}": i for i in range(2, vocab)}}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<pad>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="<eos>", padding_side="left"
    )
