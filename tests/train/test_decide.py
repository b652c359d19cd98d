import math

import pytest

from gpt2kit.config.model import SIZES
from gpt2kit.config.training import PRESETS, Recipe, TrainingConfig
from gpt2kit.errors import DataError
from gpt2kit.train.decide import Facts, decide, decide_split, decide_window

SMALL, MEDIUM = 124_439_808, 354_823_168  # parameters of GPT-2, as OpenAI published the sizes
MODEL = SIZES["124M"].config(50257)
LEARNT, UNTAUGHT = 3.3, 10.9  # first losses in nats; log 50257 is 10.82


def facts_of(measured=100_000, parameters=SMALL, first_loss=LEARNT, precision="bf16"):
    return Facts(measured, MODEL, parameters, first_loss, precision, "this device computes so")


def decided(config=None, windows=900, window=1024, share=0.1, **facts):
    """The recipe, and the decisions by setting."""
    recipe, decisions = decide(config or TrainingConfig(), facts_of(**facts), windows, window, share)
    made = {decision.setting: decision for decision in decisions}
    assert len(made) == len(decisions), "no setting is decided twice"
    assert all(getattr(recipe, name) == decision.value for name, decision in made.items())
    assert all(decision.reason for decision in decisions)
    return recipe, made


# --- what is held out ---


@pytest.mark.parametrize(
    ("tokens", "share"), [(100, 0.1), (2_000_000, 0.1), (4_000_000, 0.05), (2_000_000_000, 0.0001), (0, 0.1)]
)
def test_a_tenth_is_held_out_and_200_000_tokens_at_most(tokens, share):
    found, (decision,) = decide_split(TrainingConfig(), tokens)
    assert found == pytest.approx(share)
    assert (decision.setting, decision.value) == ("validation_share", pytest.approx(share))
    assert decision.reason


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_share_that_was_asked_is_taken_without_a_word(share):
    assert decide_split(TrainingConfig(validation_share=share), 100) == (share, [])


# --- windows ---


@pytest.mark.parametrize(
    ("tokens", "window"),
    [(10**6, 1024), (8 * 1024, 1024), (8 * 1024 - 1, 512), (8 * 512 - 1, 256), (8 * 128, 128), (8 * 128 - 1, 64)],
)
def test_a_window_is_the_models_unless_fewer_than_8_fit(tokens, window):
    found, (decision,) = decide_window(TrainingConfig(), MODEL, tokens)
    assert (found, decision.value, decision.setting) == (window, window, "window")
    assert decision.reason


@pytest.mark.parametrize(("tokens", "window"), [(500, 64), (66, 64), (65, 64), (64, 63), (3, 2), (2, 1)])
def test_a_short_text_is_one_window_with_its_targets(tokens, window):
    found, (decision,) = decide_window(TrainingConfig(), MODEL, tokens)
    assert found == window
    assert f"{tokens} tokens" in decision.reason


@pytest.mark.parametrize("tokens", [0, 1])
@pytest.mark.parametrize("config", [TrainingConfig(), TrainingConfig(window=8)], ids=["open", "asked"])
def test_of_one_token_nothing_can_be_learnt(tokens, config):
    with pytest.raises(DataError, match=f"tokens to learn from: {tokens}; a model learns from at least 2"):
        decide_window(config, MODEL, tokens)


@pytest.mark.parametrize("window", [1, 64, 100, 1024])
def test_a_window_that_was_asked_is_taken_without_a_word(window):
    """Also where few fit: 1100 tokens are not enough for 8 windows of 1024."""
    assert decide_window(TrainingConfig(window=window), MODEL, 1100) == (window, [])


@pytest.mark.parametrize(("asked", "tokens", "window"), [(2048, 10**6, 1024), (100, 80, 79), (2048, 80, 79)])
def test_a_window_that_cannot_be_had_is_the_longest_there_is_and_told(asked, tokens, window):
    found, (decision,) = decide_window(TrainingConfig(window=asked), MODEL, tokens)
    assert (found, decision.value) == (window, window)


# --- all the rest ---


def test_a_recipe_is_complete_and_every_decision_is_told():
    recipe, made = decided()
    assert isinstance(recipe, Recipe)
    assert set(made) == {
        *("precision", "batch_size", "accumulate", "steps", "learning_rate", "warmup_steps"),
        *("validate_every", "save_every", "sample_every"),
    }


def test_what_was_asked_is_taken_without_a_word():
    asked = {
        **{"steps": 7, "batch_size": 6, "accumulate": 3, "learning_rate": 0.5, "warmup_steps": 0, "precision": "fp32"},
        **{"validate_every": 99, "save_every": 2, "sample_every": 0, "dropout": 0.5, "seed": 3, "optimizer": "muon"},
    }
    recipe, made = decided(TrainingConfig(**asked), first_loss=UNTAUGHT, parameters=MEDIUM)
    assert {name: getattr(recipe, name) for name in asked} == asked
    assert made == {}


@pytest.mark.parametrize("name", ["steps", "batch_size", "learning_rate", "warmup_steps", "save_every"])
def test_what_was_asked_alone_is_taken_and_the_rest_is_decided(name):
    recipe, made = decided(TrainingConfig(**{name: 3}))
    assert getattr(recipe, name) == 3
    assert name not in made
    assert len(made) == 8


@pytest.mark.parametrize(
    ("window", "windows", "size"),
    [(1024, 900, 4), (512, 900, 8), (64, 900, 64), (3000, 9, 1), (5000, 9, 1), (64, 5, 5)],
)
def test_a_step_reads_about_4096_tokens_if_the_text_has_them(window, windows, size):
    recipe, _ = decided(window=window, windows=windows)
    assert recipe.batch_size == size


@pytest.mark.parametrize(("parts", "size"), [(2, 4), (3, 6), (8, 8)])
def test_a_batch_can_be_cut_into_the_parts_that_were_asked(parts, size):
    recipe, _ = decided(TrainingConfig(accumulate=parts))
    assert (recipe.batch_size, recipe.accumulate) == (size, parts)


@pytest.mark.parametrize(("parameters", "parts"), [(SMALL, 1), (200_000_000, 1), (200_000_001, 4), (MEDIUM, 4)])
def test_a_large_model_has_one_window_in_memory_at_a_time(parameters, parts):
    recipe, _ = decided(parameters=parameters)
    assert (recipe.batch_size, recipe.accumulate) == (4, parts)


@pytest.mark.parametrize(("windows", "passes"), [(976, 4), (977, 2), (9765, 2), (9766, 1)])
def test_a_model_that_has_learnt_reads_much_text_less_often(windows, passes):
    """Below 1 and 10 million tokens of 1024 a window."""
    recipe, made = decided(windows=windows)
    assert recipe.steps == math.ceil(passes * windows / 4)
    assert f"{passes} x the text" in made["steps"].reason


@pytest.mark.parametrize(
    ("parameters", "passes"), [(1_000_000, 20), (600_000, 12), (60_000, 1.2), (50_000, 1), (10_000, 1)]
)
def test_from_scratch_20_tokens_a_parameter_are_read_in_1_to_20_passes(parameters, passes):
    recipe, _ = decided(windows=1000, window=1000, first_loss=UNTAUGHT, parameters=parameters)
    assert recipe.steps == math.ceil(passes * 1000 / recipe.batch_size)


@pytest.mark.parametrize(
    ("first_loss", "learnt"), [(None, True), (9.73, True), (9.75, False), (UNTAUGHT, False), (math.nan, False)]
)
def test_a_model_has_learnt_if_it_is_a_tenth_better_than_chance(first_loss, learnt):
    """0.9 log 50257 is 9.742."""
    assert facts_of(first_loss=first_loss).learnt == learnt


def test_a_short_text_is_learnt_in_50_steps():
    assert decided(windows=3)[0].steps == 50


@pytest.mark.parametrize(("epochs", "steps"), [(1.0, 225), (0.5, 113), (3.0, 675), (0.001, 1)])
def test_epochs_are_passes_however_few_steps_they_take(epochs, steps):
    recipe, made = decided(TrainingConfig(epochs=epochs))
    assert (recipe.steps, recipe.epochs) == (steps, None)
    assert f"{epochs:g} x the text" in made["steps"].reason


@pytest.mark.parametrize(
    ("parameters", "rate"), [(124_000_000, 1e-4), (4 * 124_000_000, 5e-5), (13_777_777, 3e-4), (1_000_000, 3e-4)]
)
def test_the_rate_for_what_has_learnt_falls_by_the_root_of_the_size(parameters, rate):
    assert decided(parameters=parameters)[0].learning_rate == pytest.approx(rate, rel=0.02)


@pytest.mark.parametrize(("parameters", "rate"), [(1_000_000, 1.31e-3), (SMALL, 6.4e-4), (1_557_611_200, 2.87e-4)])
def test_the_rate_from_scratch_is_kaplans(parameters, rate):
    """0.003239 - 0.0001395 ln N, worked out by hand."""
    assert decided(parameters=parameters, first_loss=UNTAUGHT)[0].learning_rate == pytest.approx(rate, rel=0.02)


@pytest.mark.parametrize(("steps", "warmup"), [(1, 1), (19, 1), (40, 2), (100, 5), (4000, 200), (100_000, 200)])
def test_a_twentieth_of_the_steps_warms_up_and_200_at_most(steps, warmup):
    assert decided(TrainingConfig(steps=steps))[0].warmup_steps == warmup


@pytest.mark.parametrize("steps", [1, 19, 20, 21, 1000])
def test_without_held_out_text_it_saves_20_times_in_a_run(steps):
    recipe, _ = decided(TrainingConfig(steps=steps), share=0.0, measured=0)
    assert recipe.validate_every == recipe.save_every == recipe.sample_every == math.ceil(steps / 20)


def test_measuring_takes_a_tenth_of_the_time_at_most():
    """100 000 held-out tokens at a third of the price of learning cost 8.14 steps of 4096."""
    recipe, _ = decided(TrainingConfig(steps=1000), measured=100_000)
    assert recipe.validate_every == 82


def test_it_measures_at_the_end_at_least():
    recipe, _ = decided(TrainingConfig(steps=30), measured=100_000)
    assert recipe.validate_every == 30


def test_saving_and_sampling_follow_the_measuring_that_was_asked():
    recipe, _ = decided(TrainingConfig(validate_every=17))
    assert (recipe.save_every, recipe.sample_every) == (17, 17)


@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
def test_the_precision_is_the_devices(precision):
    recipe, made = decided(precision=precision)
    assert recipe.precision == precision
    assert made["precision"].reason == "this device computes so"


def test_stepping_in_backward_takes_fp32_where_only_fp16_is_fast():
    recipe, made = decided(TrainingConfig(step_in_backward=True, clip_norm=0), precision="fp16")
    assert recipe.precision == "fp32"
    assert "step_in_backward" in made["precision"].reason


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
@pytest.mark.parametrize("parameters", [SMALL, MEDIUM])
def test_every_preset_becomes_a_recipe_on_every_device(name, precision, parameters):
    share = PRESETS[name].get("validation_share", 0.1)
    recipe, made = decided(TrainingConfig(**PRESETS[name]), share=share, precision=precision, parameters=parameters)
    kept = {key: value for key, value in PRESETS[name].items() if key != "window"}
    assert {key: getattr(recipe, key) for key in kept} == kept
    assert not set(made) & set(PRESETS[name])
