"""Which window of which set is drawn when: a function of the seed and the step alone.

Over a whole run each set gets its share to within one window (`largest_remainder`), in random
order. A quota for every batch would not do: of a batch of 10 a set of 3% gets none, for ever.

Within a set no text is read twice before all are read once, in an order that is drawn anew for each
epoch; a set that is exhausted begins again. (Drawing windows anywhere, with replacement, leaves a
share of e^−e unread after e epochs: more than a third after the first.) Documents follow one
another with an end token between them and no mask: a window may hold the end of one and the
beginning of another, as GPT-3's do.
"""

from collections.abc import Sequence

import numpy as np

from ..data.batches import Encoded


def largest_remainder(weights: Sequence[float], n: int) -> list[int]:
    """Divide `n` places by weight: whole parts first, the rest to the largest remainders.

    Parameters
    ----------
    weights : sequence of float
        At least 0, one of them above; they need not sum to 1.
    n : int
        Places.

    Returns
    -------
    list of int
        Summing to `n`, each within 1 of its exact share; of equal remainders the first wins.
    """
    share = np.asarray(weights, np.float64)
    exact = n * share / share.sum()
    whole = np.floor(exact + 1e-9).astype(int)
    order = np.argsort(-(exact - whole), kind="stable")
    whole[order[: n - whole.sum()]] += 1
    return whole.tolist()


class Stream:
    """The tokens of a set, epoch after epoch, each with its documents in a new order.

    Parameters
    ----------
    documents : sequence of numpy.ndarray of int [token]
        Each with its end token.
    seed : int
        Of the orders.
    name : str
        Of the set: two sets of one run have different orders.
    """

    def __init__(self, documents: Sequence[np.ndarray], seed: int, name: str) -> None:
        self.documents, self.seed, self.name = documents, seed, name
        self.size = sum(map(len, documents))
        self._epochs: dict[int, np.ndarray] = {}

    def window(self, number: int, time: int) -> np.ndarray:
        """Return window `number`, from 0: `time` tokens to predict, and the one before them.

        Windows lie side by side: the last token of one is the first of the next.
        """
        first = number * time
        epoch, start = divmod(first, self.size)
        pieces, missing = [], time + 1
        while missing:
            piece = self._epoch(epoch)[start : start + missing]
            pieces.append(piece)
            epoch, start, missing = epoch + 1, 0, missing - len(piece)
        return np.concatenate(pieces)

    def _epoch(self, epoch: int) -> np.ndarray:
        if epoch not in self._epochs:
            # A window reaches into the next epoch at most, unless the set is smaller than it.
            self._epochs = {e: x for e, x in self._epochs.items() if e == epoch - 1}
            rng = np.random.default_rng([self.seed, epoch, *self.name.encode()])
            order = rng.permutation(len(self.documents))
            self._epochs[epoch] = np.concatenate([self.documents[i] for i in order])
        return self._epochs[epoch]


class Mixture:
    """A run's windows, drawn from several sets by weight. A `language_model.Source`.

    Parameters
    ----------
    streams : sequence of Stream
    weights : sequence of float
        Of each.
    time : int
        Tokens that a window predicts.
    batch_size, steps : int
        Windows a step, over all ranks, and the run's steps.
    seed : int
        Of the order in which sets take turns.

    Attributes
    ----------
    turns : numpy.ndarray of int [window]
        Which stream each window of the run is from.
    """

    def __init__(
        self,
        streams: Sequence[Stream],
        weights: Sequence[float],
        time: int,
        batch_size: int,
        steps: int,
        seed: int,
    ) -> None:
        self.streams, self.time, self.batch_size = streams, time, batch_size
        counts = largest_remainder(weights, batch_size * steps)
        turns = np.repeat(np.arange(len(streams)), counts)
        self.turns = np.random.default_rng([seed, 0x313]).permutation(turns)
        # Window k of the run is its set's window `numbers[k]`: how often the set had its turn.
        self.numbers = np.empty_like(self.turns)
        for i, count in enumerate(counts):
            self.numbers[self.turns == i] = np.arange(count)

    def batch(self, index: int) -> list[Encoded]:
        """Return the windows of step `index`, from 0: a function of the seed and it alone."""
        places = range(index * self.batch_size, (index + 1) * self.batch_size)
        return [self._window(self.turns[p], self.numbers[p]) for p in places]

    def _window(self, stream: int, number: int) -> Encoded:
        tokens = self.streams[stream].window(int(number), self.time).tolist()
        return Encoded(tokens, [True] * len(tokens))
