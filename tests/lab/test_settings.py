"""What [tool.gptwin] of a project's pyproject.toml may say."""

import pytest

from gptwin.lab.settings import Settings, read_settings


def test_the_nearest_file_above_is_read(tmp_path):
    inner = tmp_path / "tests" / "unit"
    inner.mkdir(parents=True)
    file = tmp_path / "pyproject.toml"
    file.write_text('[tool.gptwin]\ntwins = ["a.b:C"]\nconfigs = 3\nupdates = ["x_ptr"]\n')
    assert read_settings(inner) == Settings(("a.b:C",), 3, (), ("x_ptr",), file)


def test_a_file_that_does_not_speak_of_gptwin_says_nothing(tmp_path):
    (tmp_path / "pyproject.toml").write_text("[tool.ruff]\n")
    assert read_settings(tmp_path) == Settings()


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("twin = []", r"tool\.gptwin\.twin: expected one of twins, configs, allow, updates, got"),
        ("configs = 0", r"tool\.gptwin\.configs: expected a number of configurations, at least 1"),
        ("configs = true", r"tool\.gptwin\.configs: expected a number"),
        ('twins = "a:B"', r"tool\.gptwin\.twins: expected a list of strings, got 'a:B'"),
        ("allow = [3]", r"tool\.gptwin\.allow: expected a list of strings"),
        ("allow = ", r"pyproject\.toml: expected TOML"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(tmp_path, said, message):
    (tmp_path / "pyproject.toml").write_text(f"[tool.gptwin]\n{said}\n")
    with pytest.raises(ValueError, match=message):
        read_settings(tmp_path)
