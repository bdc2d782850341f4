"""What `gptwin corpus` does: plan a mixture, filter texts, drop copies, look for tests in them."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ...core.checks import refuse
from ...records import json_lines, read_json_lines, write_whole
from ..evaluation.items import read_items
from ..evaluation.models import find_weights
from ..formats.tokenizer import Tokenizer
from . import bloom
from .contamination import Cleaner, CleanScores, chosen_n, clean_scores, overlaps
from .duplicates import near_duplicates
from .mixture import described, plan_sets, read_mixture, read_texts
from .quality import QualityFilter, kept
from .words import words_of


def plan_mixture(mixture: str, tokens: int, model: str) -> int:
    """Print what a run of so many tokens would read of each set of a mixture."""
    tokenizer = Tokenizer.load(find_weights(model)) if model else None
    sets = read_mixture(mixture)

    def size(texts: Sequence[str]) -> int:
        if tokenizer is None:
            return sum(len(words_of(text)) for text in texts)
        return sum(len(tokenizer.encode(text)) + 1 for text in texts)  # and its end token

    sizes = {s.name: size(read_texts(s.path)) for s in sets}
    print(described(plan_sets(sets, sizes, tokens), sets))
    if tokenizer is None:
        print("Tokens are words here: --model FOLDER counts those of its tokenizer.")
    return 0


def filter_texts(data: str, good: str, other: str, out: str, seed: int) -> int:
    """Keep the texts that are like good ones, and a few that are not."""
    texts = _texts(data, out)
    judge = QualityFilter(read_texts(Path(good)), read_texts(Path(other)) if other else texts)
    scores = judge.scores(texts)
    chosen = kept(scores, seed)
    _write(out, [text for text, keep in zip(texts, chosen, strict=True) if keep])
    print(
        f"{data}: {chosen.sum()} of {len(texts)} texts kept: {out}. Their mean score "
        f"{scores[chosen].mean() if chosen.any() else 0:.2f}, that of all {scores.mean():.2f}"
    )
    return 0


def drop_copies(data: str, out: str, threshold: float) -> int:
    """Drop texts that are nearly copies of an earlier one."""
    texts = _texts(data, out)
    copies = near_duplicates(texts, threshold=threshold)
    _write(out, [text for i, text in enumerate(texts) if i not in copies])
    print(f"{data}: {len(copies)} of {len(texts)} texts are copies ({len(copies) / len(texts):.1%})"
          f", dropped: {out}")  # fmt: skip
    return 0


def cut_tests(data: str, tests: str, out: str) -> int:
    """Cut the questions of a test out of texts."""
    texts = _texts(data, out)
    cleaner = Cleaner(_examples(tests), texts)
    pieces = [cleaner.pieces(text) for text in texts]
    _write(out, [piece for found in pieces for piece in found])
    cut = sum(found != [text] for found, text in zip(pieces, texts, strict=True))
    gone = sum(not found for found in pieces)
    print(f"{data}: a test stood in {cut} of {len(texts)} texts; {gone} of these went whole: {out}")
    return 0


def find_tests(data: str, tests: str, answers: str) -> int:
    """Say which questions of a test stand in texts, and what they add to its score."""
    examples = _examples(tests)
    texts = read_texts(Path(data))
    found = overlaps(examples, texts)
    n = chosen_n([len(words_of(example)) for example in examples])
    dirty = [i for i, overlap in enumerate(found) if overlap.is_dirty]
    print(f"{tests}: {len(dirty)} of {len(examples)} examples share a run of {n} words with {data}")
    if dirty:
        items = read_items(tests)
        shown = ", ".join(str(items[i].line) for i in dirty[:10]) + ", …" * (len(dirty) > 10)
        print(f"Lines: {shown}")
    seen, runs = bloom.overlap(examples, texts)
    if runs:
        share = f"{seen} of their {runs} runs of {bloom.GRAM} words ({seen / runs:.1%})"
        print(f"By GPT-2's measure: {share}")
    if answers:
        _print_scores(
            {
                name: clean_scores(rights, found)
                for name, rights in _stored(answers, tests, len(examples)).items()
            }
        )
    return 0


def _print_scores(found: dict[str, CleanScores]) -> None:
    table = Table("score", "all", "clean", "dirty", "all − clean")
    for name, scores in found.items():
        cells = []
        for part in (scores.all, scores.clean, scores.dirty):
            if part is None:
                cells.append("none")
                continue
            low, high = part.interval
            cells.append(f"{part.share:.1%} of {part.n}\n({low:.1%} to {high:.1%})")
        table.add_row(name, *cells, f"{scores.inflation:+.1%}" if scores.clean else "unknown")
    Console().print(table)


def _stored(answers: str, tests: str, n: int) -> dict[str, list[bool]]:
    """Return which answers were right by each score that `gptwin evaluate` stored."""
    path = Path(answers)
    if not path.is_file():
        refuse("--answers", "a file that gptwin evaluate stored", answers, "a wrong path")
    _, *records = read_json_lines(path) or [{}]
    if len(records) != n or not all("right" in record for record in records):
        refuse("--answers", f"what gptwin evaluate stored of the {n} questions of {tests}",
               f"{len(records)} answers", "those to another file")  # fmt: skip
    if isinstance(records[0]["right"], dict):
        return {name: [r["right"][name] for r in records] for name in records[0]["right"]}
    return {"exact match": [r["right"][0] for r in records]}


def _examples(tests: str) -> list[str]:
    """Return each test example as one text: what is asked, and its right answer."""
    return [f"{item.shot.question} {item.shot.answer}" for item in read_items(tests)]


def _texts(data: str, out: str) -> list[str]:
    if not Path(out).parent.is_dir():
        refuse("--out", "a file in a folder that is there", out)
    if Path(out).exists() and Path(data).exists() and Path(out).samefile(data):
        refuse("--out", "another file than the one that is read", out)
    return read_texts(Path(data))


def _write(out: str, texts: Sequence[str]) -> None:
    write_whole(out, json_lines({"text": text} for text in texts))
