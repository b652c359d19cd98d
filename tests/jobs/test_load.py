import shutil
import subprocess
import sys

import numpy as np
import pytest

from gpt2kit.config.sampling import SamplingConfig, StopConfig
from gpt2kit.errors import ConfigError, FormatError, MissingExtra, ModelNotFound
from gpt2kit.generate.native_engine import NativeEngine
from gpt2kit.generate.torch_engine import TorchEngine
from gpt2kit.jobs.load import available_gpus, load, use_threads


@pytest.fixture
def without_torch(monkeypatch):
    """As if torch were not installed: a None in sys.modules makes an import fail."""
    monkeypatch.setitem(sys.modules, "torch", None)


@pytest.mark.parametrize("engine", ["reference", "torch"])
def test_a_loaded_model_writes_what_transformers_writes(model, transformers, engine):
    """Greedy, twelve tokens; far from any tie."""
    theirs = transformers.GPT2LMHeadModel.from_pretrained(model)
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    ids = tokenizer("The cat", return_tensors="pt")
    expected = theirs.generate(**ids, max_new_tokens=12, do_sample=False, pad_token_id=tokenizer.eos_token_id)
    with load(model, engine=engine) as generator:
        (found,) = generator.generate(
            "The cat", sampling=SamplingConfig(temperature=0), stop=StopConfig(max_new_tokens=12)
        )
    assert list(found.ids) == expected[0, ids.input_ids.shape[1] :].tolist()


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["reference", "torch"])
@pytest.mark.parametrize(
    ("place", "folder"),
    [
        ("openai-fullvocab", "openai-fullvocab"),
        ("nshepperd/checkpoint/run1", "nshepperd"),
        ("gpt2simple/checkpoint/run1", "gpt2simple"),
    ],
)
def test_an_old_checkpoint_writes_what_its_own_program_wrote(shared, place, folder, engine):
    stored = np.load(shared / "fixtures" / folder / "expected.npz")
    prompt, tokens = stored["greedy_prompt"].ravel().tolist(), stored["greedy_tokens"].ravel().tolist()
    with load(shared / "fixtures" / place, engine=engine) as generator:
        (found,) = generator.generate(
            generator.tokenizer.decode(prompt),
            sampling=SamplingConfig(temperature=0),
            stop=StopConfig(max_new_tokens=len(tokens) - len(prompt), ignore_end=True),
        )
    assert list(found.ids) == tokens[len(prompt) :]


def test_engine_precision_and_threads_are_those_asked_for(model):
    engine = load(model, engine="native", precision="int8", threads=2).engine
    assert isinstance(engine, NativeEngine)
    assert (engine.precision, engine.threads) == ("int8", 2)
    assert isinstance(load(model, engine="torch").engine, TorchEngine)


def test_the_reference_chosen_by_name_needs_no_warning(model, without_torch, recwarn):
    load(model, engine="reference")
    assert not recwarn.list


def test_the_torch_engine_without_torch_names_the_remedy(model, without_torch):
    with pytest.raises(MissingExtra, match=r"the torch engine.*pip install 'gpt2kit\[train\]'"):
        load(model, engine="torch")


@pytest.mark.slow
def test_training_without_torch_names_the_remedy(model, here):
    (here / "text.txt").write_text("the cat sat", encoding="utf-8")
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from gpt2kit.jobs.finetune import finetune\n"
        "finetune(['text.txt'], sys.argv[1])"
    )
    done = subprocess.run([sys.executable, "-c", program, str(model)], capture_output=True, encoding="utf-8")
    assert "MissingExtra: training needs a package" in done.stderr
    assert "pip install 'gpt2kit[train]'" in done.stderr


@pytest.mark.parametrize("engine", ["reference", "torch"])
def test_an_engine_has_the_slots_asked_for(model, engine):
    assert load(model, engine=engine, slots=3).engine.slots == 3


def test_the_reference_runs_on_the_cpu_only(model):
    with pytest.raises(ConfigError, match="reference engine runs on the cpu only, not on cuda"):
        load(model, engine="reference", device="cuda")


def test_a_device_that_is_not_there_is_refused(model):
    """No machine has both."""
    import torch

    absent = "mps" if torch.cuda.is_available() or not torch.backends.mps.is_available() else "cuda"
    with pytest.raises(ConfigError, match=rf"cannot use the device {absent} here; usable: .*cpu"):
        load(model, engine="torch", device=absent)


def test_an_unknown_model_is_refused(here):
    with pytest.raises(ModelNotFound, match="'nowhere'"):
        load("nowhere")


def test_a_model_without_a_vocabulary_is_refused(model, here):
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(model / name, here / name)
    with pytest.raises(FormatError, match="no vocabulary"):
        load(here)


def test_the_gpus_are_those_that_torch_finds():
    import torch

    found = available_gpus()
    assert len(found) == torch.cuda.device_count() + int(torch.backends.mps.is_available())
    assert all(torch.device(name).type in ("cuda", "mps") for name in found)


def test_threads_are_torchs():
    import torch

    before = torch.get_num_threads()
    use_threads(before + 1)
    assert torch.get_num_threads() == before + 1
    use_threads(before)
