"""Why a candidate was chosen, and why the others were not: what `gptwin chat --explain` shows.

      (14 rules, of which 6 apply here; answers considered: 8)
      (by preference alone it would have been: moon lamp)
      moon lamp           preference 1.90 … worst rule 0.97 score 0.05  likely breaks “Never say …”
    → I cannot say that.  preference 0.10 … worst rule 0.02 score 0.41  chosen: no rule likely …

log S is a sum, log σ(R − mean R) and the mean of log P(kept). So the reason why a candidate lost to
the chosen one is the part of the sum by which it lost more.
"""

import math
from collections import Counter
from typing import NamedTuple

from ..interface import Candidate as Shown
from .rerank import Candidate, Reranked

LIKELY = 0.5  # P(violated) from which on a rule is called likely broken


class Explained(NamedTuple):
    """A choice as it is shown: each text once, which of them was chosen, and notes."""

    candidates: tuple[Shown, ...]
    chosen: int
    notes: tuple[str, ...]


def explained(found: Reranked, n_rules: int) -> Explained:
    """Explain a choice.

    Parameters
    ----------
    found : Reranked
    n_rules : int
        Rules that the agent keeps, whether they apply or not.

    Returns
    -------
    Explained
        The texts in the order in which they were first said; the scores of one that was said
        several times are those of the chosen, or of the first.
    """
    texts = [candidate.text for candidate in found.candidates]
    shown = []
    for text, times in Counter(texts).items():  # in the order of their first occurrence
        if text == found.best.text:
            candidate, why = found.best, _why_chosen(found.best, others=times < len(texts))
        else:
            candidate = found.candidates[texts.index(text)]
            why = _why_not(candidate, found.best)
        if times > 1:
            why += f" (said {times} times)"
        shown.append(Shown(text, scores(candidate), why))
    chosen = [one.text for one in shown].index(found.best.text)
    return Explained(tuple(shown), chosen, tuple(_notes(found, n_rules)))


def scores(candidate: Candidate) -> dict[str, float]:
    """Return what the judges think of a candidate, by names that a table shows."""
    return {
        "preference": candidate.preference,
        "preferred": candidate.factor,
        "worst rule": candidate.violation,
        "score": math.exp(candidate.score),
    }


def worst_rule(candidate: Candidate) -> str:
    """Return the text of the rule that is most likely broken; empty if none applies."""
    return min(candidate.kept, key=candidate.kept.__getitem__, default="")


def _why_chosen(candidate: Candidate, *, others: bool) -> str:
    if not candidate.ended:
        return "chosen: none of them ended"
    if candidate.violation >= LIKELY:
        doubt = f"though it likely breaks “{worst_rule(candidate)}”"
        return f"chosen, {doubt}: " + ("the highest score" if others else "nothing else was said")
    return "chosen: no rule likely broken, " + ("the highest score" if others else "all said this")


def _why_not(candidate: Candidate, best: Candidate) -> str:
    """Say which part of the score a candidate lost by."""
    if not candidate.ended and best.ended:
        return "cut off by the limit"
    of_preference = math.log(best.factor) - math.log(max(candidate.factor, 1e-300))
    of_rules = (best.score - candidate.score) - of_preference
    if of_preference >= of_rules:
        return "less preferred"
    if candidate.violation >= LIKELY:
        return f"likely breaks “{worst_rule(candidate)}”"
    return f"less sure to keep “{worst_rule(candidate)}”"


def _notes(found: Reranked, n_rules: int) -> list[str]:
    n = len(found.candidates)
    applying = len(found.best.kept)
    notes = [f"{n_rules} rules, of which {applying} apply here; answers considered: {n}"]
    cut = sum(not candidate.ended for candidate in found.candidates)
    if cut:
        notes.append(f"{cut} of them did not end within the limit")
    alone = max(found.candidates, key=lambda c: (c.ended, c.preference))
    if alone.text != found.best.text:
        notes.append(f"by preference alone it would have been: {alone.text}")
    return notes
