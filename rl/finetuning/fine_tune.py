"""Fine-tuning: a few passes over labelled examples, at GPT-1's settings unless told otherwise.

Three arms answer GPT-1's question of what pretraining is worth: `from_scratch` (the same sizes,
parameters drawn anew), pretrained, and pretrained with the language model's loss beside the task's.
`with_blocks` keeps the embeddings and the first k blocks of a pretrained model and draws the rest
anew: figure 2 of the paper.
"""

import dataclasses
from collections.abc import Sequence

import torch

from ...core.checks import refuse
from ...core.language.finetuning_loss import LM_WEIGHT
from ...kernels.cpu import speed_up
from ...kernels.model.gpt import GPT
from ..data.batches import Shuffled
from ..formats.tokenizer import Tokenizer
from ..formats.weights import with_vocabulary
from ..ranks.group import ALONE
from ..training.schedule import linear
from ..training.update import Update
from .classifier import Classifier, collate
from .forms import SPECIAL_TOKENS, Labelled

PAD = 0  # any id
EVALUATED_AT_ONCE = 64  # examples


@dataclasses.dataclass(frozen=True)
class FineTuneSettings:
    """How a classifier is trained; defaults are GPT-1's (Radford et al. 2018, section 4.1).

    Attributes
    ----------
    lr, batch, epochs : float, int, int
        Peak rate, examples a step, and passes over them.
    warmup : float
        Share of the steps in which the rate rises; it then falls linearly to 0.
    lm_weight : float
        λ of the language model's loss; 0: none.
    dropout : float
        On the head's input.
    betas, eps, weight_decay, clip
        AdamW's, and the global norm that gradients are clipped to.
    seed : int
        Of the head and of the order.
    """

    lr: float = 6.25e-5
    batch: int = 32
    epochs: int = 3
    warmup: float = 0.002
    lm_weight: float = LM_WEIGHT
    dropout: float = 0.1
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.01
    clip: float = 1.0
    seed: int = 0


def fine_tune(
    trunk: GPT, n_classes: int, examples: Sequence[Labelled], settings: FineTuneSettings
) -> Classifier:
    """Train a head, and the model below it, on labelled examples.

    Parameters
    ----------
    trunk : GPT
        Changed in place.
    n_classes : int
        1 for multiple choice.
    examples : sequence of Labelled
        Of one form.
    settings : FineTuneSettings

    Returns
    -------
    Classifier
        In evaluation mode.

    Raises
    ------
    ValueError
        If there are fewer examples than a batch, or a label is not one of the classes.
    """
    s = settings
    wrong = [e.label for e in examples if not (e.is_choice or 0 <= e.label < n_classes)]
    if wrong:
        refuse("label", f"0 to {n_classes - 1}", str(wrong[0]), "classes counted from 1")
    classifier = Classifier(trunk, n_classes, s.seed, s.dropout).train()
    update = Update(classifier, s, ALONE)
    shuffled = Shuffled(examples, min(s.batch, len(examples)), s.seed)
    steps = s.epochs * shuffled.steps_per_epoch
    device = trunk.wte.weight.device
    for step in range(steps):
        loss = classifier.loss(collate(shuffled.batch(step), PAD, device), s.lm_weight).loss
        loss.backward()
        update.apply(linear(step, steps, s.lr, round(s.warmup * steps)))
    return classifier.eval()


@torch.no_grad()
def predictions(classifier: Classifier, examples: Sequence[Labelled]) -> list[int]:
    """Return the class that each example is given, of equal logits the first.

    Parameters
    ----------
    classifier : Classifier
        In evaluation mode.
    examples : sequence of Labelled

    Returns
    -------
    list of int
    """
    device = classifier.weight.device
    order = sorted(range(len(examples)), key=lambda i: len(examples[i]))
    found = [0] * len(examples)
    for start in range(0, len(order), EVALUATED_AT_ONCE):
        part = order[start : start + EVALUATED_AT_ONCE]
        logits = classifier(collate([examples[i] for i in part], PAD, device))
        for i, label in zip(part, logits.argmax(1).tolist(), strict=True):
            found[i] = label
    return found


def with_special_tokens(model: GPT, tokenizer: Tokenizer, seed: int = 0) -> tuple[GPT, Tokenizer]:
    """Return a copy of a model, and its tokenizer, that know the forms' tokens.

    Parameters
    ----------
    model : GPT
    tokenizer : Tokenizer
        Its own.
    seed : int
        Of the new rows.

    Returns
    -------
    model : GPT
    tokenizer : Tokenizer
    """
    wider = tokenizer.with_special_tokens(SPECIAL_TOKENS)
    config, parameters = with_vocabulary(
        model.config, model.state_dict(), tokenizer.vocab_size, wider.vocab_size, seed
    )
    copy = GPT(config)
    copy.load_state_dict(parameters)
    return speed_up(copy.to(model.wte.weight.device)), wider


def from_scratch(model: GPT, seed: int = 0) -> GPT:
    """Return a model of the same sizes, its parameters drawn anew."""
    return with_blocks(model, 0, seed, embeddings=False)


def with_blocks(model: GPT, blocks: int, seed: int = 0, *, embeddings: bool = True) -> GPT:
    """Return a model that keeps the embeddings and the first blocks of another.

    Parameters
    ----------
    model : GPT
        Pretrained.
    blocks : int
        k, how many are kept; the final norm is kept with all of them.
    seed : int
        Of what is drawn anew.
    embeddings : bool
        Whether the two tables are kept.

    Returns
    -------
    GPT

    Raises
    ------
    ValueError
        If there are not so many blocks.
    """
    n_layer = model.config.n_layer
    if not 0 <= blocks <= n_layer:
        refuse("blocks", f"0 to the model's {n_layer}", str(blocks))
    fresh = GPT(model.config, torch.Generator().manual_seed(seed))
    kept = [f"h.{layer}." for layer in range(blocks)]
    kept += ["wte.", "wpe."] * embeddings + ["ln_f.", "lm_head."] * (blocks == n_layer)
    state = fresh.state_dict()
    for name, tensor in model.state_dict().items():
        if name.startswith(tuple(kept)):
            state[name] = tensor
    fresh.load_state_dict(state)
    return speed_up(fresh.to(model.wte.weight.device))
