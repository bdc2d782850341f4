"""Why a candidate was chosen, and why the others were not: what `gptwin chat --explain` shows.

    Say: moon lamp
      (14 rules, of which 6 apply here; 8 answers considered)
      (by preference alone it would have been: moon lamp)
      moon lamp           preference 1.90 worst rule 0.97 score 0.05  likely breaks: Never say ...
    → I cannot say that.  preference 0.10 worst rule 0.02 score 0.41  chosen: …

log S is a sum, log σ(R − mean R) and the mean of log P(kept). So the reason why a candidate lost to
the chosen one is the part of the sum by which it lost more.
"""

import math

from ..interface import Candidate as Shown
from .rerank import Candidate, Reranked

LIKELY = 0.5  # P(violated) from which on a rule is called likely broken


def explained(found: Reranked, n_rules: int) -> tuple[tuple[Shown, ...], tuple[str, ...]]:
    """Explain a choice.

    Parameters
    ----------
    found : Reranked
    n_rules : int
        Rules that the agent keeps, whether they apply or not.

    Returns
    -------
    candidates : tuple of interface.Candidate
        Each with its scores and why it was taken or left.
    notes : tuple of str
    """
    first: dict[str, int] = {}
    shown = []
    for i, candidate in enumerate(found.candidates):
        before = first.setdefault(candidate.text, i)
        if i == found.place:
            why = _why_chosen(candidate)
        elif before < i or candidate.text == found.best.text:
            why = "said before" if before < i else "the same"
        else:
            why = _why_not(candidate, found.best)
        shown.append(Shown(candidate.text, scores(candidate), why))
    return tuple(shown), tuple(_notes(found, n_rules))


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


def _why_chosen(candidate: Candidate) -> str:
    if not candidate.ended:
        return "chosen: none of them ended"
    if candidate.violation >= LIKELY:
        return f"chosen, though it likely breaks “{worst_rule(candidate)}”: the others are worse"
    return "chosen: no rule likely broken, and preferred to the others that keep them"


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
