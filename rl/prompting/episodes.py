"""Few-shot learning by itself: documents of examples whose labels mean something else in each.

    lion foo  cherry bar  cow foo  grape ?        in this document animals are foo, fruits are bar

A document has two classes of words out of eight, and each class gets a label of two, drawn for
this document alone: weights cannot know it, so that whoever is right about the last label has read
it from the examples (Chan et al. 2022, arXiv 2205.05055; Min et al. 2022, arXiv 2202.12837). How
right one can be is known exactly. After K examples the class that is asked for has been seen with
probability 1 − (1 − 1/C)^K, and else one guesses:

    ceiling(K) = 1 − (1 − 1/C)^K · (1 − 1/L)        C classes, L labels; with 2 and 2: 1 − ½^(K+1)

The labels of two classes are drawn one by one, so both may have the same. Where they never do (a
bijection), the label of the other class tells, too, and one example is enough for two classes.

Controls, in which the examples' labels are (`CONTROLS`)
    right       the document's
    shuffled    drawn anew for every example: says nothing of the query's class
    wrong       the other one: who reads it answers wrongly, so that the ceiling becomes a floor
    format      drawn anew, of words from other classes: shows what a document looks like
With a map that is the same in all documents (`fixed`) weights do know it, and labels need not be
read: that is where wrong ones do no harm.

Which words are alike, the model reads in documents that name each word's class (`NAMED` of them):

    lion animals  cherry fruits  cow animals

Without these, no model here got beyond counting labels in 400 steps.
"""

import dataclasses
from collections.abc import Sequence
from random import Random

import torch

from ...core.checks import refuse
from ...core.model.presets import GPTConfig
from ...kernels.cpu import speed_up
from ...kernels.model.gpt import GPT
from ..configuration import PretrainSettings
from ..data.dialogue import Encoded
from ..ranks.group import ALONE
from ..stages.language_model import LanguageModelStage

N_CLASSES, WORDS_OF_CLASS, N_LABELS = 8, 12, 2
MOST = 8  # examples before the query
NAMED = 0.3  # share of the training documents that name classes
CONTROLS = ("right", "shuffled", "wrong", "format")

# Ids: the labels, a token that begins a document, the padding, the classes' names, then the words,
# class by class.
LABELS = tuple(range(N_LABELS))
BEGIN, PAD, FIRST_NAME = N_LABELS, N_LABELS + 1, N_LABELS + 2
FIRST_WORD = FIRST_NAME + N_CLASSES
VOCABULARY = FIRST_WORD + N_CLASSES * WORDS_OF_CLASS

SIZES = {
    "1 layer, width 16": GPTConfig(VOCABULARY, 2 * MOST + 2, 1, 2, 16),
    "2 layers, width 32": GPTConfig(VOCABULARY, 2 * MOST + 2, 2, 2, 32),
    "3 layers, width 64": GPTConfig(VOCABULARY, 2 * MOST + 2, 3, 4, 64),
}
# Steps that a map takes to be learnt: one that is in the weights takes fewer.
FIXED_STEPS = 100
SETTINGS = PretrainSettings(steps=300, batch=128, lr=4e-3, warmup=50, weight_decay=0.01)


@dataclasses.dataclass(frozen=True)
class Episode:
    """A document: examples, and the query at their end.

    Attributes
    ----------
    words : tuple of int
        Ids, all different: the query is not among its examples.
    classes : tuple of int
        Of each word.
    labels : dict of int to int
        Of each of the document's classes.
    """

    words: tuple[int, ...]
    classes: tuple[int, ...]
    labels: dict[int, int]

    @property
    def answers(self) -> list[int]:
        """The right label of each word."""
        return [self.labels[c] for c in self.classes]


def draw(rng: Random, *, fixed: bool = False) -> Episode:
    """Draw a document of `MOST` examples and a query.

    Parameters
    ----------
    rng : random.Random
    fixed : bool
        Whether a class has the same label in every document: that of its number.

    Returns
    -------
    Episode
    """
    pair = rng.sample(range(N_CLASSES), 2)
    labels = {c: c % N_LABELS if fixed else rng.choice(LABELS) for c in pair}
    fresh = {c: rng.sample(range(WORDS_OF_CLASS), WORDS_OF_CLASS) for c in pair}
    classes = tuple(rng.choice(pair) for _ in range(MOST + 1))
    words = tuple(FIRST_WORD + c * WORDS_OF_CLASS + fresh[c].pop() for c in classes)
    return Episode(words, classes, labels)


def ceiling(k: int, classes: int = 2, labels: int = N_LABELS, *, bijection: bool = False) -> float:
    """Return how often the best reader of `k` examples is right.

    Parameters
    ----------
    k : int
        Examples, of classes that are drawn uniformly, as the query's is.
    classes, labels : int
    bijection : bool
        Whether two classes never have the same label; there are as many of both then.

    Returns
    -------
    float
    """
    if k < 0 or classes < 1 or labels < 1 or (bijection and classes != labels):
        expected = "k from 0, a class and a label at least, of a bijection as many of both"
        refuse("k, classes, labels", expected, f"{k}, {classes}, {labels}")
    unseen = (1 - 1 / classes) ** k
    if not bijection:
        return 1 - unseen * (1 - 1 / labels)
    # A class that was not seen has one of the labels that were not: of n seen classes, n are out.
    right = 0.0
    chances = [1.0] + [0.0] * classes  # of having seen 0, 1, ... classes
    for _ in range(k):
        chances = [
            chances[n] * n / classes + (chances[n - 1] * (classes - n + 1) / classes if n else 0.0)
            for n in range(classes + 1)
        ]
    for n, chance in enumerate(chances):
        seen = n / classes
        right += chance * (seen + (1 - seen) / max(labels - n, 1))
    return right


def largest_k(n_ctx: int, query: int, answer: int, example: int) -> int:
    """Return how many whole examples fit before a query and its answer; a query is never cut.

    Parameters
    ----------
    n_ctx, query, answer, example : int
        Tokens of the context, the query, the answer, and of each example.

    Returns
    -------
    int

    Raises
    ------
    ValueError
        If not even the query and its answer fit.
    """
    room = n_ctx - query - answer
    if room < 0:
        refuse("n_ctx", f"at least {query + answer}, a query and its answer", str(n_ctx))
    return room // example


def as_text(episode: Episode, k: int, control: str, rng: Random) -> tuple[list[int], int]:
    """Write the last `k` examples and the query as tokens.

    Parameters
    ----------
    episode : Episode
    k : int
        From 0 to `MOST`.
    control : str
        One of `CONTROLS`.
    rng : random.Random
        Draws the labels, or words, that the control replaces.

    Returns
    -------
    tokens : list of int
        BEGIN, k times word and label, and the query.
    answer : int
        The query's right label.
    """
    if control not in CONTROLS:
        refuse("control", f"one of {', '.join(CONTROLS)}", repr(control))
    if not 0 <= k <= MOST:
        refuse("k", f"from 0 to {MOST}", str(k), "a document has no more examples")
    *shots, (query, answer) = zip(episode.words, episode.answers, strict=True)
    elsewhere = [c for c in range(N_CLASSES) if c not in episode.labels]
    tokens = [BEGIN]
    for word, label in shots[MOST - k :]:
        if control == "format":
            word = (
                FIRST_WORD + rng.choice(elsewhere) * WORDS_OF_CLASS + rng.randrange(WORDS_OF_CLASS)
            )
        if control == "wrong":
            label = (label + 1) % N_LABELS
        elif control != "right":
            label = rng.choice(LABELS)
        tokens += [word, label]
    return [*tokens, query], answer


def encoded(episode: Episode, *, named: bool = False) -> Encoded:
    """Return a document as tokens, of which the labels are trained: K = 0, 1, ... in one pass.

    If it is to be `named`, the name of each word's class stands where its label would.
    """
    tokens, trained = [BEGIN], [False]
    labels = [FIRST_NAME + c for c in episode.classes] if named else episode.answers
    for word, label in zip(episode.words, labels, strict=True):
        tokens += [word, label]
        trained += [False, True]
    return Encoded(tokens, trained)


@dataclasses.dataclass(frozen=True)
class Episodes:
    """Documents without end; a `Source` of the stage that trains."""

    batch_size: int
    seed: int
    fixed: bool = False

    def batch(self, index: int) -> list[Encoded]:
        """Return the documents of step `index`."""
        rng = Random(f"episodes {self.seed} {index}")
        return [
            encoded(draw(rng, fixed=self.fixed), named=rng.random() < NAMED)
            for _ in range(self.batch_size)
        ]


def pretrained(
    config: GPTConfig, seed: int, *, fixed: bool = False, settings: PretrainSettings = SETTINGS
) -> GPT:
    """Pretrain a model on documents alone.

    Parameters
    ----------
    config : GPTConfig
        One of `SIZES`.
    seed : int
        Of parameters and documents.
    fixed : bool
        As in `draw`.
    settings : PretrainSettings

    Returns
    -------
    GPT
        In evaluation mode.
    """
    model = speed_up(GPT(config, torch.Generator().manual_seed(seed), init="fan_in"))
    source = Episodes(settings.batch, seed, fixed)
    stage = LanguageModelStage("pretrain", model, source, [], settings, settings.steps, PAD, ALONE)
    for index in range(settings.steps):
        stage.step(index)
    return model.eval()


@torch.no_grad()
def count_right(model: GPT, episodes: Sequence[Episode], k: int, control: str = "right") -> int:
    """Count the queries whose right label gets more probability than the other one.

    Parameters
    ----------
    model : GPT
    episodes : sequence of Episode
        With the same seed, every k and control asks the same queries.
    k : int
    control : str

    Returns
    -------
    int
        An exact tie goes to the first label.
    """
    rng = Random(f"{control} {k}")
    rows, answers = zip(*(as_text(e, k, control, rng) for e in episodes), strict=True)
    hidden = model(torch.tensor(rows), states_from=len(rows[0]) - 1)[:, -1]  # [episode, d_model]
    said = model.logits(hidden)[:, list(LABELS)].argmax(1)
    return int((said == torch.tensor(answers)).sum())


def held_out(n: int, *, fixed: bool = False) -> list[Episode]:
    """Draw documents to evaluate on; training draws by other seeds."""
    rng = Random(f"held-out episodes {fixed}")
    return [draw(rng, fixed=fixed) for _ in range(n)]
