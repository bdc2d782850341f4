"""gptwin generate: from a directory and a prompt to text, on either twin."""

import subprocess
import sys

import numpy as np
import pytest

from gptwin.core.model.parameters import init_parameters
from gptwin.core.model.presets import GPTConfig
from gptwin.rl.continuation import continue_text
from gptwin.rl.formats.tokenizer import Tokenizer
from gptwin.rl.formats.tokenizer_files import END_OF_TEXT
from gptwin.rl.formats.weights import save_gpt2

from ..tools import command


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    tokenizer = Tokenizer.train(
        ["the cat sat on the mat, and the dog sat on the cat"] * 4, 300, [END_OF_TEXT]
    )
    config = GPTConfig(vocab_size=tokenizer.vocab_size, n_ctx=32, n_layer=2, n_head=2, d_model=16)
    fresh = init_parameters(config, 0, np.float32)
    parameters = {n: p * 8 if p.ndim > 1 else p for n, p in fresh.items()}
    target = tmp_path_factory.mktemp("weights") / "tiny"
    save_gpt2(target, config, parameters, tokenizer)
    return target


@pytest.mark.parametrize("prompt", ["the cat", ""])
@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"seed": 4, "top_p": 0.9}])
def test_both_twins_write_the_same(directory, prompt, options):
    kernels = continue_text(directory, prompt, max_new_tokens=12, **options)
    reference = continue_text(directory, prompt, max_new_tokens=12, reference=True, **options)
    assert kernels == reference
    assert 1 <= len(kernels.tokens) <= 12


def test_the_command_prints_prompt_and_continuation(directory):
    words = [sys.executable, "-m", "gptwin", "generate", "--weights", str(directory)]
    words += ["--prompt", "the dog", "--max-new-tokens", "6", "--temperature", "0"]
    done = subprocess.run(words, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    expected = continue_text(directory, "the dog", max_new_tokens=6, temperature=0.0).text
    assert done.stdout.decode("utf-8", "replace").startswith("the dog")
    assert done.stdout.decode() == f"the dog{expected}\n"


def test_too_long_a_text_is_one_line_and_exit_code_2(directory):
    done = command.gptwin("generate", "--weights", str(directory), "--max-new-tokens", "100")
    assert done.status == 2
    assert "max_new_tokens: expected at most n_ctx = 32" in done.errors
    assert done.errors.count("\n") == 1
