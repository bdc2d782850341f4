"""Say eight things, and keep the one that is both preferred and within the rules.

    candidate          R      P(kept) of each rule    σ(R − mean R)   (Π P)^(1/n)      S
    key moon          2.0     .90  .20                .731            .424             .310
    I cannot say that 1.0     .80  .90                .500            .849             .424  ◄
    key               0.0     .95  .95                .269            .950             .255

The formula, its sources and its edges: core/dialogue/sparrow.py. What this file adds:

- An answer that did not end is not of the form that it must have: it is chosen only where no other
  ended, and counted as cut.
- Candidates that say the same stay, as they were drawn: mean R is then what the policy is worth,
  and the first of them is chosen.
- With one candidate nothing is chosen: it is plain sampling.
"""

import dataclasses
from collections.abc import Sequence

import torch
from torch.nn import functional

from ....core.checks import expect_positive, refuse
from ....core.dialogue.sparrow import LEAST, check_rerank, choose
from ....kernels.model.gpt import GPT
from ...data.dialogue import Template
from ...data.sources import Prompt
from ...stages.generation import generate
from ...stages.reward_model import Score
from .rule_model import RuleModel

N_CANDIDATES = 8


def preference_factor(preferences: torch.Tensor) -> torch.Tensor:
    """Compute what `gptwin.core.dialogue.sparrow.preference_factor` does, on a tensor."""
    return torch.sigmoid(preferences - preferences.mean())


def rerank_scores(
    preferences: torch.Tensor, kept: torch.Tensor, *, root: bool = True
) -> torch.Tensor:
    """Compute what `gptwin.core.dialogue.sparrow.rerank_scores` does, on tensors.

    Parameters
    ----------
    preferences : torch.Tensor [candidate]
    kept : torch.Tensor [candidate, rule]
    root : bool

    Returns
    -------
    torch.Tensor [candidate]
        log S.
    """
    check_rerank(preferences, kept)
    log_kept = kept.clamp(min=LEAST).log().sum(1)
    if root:
        log_kept = log_kept / max(kept.shape[1], 1)
    return log_kept + functional.logsigmoid(preferences - preferences.mean())


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One answer, and all that was thought of it.

    Attributes
    ----------
    response : list of int
    text : str
    ended : bool
        Whether it has an end token.
    preference : float
        R.
    kept : dict of str to float
        By the text of each rule that applies, P(kept).
    factor : float
        σ(R − mean R).
    score : float
        log S.
    """

    response: list[int]
    text: str
    ended: bool
    preference: float
    kept: dict[str, float]
    factor: float
    score: float

    @property
    def violation(self) -> float:
        """The largest P(violated) of a rule; 0 without one."""
        return 1 - min(self.kept.values(), default=1.0)


@dataclasses.dataclass(frozen=True)
class Reranked:
    """The candidates of one prompt, and the place of the chosen one."""

    candidates: list[Candidate]
    place: int

    @property
    def best(self) -> Candidate:
        """The chosen one."""
        return self.candidates[self.place]


def rerank(
    prompt: Prompt,
    responses: Sequence[list[int]],
    preferences: torch.Tensor,
    kept: torch.Tensor,
    applies: torch.Tensor,
    rules: Sequence[str],
    template: Template,
    *,
    root: bool = True,
) -> Reranked:
    """Choose among answers to one prompt.

    Parameters
    ----------
    prompt : Prompt
    responses : sequence of list of int
        The candidates.
    preferences : torch.Tensor [candidate]
        R.
    kept, applies : torch.Tensor [candidate, rule]
        P(kept), and which rules apply; the same for all candidates.
    rules : sequence of str
        Their texts.
    template : Template
    root : bool
        As in `rerank_scores`.

    Returns
    -------
    Reranked
    """
    if not responses:
        refuse("responses", f"an answer to {prompt.messages[-1].content!r}", "none")
    asked = applies[0]
    kept = kept[:, asked]
    scores = rerank_scores(preferences, kept, root=root)
    factors = preference_factor(preferences)
    texts = [rule for rule, there in zip(rules, asked.tolist(), strict=True) if there]
    candidates = [
        Candidate(
            response, template.text(response), template.end in response, preference,
            dict(zip(texts, row, strict=True)), factor, score,
        )
        for response, preference, row, factor, score in zip(
            responses, preferences.tolist(), kept.tolist(), factors.tolist(), scores.tolist(),
            strict=True,
        )
    ]  # fmt: skip
    ended = torch.tensor([c.ended for c in candidates], device=scores.device)
    allowed = ended if bool(ended.any()) else torch.ones_like(ended)
    return Reranked(candidates, choose(scores.masked_fill(~allowed, -torch.inf)))


def candidates(
    model: GPT,
    template: Template,
    preference: Score,
    rules: RuleModel,
    prompts: Sequence[Prompt],
    n: int = N_CANDIDATES,
    *,
    max_response: int,
    temperature: float = 1.0,
    seed: int = 0,
    root: bool = True,
) -> list[Reranked]:
    """Say `n` things to each prompt, and choose.

    Parameters
    ----------
    model : GPT
        Samples the answers.
    template : Template
    preference : callable
        `(prompts, responses) -> torch.Tensor [response]`: R.
    rules : RuleModel
    prompts : sequence of Prompt
    n : int
        Answers to each.
    max_response : int
        Tokens an answer may have.
    temperature : float
        Of sampling; above 0 where n is above 1.
    seed : int
        Of sampling.
    root : bool
        As in `rerank_scores`.

    Returns
    -------
    list of Reranked
        One for each prompt.
    """
    expect_positive("n", n)
    if temperature <= 0 and n > 1:
        cause = "every answer would be the likeliest one: name a temperature"
        refuse("temperature", f"above 0 to say {n} different things", f"{temperature}", cause)
    if not prompts:
        return []
    repeated = [prompt for prompt in prompts for _ in range(n)]
    said = generate(
        model, [prompt.ids for prompt in repeated], max_new_tokens=max_response,
        temperature=temperature, stop_tokens=(template.end,), seed=seed,
    )  # fmt: skip
    responses = said.token_lists()
    with torch.no_grad():
        preferences = preference(repeated, responses)
    kept, applies = rules.kept([prompt.messages for prompt in repeated], responses)
    texts = [rule.text for rule in rules.rules]
    return [
        rerank(
            prompt, responses[i : i + n], preferences[i : i + n], kept[i : i + n],
            applies[i : i + n], texts, template, root=root,
        )
        for prompt, i in zip(prompts, range(0, len(repeated), n), strict=True)
    ]  # fmt: skip
