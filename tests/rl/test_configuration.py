"""What `gptwin train` is told: read back as written, and refused where it is wrong."""

import pytest

from gptwin.core.model.presets import GPTConfig
from gptwin.rl.configuration import (
    Configuration,
    ModelSettings,
    PPOSettings,
    dump,
    load,
    sources,
)


def test_what_is_dumped_is_read_back(tmp_path):
    changes = [
        "ppo.ptx=0",
        "ppo.betas=[0.8, 0.9]",
        "run.directory=runs/x y",
        "ppo.adaptive_kl=true",
    ]
    changed = load(None, changes)
    file = tmp_path / "settings.toml"
    file.write_text(dump(changed))
    assert load(str(file)) == changed
    assert changed.ppo.ptx == 0.0
    assert changed.ppo.betas == (0.8, 0.9)
    assert changed.run.directory == "runs/x y"
    assert load(None) == Configuration()


def test_the_command_line_is_stronger_than_the_file(tmp_path):
    file = tmp_path / "a.toml"
    file.write_text("[sft]\nlr = 1e-3\nepochs = 2\n")
    settings = load(str(file), ["sft.lr=1"]).sft
    assert (settings.lr, settings.epochs, settings.batch) == (1.0, 2, 32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("ppo.kl_coeficient=1", r"kl_coeficient: .*likely cause: kl_coefficient is meant"),
        ("poo.lr=1", r"poo: expected one of .*ppo is meant"),
        ("ppo.lr=high", r"ppo\.lr=high: lr: expected a number, got 'high'"),
        ("ppo.batch=1.5", r"batch: expected a whole number, got 1\.5"),
        ("ppo.batch=true", r"batch: expected a whole number, got True"),
        ("ppo.adaptive_kl=1", r"adaptive_kl: expected true or false, got 1"),
        ("ppo.betas=0.9", r"betas: expected a list of 2 numbers, got 0\.9"),
        ("ppo=3", r"setting: expected table\.key=value"),
        ("lr", r"setting: expected table\.key=value"),
    ],
)
def test_a_wrong_setting_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        load(None, [change])


def test_a_wrong_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"^config: .*none\.toml: No such file"):
        load(str(tmp_path / "none.toml"))
    file = tmp_path / "bad.toml"
    file.write_text("[ppo\n")
    with pytest.raises(ValueError, match=r"^config: expected valid TOML, got .*bad\.toml"):
        load(str(file))
    file.write_text("ppo = 3\n")
    with pytest.raises(ValueError, match=r"bad\.toml: ppo: expected a table \[ppo\], got 3"):
        load(str(file))


def test_instructgpts_defaults_are_its_own():
    assert sources(PPOSettings)["kl_coefficient"] == "InstructGPT C.4"
    settings = PPOSettings()
    assert (settings.kl_coefficient, settings.ptx, settings.ema) == (0.02, 27.8, 0.992)


def test_model_settings_name_an_architecture():
    assert ModelSettings(preset="gpt2").architecture(300).n_layer == 12
    assert ModelSettings().architecture(300) == GPTConfig(300, 128, 4, 4, 128)
