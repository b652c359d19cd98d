import importlib.metadata
import inspect
from importlib.resources import files

import pytest

import gpt2kit


@pytest.fixture
def generator(golden):
    with gpt2kit.load(golden / "hf-safetensors", engine="reference") as generator:
        yield generator


SEEDED = gpt2kit.SamplingConfig(seed=1)
SHORT = gpt2kit.StopConfig(max_new_tokens=8)


@pytest.mark.parametrize("name", gpt2kit.__all__)
def test_every_public_name_is_there_and_its_own(name):
    assert getattr(gpt2kit, name).__name__ == name


def test_public_names_are_listed():
    assert set(gpt2kit.__all__) < set(dir(gpt2kit))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'gpt2kit' has no attribute 'nothing'"):
        gpt2kit.nothing  # noqa: B018


def test_the_version_is_the_installed_one():
    assert gpt2kit.__version__ == importlib.metadata.version("gpt2kit")


def test_type_checkers_may_look_inside():
    assert (files("gpt2kit") / "py.typed").is_file()


@pytest.mark.parametrize(
    "function",
    [
        *(gpt2kit.load, gpt2kit.encode, gpt2kit.finetune, gpt2kit.evaluate, gpt2kit.open_checkpoint),
        *(gpt2kit.Generator.generate, gpt2kit.Generator.stream, gpt2kit.Generator.score, gpt2kit.Generator.pieces),
    ],
    ids=lambda function: function.__qualname__,
)
def test_every_argument_and_result_has_a_type(function):
    signature = inspect.signature(function)
    untyped = [name for name, argument in signature.parameters.items() if argument.annotation is argument.empty]
    assert set(untyped) <= {"self"}
    assert signature.return_annotation is not signature.empty


def test_a_model_writes(generator):
    (completion,) = generator.generate("The cat", sampling=SEEDED, stop=SHORT)
    assert isinstance(completion, gpt2kit.Completion)
    assert generator.tokenizer.decode(completion.ids) == completion.text


def test_a_model_streams(generator):
    (completion,) = generator.generate("The cat", sampling=SEEDED, stop=SHORT)
    assert "".join(generator.stream("The cat", sampling=SEEDED, stop=SHORT)) == completion.text


def test_a_model_judges(generator):
    scores = generator.score("The cat")
    assert scores.logprobs_T.shape == scores.ids_T.shape == (len(generator.tokenizer.encode("The cat")),)
    assert (scores.logprobs_T < 0).all()


def test_users_catch_one_error(tmp_path):
    with pytest.raises(gpt2kit.Gpt2kitError):
        gpt2kit.load(tmp_path)
