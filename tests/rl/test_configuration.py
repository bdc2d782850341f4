"""What `gptwin train` is told: read back as written, and refused where it is wrong."""

import dataclasses

import pytest

from gptwin.core.model.presets import GPTConfig
from gptwin.rl.bounds import check
from gptwin.rl.configuration import (
    Configuration,
    ModelSettings,
    PPOSettings,
    dump,
    load,
    sources,
)
from gptwin.rl.studies.chatgpt import SMALL


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


def tables():
    return [(t.name, getattr(Configuration(), t.name)) for t in dataclasses.fields(Configuration)]


def test_every_setting_has_a_bound_and_a_default_within_it():
    for table, settings in tables():
        for field in dataclasses.fields(settings):
            bound = field.metadata.get("bound")
            assert bound is not None, f"{table}.{field.name}"
            assert bound.holds(getattr(settings, field.name)), f"{table}.{field.name}"
    check(Configuration())
    check(SMALL)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("run.checkpoint_every=0", r"run\.checkpoint_every: expected at least 1, got 0"),
        ("run.seed=-1", r"run\.seed: expected from 0 to below 2\^63, got -1"),
        ("run.dtype=float64", r"run\.dtype: expected 'float32' or 'bfloat16', got 'float64'"),
        ("pretrain.steps=0", r"pretrain\.steps: expected at least 1"),
        ("pretrain.warmup=-3", r"pretrain\.warmup: expected at least 0"),
        ("pretrain.lr=nan", r"pretrain\.lr: expected above 0, and finite, got nan"),
        ("pretrain.time=500", r"pretrain\.time: expected at most the model's n_ctx = 128"),
        ("sft.accumulate=0", r"sft\.accumulate: expected at least 1"),
        ("sft.accumulate=-2", r"sft\.accumulate: expected at least 1"),
        ("sft.epochs=0", r"sft\.epochs: expected at least 1"),
        ("sft.clip=0", r"sft\.clip: expected above 0"),
        ("sft.on_long=cut", r"sft\.on_long: expected 'error' or 'truncate' or 'drop', got 'cut'"),
        ("sft.betas=[0.9, 1.0]", r"sft\.betas: expected two numbers from 0 to below 1"),
        ("reward.k_min=12", r"reward\.k_max: expected at least k_min = 12, got 9"),
        ("ppo.minibatches=0", r"ppo\.minibatches: expected at least 1"),
        ("ppo.minibatches=600", r"ppo\.minibatches: expected at most the 512 responses"),
        ("ppo.episodes=3", r"ppo\.episodes: expected at least a batch of 512, got 3"),
        ("ppo.ptx=-1", r"ppo\.ptx: expected at least 0, got -1"),
        ("ppo.kl_target=-6", r"ppo\.kl_target: expected above 0"),
        ("ppo.kl_estimator=k4", r"ppo\.kl_estimator: expected 'k1' or 'k2' or 'k3'"),
        ("ppo.max_response=128", r"ppo\.max_response: expected below the model's n_ctx = 128"),
        ("model.n_layer=1000000000", r"model\.n_layer: expected from 1 to 10,000"),
        ("model.n_head=3", r"model\.d_model: expected a multiple of n_head = 3"),
        ("model.preset=gpt5", r"model\.name: expected one of"),
        ("model.vocab_size=100", r"model\.vocab_size: expected from 262"),
    ],
)
def test_a_setting_out_of_bounds_is_refused_whatever_stage_it_is_of(change, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        load(None, [change])
