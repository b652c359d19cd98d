"""A GPT-2 of Hugging Face's layout with BERT's vocab.txt, as most Chinese ones are, in every command."""

import json
import math
import warnings

import pytest
import torch
from tokenizers import BertWordPieceTokenizer

from gpt2kit.config.sampling import SamplingConfig, StopConfig
from gpt2kit.config.training import TrainingConfig
from gpt2kit.errors import DataError
from gpt2kit.generate import packed
from gpt2kit.jobs.compare import compare
from gpt2kit.jobs.convert import convert
from gpt2kit.jobs.encode import encode
from gpt2kit.jobs.evaluate import evaluate
from gpt2kit.jobs.finetune import finetune
from gpt2kit.jobs.init import init
from gpt2kit.jobs.load import load
from gpt2kit.jobs.runs import compare_runs
from gpt2kit.jobs.score import score
from gpt2kit.progress import silent
from gpt2kit.resolve import open_checkpoint

POEM = "床前明月光，疑是地上霜。\n举头望明月，低头思故乡。\n" * 20
STEPS = TrainingConfig(steps=2, batch_size=2, window=16, learning_rate=1e-3, warmup_steps=0)


@pytest.fixture(scope="module")
def vocabulary(shared):
    return shared / "fixtures" / "gpt2ml" / "vocab.txt"


@pytest.fixture(scope="module")
def chinese(vocabulary, tmp_path_factory):
    """The directory of a tiny model of random weights."""
    words, directory = tmp_path_factory.mktemp("words"), tmp_path_factory.mktemp("models") / "chinese"
    (words / "vocab.txt").write_bytes(vocabulary.read_bytes())
    init("tiny", words, directory)
    return directory


@pytest.fixture
def poem(here):
    (here / "poem.txt").write_text(POEM, encoding="utf-8")
    return here / "poem.txt"


@pytest.fixture(scope="module")
def by_hugging_face(vocabulary):
    tokens = {token: id for id, token in enumerate(vocabulary.read_text("utf-8").split("\n"))}
    return BertWordPieceTokenizer(tokens, lowercase=True)


def test_it_writes_whole_characters(chinese):
    with load(chinese) as model:
        done = model.generate("今天", stop=StopConfig(max_new_tokens=20))[0]
        assert done.text == model.tokenizer.decode(done.ids)


@pytest.mark.parametrize("worth_keeping", [0, packed.WORTH_KEEPING])
def test_its_words_are_not_kept_beside_it(chinese, monkeypatch, worth_keeping):
    monkeypatch.setattr(packed, "WORTH_KEEPING", worth_keeping)
    tokenizer = packed.packed_tokenizer(open_checkpoint(chinese))
    assert tokenizer.vocab_size == 8021
    assert not (chinese / ".packed-tokenizer").exists()


def test_text_is_encoded_with_its_words(chinese, poem, by_hugging_face):
    done = encode([poem], "corpus", model=chinese)
    assert done.tokens == len(by_hugging_face.encode(POEM, add_special_tokens=False).ids) + 1


def test_it_is_evaluated_over_all_tokens(chinese, poem, by_hugging_face):
    found = evaluate(chinese, poem)
    assert found.tokens == len(by_hugging_face.encode(POEM, add_special_tokens=False).ids)


@pytest.mark.parametrize("text", [POEM, "龘 龘"])
def test_bits_are_spread_over_all_bytes_of_a_text(chinese, text):
    """Line ends have no token, and a token that stands for any other word no bytes."""
    *_, last = score(chinese, text)
    assert last.summary.bits_per_byte == pytest.approx(last.summary.nll / math.log(2) / len(text.encode()))


def test_a_text_of_spaces_is_refused(chinese):
    with pytest.raises(DataError, match="the text to score is empty"):
        list(score(chinese, " \n"))


@pytest.mark.slow
def test_as_transformers_5_saves_it_it_writes_what_transformers_writes(transformers, vocabulary, here):
    """Without vocab.txt: its words are in tokenizer.json alone."""
    words = transformers.BertTokenizer(str(vocabulary))
    config = transformers.GPT2Config(vocab_size=8021, n_positions=32, n_embd=16, n_layer=2, n_head=2)
    torch.manual_seed(5)
    network = transformers.GPT2LMHeadModel(config).eval()
    for part in (words, network):
        part.save_pretrained(here / "saved")
    assert not (here / "saved" / "vocab.txt").exists()
    ids = words("今天天气", add_special_tokens=False, return_tensors="pt")["input_ids"]
    expected = network.generate(ids, max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0)[0, 4:]
    with load(here / "saved") as model:
        done = model.generate(
            "今天天气",
            sampling=SamplingConfig(temperature=0),
            stop=StopConfig(max_new_tokens=12, ignore_end=True),
        )[0]
    assert list(done.ids) == expected.tolist()
    assert convert("saved", "out").checkpoint.tokenizer_files == open_checkpoint("saved").tokenizer_files
    with pytest.warns(UserWarning, match=r"left behind, for llama\.cpp's GPT-2 .*: tokenizer\.json"):
        convert("saved", "out.gguf", to="gguf")


@pytest.mark.slow
def test_a_run_of_it_is_a_model_with_its_words(chinese, poem):
    outcome = finetune([poem], chinese, training=STEPS, device="cpu")
    files = open_checkpoint(outcome.directory).tokenizer_files
    assert files["vocab.txt"] == (chinese / "vocab.txt").read_bytes()
    assert json.loads((outcome.directory / "config.json").read_text("utf-8"))["eos_token_id"] == 102


@pytest.mark.slow
def test_runs_of_two_vocabularies_are_told_apart(chinese, model, poem):
    for name, start in (("a", chinese), ("b", chinese), ("c", model)):
        finetune([poem], start, training=STEPS, run_name=name, device="cpu")
    assert not any("vocabularies differ" in note for note in compare_runs(["a", "b"]).notes)
    assert any("vocabularies differ" in note for note in compare_runs(["a", "c"]).notes)


def test_its_words_come_along_into_other_formats(chinese, here):
    written = convert(chinese, "out", to="bin").checkpoint
    assert written.tokenizer_files == {"vocab.txt": (chinese / "vocab.txt").read_bytes()}


@pytest.mark.parametrize(("format", "who"), [("openai", "OpenAI's code"), ("gguf", "llama.cpp's GPT-2")])
def test_formats_that_have_no_place_for_its_words_say_so(chinese, here, format, who):
    with pytest.warns(UserWarning, match=rf"left behind, for {who} .*: vocab\.txt"):
        convert(chinese, "out", to=format, report=silent)


def test_words_are_compared(chinese, here):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        convert(chinese, "out")
    assert compare(open_checkpoint(chinese), open_checkpoint("out")).vocabulary is None
    (here / "out" / "vocab.txt").write_text("[UNK]\n[SEP]\n", encoding="utf-8")
    told = compare(open_checkpoint(chinese), open_checkpoint("out")).vocabulary
    assert told == "WordPiece of 8,021 tokens and WordPiece of 2 tokens"
