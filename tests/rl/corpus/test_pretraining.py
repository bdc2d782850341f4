"""A run that pretrains on a mixture: its plan, what it draws, and what it refuses."""

import json
from pathlib import Path

import pytest
import tiny

from gptwin.rl import run_data
from gptwin.rl.corpus.draws import Mixture
from gptwin.rl.pipeline import Pipeline


@pytest.fixture
def mixture(tmp_path, monkeypatch):
    monkeypatch.setattr(run_data, "TOKENIZER_EXERCISES", 200)
    for name, word, n in (("web", "moon", 60), ("books", "tree", 20)):
        (tmp_path / name).mkdir()
        lines = [{"text": f"{word} {i} " * 12} for i in range(n)]
        (tmp_path / name / "texts.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    path = tmp_path / "mixture.toml"
    path.write_text('[web]\npath = "web"\nweight = 1\n[books]\npath = "books"\nweight = 3\n')
    return path


def pipeline(mixture, **options):
    configuration = tiny.configuration(
        mixture.parent / "run", pretrain={"data": str(mixture), "steps": 2, "time": 16}
    )
    return Pipeline(configuration, quiet=True, **options)


def test_a_run_reads_what_the_plan_says_and_goes_on_from_the_same_files_alone(mixture, capsys):
    run = pipeline(mixture)
    source = run._pretraining_source()
    assert isinstance(source, Mixture)
    said = [run.tokenizer.decode(w.tokens) for step in range(2) for w in source.batch(step)]
    assert sum("tree" in text for text in said) == 6 and len(said) == 8  # 3/4 of 8 windows
    # A tenth of each set is held out.
    training, validation = run._texts
    assert (len(training), len(validation)) == (72, 8)
    assert not set(training) & set(validation)

    run.pretrain()
    told = capsys.readouterr().err
    assert "The weights summed to 4" in told and "75.0%" in told
    pipeline(mixture, resume=True).pretrain()

    books = mixture.parent / "books/texts.jsonl"
    books.write_text(books.read_text().replace("tree 7", "tree 8"))
    with pytest.raises(ValueError, match="books in pretrain"):
        pipeline(mixture, resume=True).pretrain()


def test_a_bad_mixture_is_refused_before_anything_is_written(mixture):
    mixture.write_text('[web]\npath = "nowhere"\nweight = 1\n')
    with pytest.raises(ValueError, match=r"\[web\] path: expected a file of texts"):
        pipeline(mixture).pretrain()
    assert not (Path(mixture.parent) / "run/pretrain").exists()
