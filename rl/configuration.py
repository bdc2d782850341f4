"""What a training stage is told: every setting, its default, where that is from, and its bounds.

A file and the command line may change any of them:

    gptwin train ppo --config chat.toml ppo.kl_coefficient=0.05 model.n_layer=6

Each default that InstructGPT (arXiv 2203.02155) publishes is InstructGPT's; `sources(...)` lists
them with their places. The small defaults of `make chatgpt` are in `chatgpt.py`.
"""

import dataclasses
import difflib
import sys
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import tomli_w

from ..core.checks import refuse
from ..core.model.presets import GPTConfig, preset
from .bounds import (
    ABOVE_0,
    ANY,
    BELOW_1,
    COUNT,
    DECAYS,
    DEPTH,
    FINITE,
    FROM_0,
    LIMIT,
    NAMED,
    ON_LONG,
    SEED,
    SEVERAL,
    SHARE,
    SIZE,
    VOCABULARY,
    check,
    one_of,
    setting,
)

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Settings = TypeVar("Settings")


@dataclasses.dataclass(frozen=True)
class ModelSettings:
    """Which model to train.

    Attributes
    ----------
    weights : str
        A folder in Hugging Face's layout (see `weights.py`) to start from instead of pretraining;
        it brings its own sizes and tokenizer.
    preset : str
        A name of `core.presets.PRESETS`; empty: the sizes that follow.
    n_ctx, n_layer, n_head, d_model : int
        As in `GPTConfig`; without a preset. The vocabulary's size is the tokenizer's.
    dropout : float
        As in `GPTConfig`.
    vocab_size : int
        Tokens that the tokenizer is trained to have.
    """

    weights: str = setting("", ANY)
    preset: str = setting("", ANY)
    n_ctx: int = setting(128, SIZE)
    n_layer: int = setting(4, DEPTH)
    n_head: int = setting(4, SIZE)
    d_model: int = setting(128, SIZE)
    dropout: float = setting(0.0, BELOW_1)
    vocab_size: int = setting(1024, VOCABULARY)

    def architecture(self, vocab_size: int) -> GPTConfig:
        """Return the model's configuration.

        Parameters
        ----------
        vocab_size : int
            The tokenizer's.

        Returns
        -------
        GPTConfig
        """
        if self.preset:
            return preset(self.preset, vocab_size=vocab_size, dropout=self.dropout)
        return GPTConfig(
            vocab_size, self.n_ctx, self.n_layer, self.n_head, self.d_model, dropout=self.dropout
        )


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """Where and how a stage runs.

    Attributes
    ----------
    directory : str
        Of the run: resolved settings, log, checkpoints, plots.
    seed : int
        Of everything drawn; rank r uses seed + 100003·r (lm-human-preferences).
    checkpoint_every : int
        Steps between checkpoints; the last step is always kept.
    keep_last : int
        Checkpoints kept.
    evaluate_every : int
        Steps between evaluations; 0: a tenth of the stage's.
    evaluate_first : bool
        Evaluate before the first step, too.
    tensorboard : bool
        Write every statistic for TensorBoard too (the extra `tensorboard`).
    fsdp : bool
        Under torchrun: share models out over the ranks, see `sharding.py`.
    dtype : str
        "float32", or "bfloat16": what pretraining, SFT and the reward model compute in, with
        parameters and moments in float32. PPO is float32, since it holds ratios to 1.
    compile : str
        Backend of `torch.compile`, such as "inductor", for pretraining and SFT; empty: none.
    batch_invariant : bool
        Compute each row to the same bits whatever rows are beside it, on Triton's kernels alone:
        PPO's first ratio is then exactly 1 (docs/batch_invariance.md).
    threads : int
        Threads that PyTorch computes with; 0: as many as it would take, all cores as a rule. Fewer
        are faster beside another busy process.
    """

    directory: str = setting("runs/gptwin", NAMED)
    seed: int = setting(0, SEED)
    checkpoint_every: int = setting(200, COUNT)
    keep_last: int = setting(2, COUNT)
    evaluate_every: int = setting(200, FROM_0)
    evaluate_first: bool = setting(False, ANY)
    tensorboard: bool = setting(False, ANY)
    fsdp: bool = setting(False, ANY)
    dtype: str = setting("float32", one_of("float32", "bfloat16"))
    compile: str = setting("", ANY)
    batch_invariant: bool = setting(False, ANY)
    threads: int = setting(0, FROM_0)


@dataclasses.dataclass(frozen=True)
class PretrainSettings:
    """Pretraining: the next token of running text.

    Attributes
    ----------
    data : str
        A file of texts (see `data.py`), or a mixture (a .toml: corpus/mixture.py); empty: Python's
        documentation.
    steps, batch, time : int
        Optimizer steps; windows a step over all ranks; tokens a window.
    accumulate : int
        Micro-batches a step.
    lr, warmup, final_lr : float, int, float
        Peak rate, linear warm-up steps, and the cosine's last rate as a share of the peak.
    betas, eps, weight_decay, clip : tuple, float, float, float
        AdamW's, and the global norm that gradients are clipped to.
    """

    data: str = setting("", ANY)
    steps: int = setting(1000, COUNT)
    batch: int = setting(16, COUNT)
    time: int = setting(128, SIZE)
    accumulate: int = setting(1, COUNT)
    lr: float = setting(6e-4, ABOVE_0, "GPT-3 table 2.1, the 125M model")
    warmup: int = setting(100, FROM_0)
    final_lr: float = setting(0.1, SHARE, "GPT-3 appendix B: cosine to 10%")
    betas: tuple[float, float] = setting((0.9, 0.95), DECAYS, "GPT-3 appendix B")
    eps: float = setting(1e-8, ABOVE_0, "GPT-3 appendix B")
    weight_decay: float = setting(0.1, FROM_0, "GPT-3 appendix B")
    clip: float = setting(1.0, LIMIT, "GPT-3 appendix B")


@dataclasses.dataclass(frozen=True)
class SFTSettings:
    """Supervised fine-tuning on demonstrations; the loss is on the assistant's tokens alone.

    Attributes
    ----------
    data : str
        A file of dialogues (see `data.py`); empty: the exercises of `tasks.py`.
    on_long : str
        What becomes of a conversation longer than the model's context: "error", before the first
        step; "truncate", which cuts its end off; or "drop".
    examples : int
        Exercises drawn, if there is no file.
    carelessness : float
        Share of the drawn demonstrations with a fault.
    epochs, batch, accumulate : int
        Passes over the data; conversations a step over all ranks; micro-batches a step.
    lr, warmup, final_lr, betas, eps, weight_decay, clip
        As in `PretrainSettings`.
    dropout : float
        Residual dropout in this stage.
    pretraining_share : float
        Pretraining windows beside each batch, as a share of it. InstructGPT C.3 mixes in 10% for
        the model that PPO begins with; the plain SFT model has none.
    """

    data: str = setting("", ANY)
    on_long: str = setting("error", ON_LONG)
    examples: int = setting(4000, COUNT)
    carelessness: float = setting(0.3, SHARE)
    epochs: int = setting(16, COUNT, "InstructGPT C.1")
    batch: int = setting(32, COUNT, "InstructGPT C.1, the 1.3B and 6B models")
    accumulate: int = setting(1, COUNT)
    lr: float = setting(9.65e-6, ABOVE_0, "InstructGPT C.1, the 1.3B and 6B models")
    warmup: int = setting(0, FROM_0, "InstructGPT C.1: no warm-up")
    final_lr: float = setting(0.1, SHARE, "InstructGPT C.1: cosine to 10%")
    betas: tuple[float, float] = setting((0.9, 0.95), DECAYS, "InstructGPT C")
    eps: float = setting(1e-8, ABOVE_0)
    weight_decay: float = setting(0.0, FROM_0)
    clip: float = setting(1.0, LIMIT)
    dropout: float = setting(0.2, BELOW_1, "InstructGPT C.1: residual dropout")
    pretraining_share: float = setting(0.0, SHARE)


@dataclasses.dataclass(frozen=True)
class RewardSettings:
    """The reward model: K-wise ranking of completions.

    Attributes
    ----------
    data : str
        A file of rankings or pairs (see `data.py`); empty: completions sampled from the SFT model
        for the exercises, ranked by noisy gold comparisons.
    on_long : str
        What becomes of a prompt that is longer than the context with an answer: "error", before
        the first step; "truncate", which cuts its beginning off; or "drop".
    prompts : int
        Prompts for which completions are sampled, if there is no file.
    k_min, k_max : int
        Completions ranked for a prompt, at least and at most.
    noise : float
        The labeller's, in gold reward: see `tasks.rank`.
    epochs, batch, accumulate : int
        Passes over the data; prompts a step over all ranks; micro-batches a step.
    lr, warmup, final_lr, betas, eps, weight_decay, clip
        As in `PretrainSettings`.
    centring : float
        Weight of the mean square of a pair's rewards, which keeps them near 0; 0: none.
    """

    data: str = setting("", ANY)
    on_long: str = setting("error", ON_LONG)
    prompts: int = setting(1500, COUNT)
    k_min: int = setting(4, SEVERAL, "InstructGPT 3.5: K = 4 to 9")
    k_max: int = setting(9, SEVERAL, "InstructGPT 3.5: K = 4 to 9")
    noise: float = setting(0.15, ABOVE_0)
    epochs: int = setting(1, COUNT, "InstructGPT C.2")
    batch: int = setting(64, COUNT, "InstructGPT C.2")
    accumulate: int = setting(1, COUNT)
    lr: float = setting(9e-6, ABOVE_0, "InstructGPT C.2")
    warmup: int = setting(0, FROM_0)
    final_lr: float = setting(0.1, SHARE, "InstructGPT C.2: cosine to 10%")
    betas: tuple[float, float] = setting((0.9, 0.95), DECAYS, "InstructGPT C")
    eps: float = setting(1e-8, ABOVE_0)
    weight_decay: float = setting(0.0, FROM_0)
    clip: float = setting(1.0, LIMIT)
    centring: float = setting(0.0, FROM_0)


@dataclasses.dataclass(frozen=True)
class PPOSettings:
    """Reinforcement learning from the reward model.

    Attributes
    ----------
    data : str
        A file of prompts (see `data.py`); empty: the exercises.
    on_long : str
        What becomes of a prompt that leaves no room for `max_response` tokens: "error", before the
        first step; "truncate", which cuts its beginning off; or "drop".
    pretraining_data : str
        Texts for the pretraining term; empty: Python's documentation.
    reward_fn : str
        "package.module:function" that scores (prompts, responses) instead of a reward model.
    episodes, batch, minibatches, inner_epochs : int
        Responses in all; responses a rollout; optimizer steps a pass; passes a rollout.
    max_response : int
        Tokens a response may have.
    temperature : float
        Of sampling; the recomputed log-probabilities use it too.
    kl_coefficient : float
        β of the reward −β·KL a token.
    kl_estimator : str
        "k1", "k2" or "k3".
    adaptive_kl : bool
        Steer β towards `kl_target` over `kl_horizon` episodes.
    missing_end : str
        What becomes of the score of a response without an end token: "replace" by
        `missing_end_value`, "penalise" (add it), or "keep".
    gamma, gae_lambda : float
        Discount, and λ of the advantages.
    clip_ratio, clip_value : float
        Of the policy ratio, and of the value's step.
    value_coefficient, entropy_coefficient : float
        Weights in the loss; the first one acts where policy and value share a trunk.
    shared_trunk : bool
        Whether the value is a second head on the policy instead of a network of its own.
    ptx : float
        γ of the pretraining term; 0: plain PPO.
    ptx_ratio : int
        Pretraining windows an episode.
    lr, value_lr, lr_warmup : float, float, int
        Rates of policy and value; iterations of warm-up from a tenth.
    betas, eps, clip : tuple, float, float
        Adam's, and the global norm that gradients are clipped to.
    ema : float
        Decay of the averaged policy.
    best_of : int
        At the end, measure best-of-n of the SFT model up to this n, where answers are graded;
        0: do not.
    cuda_graphs : bool
        Roll out by CUDA graphs (kernels/model/decode_step.py); needs a GPU.
    """

    data: str = setting("", ANY)
    on_long: str = setting("error", ON_LONG)
    pretraining_data: str = setting("", ANY)
    reward_fn: str = setting("", ANY)
    episodes: int = setting(256_000, COUNT, "InstructGPT C.4")
    batch: int = setting(512, COUNT, "InstructGPT C.4")
    minibatches: int = setting(8, COUNT, "InstructGPT C.4: 8 minibatches of 64")
    inner_epochs: int = setting(1, COUNT, "InstructGPT C.4")
    max_response: int = setting(64, COUNT)
    temperature: float = setting(1.0, ABOVE_0, "InstructGPT C.4")
    kl_coefficient: float = setting(0.02, FROM_0, "InstructGPT C.4")
    kl_estimator: str = setting("k1", one_of("k1", "k2", "k3"))
    adaptive_kl: bool = setting(False, ANY)
    kl_target: float = setting(6.0, ABOVE_0, "lm-human-preferences")
    kl_horizon: int = setting(10_000, COUNT, "lm-human-preferences")
    missing_end: str = setting("replace", one_of("replace", "penalise", "keep"))
    missing_end_value: float = setting(-1.0, FINITE, "lm-human-preferences")
    gamma: float = setting(1.0, SHARE, "InstructGPT C.4: no discount")
    gae_lambda: float = setting(0.95, SHARE, "lm-human-preferences")
    clip_ratio: float = setting(0.2, LIMIT, "InstructGPT C.4")
    clip_value: float = setting(0.2, LIMIT, "lm-human-preferences")
    value_coefficient: float = setting(0.1, FROM_0, "lm-human-preferences")
    entropy_coefficient: float = setting(0.0, FINITE)
    shared_trunk: bool = setting(False, ANY)
    ptx: float = setting(27.8, FROM_0, "InstructGPT C.4")
    ptx_ratio: int = setting(8, COUNT, "InstructGPT C.4: 8 times more examples than episodes")
    lr: float = setting(9e-6, ABOVE_0)
    value_lr: float = setting(9e-6, ABOVE_0, "InstructGPT C.4")
    lr_warmup: int = setting(10, FROM_0, "InstructGPT C.4: 10 iterations from a tenth")
    betas: tuple[float, float] = setting((0.9, 0.95), DECAYS, "InstructGPT C")
    eps: float = setting(1e-5, ABOVE_0, "lm-human-preferences' implementation details")
    clip: float = setting(1.0, LIMIT)
    ema: float = setting(0.992, SHARE, "InstructGPT C.4")
    best_of: int = setting(0, FROM_0)
    cuda_graphs: bool = setting(False, ANY)

    @property
    def weight_decay(self) -> float:
        """PPO's updates have none."""
        return 0.0


@dataclasses.dataclass(frozen=True)
class Configuration:
    """Everything that `gptwin train` is told, one table of the file for each part."""

    model: ModelSettings = dataclasses.field(default_factory=ModelSettings)
    run: RunSettings = dataclasses.field(default_factory=RunSettings)
    pretrain: PretrainSettings = dataclasses.field(default_factory=PretrainSettings)
    sft: SFTSettings = dataclasses.field(default_factory=SFTSettings)
    reward: RewardSettings = dataclasses.field(default_factory=RewardSettings)
    ppo: PPOSettings = dataclasses.field(default_factory=PPOSettings)


# --- reading and writing -------------------------------------------------------------------------


def load(
    file: str | None, changes: Sequence[str] = (), defaults: Configuration | None = None
) -> Configuration:
    """Read a configuration.

    Parameters
    ----------
    file : str or None
        A TOML file with tables as in `Configuration`; None: the defaults.
    changes : sequence of str
        ``table.key=value``, stronger than the file; the value as TOML writes it, or a bare word.
    defaults : Configuration, optional
        What neither mentions; default: `Configuration()`.

    Returns
    -------
    Configuration

    Raises
    ------
    ValueError
        If the file cannot be read, a key is wrong (with the nearest one that exists), or a value
        is out of its bounds.
    """
    configuration = defaults or Configuration()
    if file is not None:
        try:
            tables = tomllib.loads(Path(file).read_text(encoding="utf-8"))
        except OSError as error:
            refuse("config", "a TOML file that can be read", f"{file}: {error.strerror}")
        except UnicodeDecodeError as error:
            refuse("config", "text in UTF-8", f"{file}: {error}", "a damaged file")
        except tomllib.TOMLDecodeError as error:
            refuse("config", "valid TOML", f"{file}: {error}")
        configuration = _merged(configuration, tables, file)
    for change in changes:
        path, equals, text = change.partition("=")
        table, dot, key = path.strip().partition(".")
        if not (equals and dot):
            refuse("setting", "table.key=value, such as ppo.lr=1e-5", repr(change))
        configuration = _merged(configuration, {table: {key: _value(text)}}, change)
    check(configuration)
    return configuration


def changed(settings: Settings, changes: Sequence[str]) -> Settings:
    """Change some fields of settings that stand alone.

    Parameters
    ----------
    settings : dataclass
        Each field with a bound (bounds.setting), or itself such a dataclass.
    changes : sequence of str
        ``key=value``, or ``table.key=value`` for a field that is a dataclass; values as in `load`.

    Returns
    -------
    dataclass

    Raises
    ------
    ValueError
        As in `load`.
    """
    for change in changes:
        path, equals, text = change.partition("=")
        if not equals:
            refuse("setting", "key=value, such as lr=1e-3", repr(change))
        *tables, key = path.strip().split(".")
        nested: dict[str, Any] = {key: _value(text)}
        for table in reversed(tables):
            nested = {table: nested}
        settings = _merged(settings, nested, change)
    _expect_bounds(settings)
    return settings


def _expect_bounds(settings: Any, where: str = "") -> None:
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            _expect_bounds(value, f"{where}{field.name}.")
        elif not field.metadata["bound"].holds(value):
            refuse(f"{where}{field.name}", field.metadata["bound"].words, repr(value))


def dump(configuration: Configuration) -> str:
    """Write a configuration as the TOML that `load` reads.

    Parameters
    ----------
    configuration : Configuration
        The resolved settings.

    Returns
    -------
    str
    """
    return tomli_w.dumps(dataclasses.asdict(configuration))


def sources(settings: Any) -> dict[str, str]:
    """List the defaults that are published ones.

    Parameters
    ----------
    settings : dataclass or its instance
        Such as `PPOSettings`.

    Returns
    -------
    dict
        Setting to paper and place.
    """
    fields = dataclasses.fields(settings)
    return {f.name: f.metadata["source"] for f in fields if "source" in f.metadata}


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()  # a bare word


def _merged(settings: Settings, changes: dict[str, Any], where: str) -> Settings:
    """Return `settings` with some fields changed; tables are merged field by field."""
    kinds = typing.get_type_hints(type(settings))
    accepted = {}
    for name, value in changes.items():
        if name not in kinds:
            near = difflib.get_close_matches(name, kinds, n=1)
            cause = f"{near[0]} is meant" if near else ""
            refuse(f"{where}: {name}", f"one of {', '.join(kinds)}", repr(name), cause)
        before = getattr(settings, name)
        if dataclasses.is_dataclass(before):
            if not isinstance(value, dict):
                refuse(f"{where}: {name}", f"a table [{name}]", repr(value))
            accepted[name] = _merged(before, value, where)
        else:
            accepted[name] = _converted(f"{where}: {name}", kinds[name], value)
    fresh: Any = settings  # a dataclass of ours, which `Settings` does not say
    return dataclasses.replace(fresh, **accepted)


def _converted(name: str, kind: Any, value: Any) -> Any:
    """Return `value` as the type that a field has."""
    if typing.get_origin(kind) is tuple:
        kinds = typing.get_args(kind)
        if not isinstance(value, list | tuple) or len(value) != len(kinds):
            refuse(name, f"a list of {len(kinds)} numbers", repr(value))
        return tuple(_converted(name, k, v) for k, v in zip(kinds, value, strict=True))
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        words = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
        refuse(name, words[kind], repr(value))
    return value
