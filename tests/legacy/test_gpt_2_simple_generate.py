import json
import re
import shutil

import pytest

from gpt2kit import simple as gpt2
from gpt2kit.errors import ConfigError, Gpt2kitError

DELIMITER = "====================\n"


@pytest.fixture(scope="module")
def sess(shared, tmp_path_factory):
    """A session with the model that gpt-2-simple 0.8.1 has trained; its window is 1024."""
    place = tmp_path_factory.mktemp("old")
    shutil.copytree(shared / "fixtures" / "gpt2simple" / "checkpoint", place / "checkpoint")
    session = gpt2.start_tf_sess()
    gpt2.load_gpt2(session, checkpoint_dir=str(place / "checkpoint"))
    return session


@pytest.fixture(scope="module")
def texts(sess):
    """texts(prefix="A", nsamples=2): what is returned as a list."""
    return lambda **asked: gpt2.generate(sess, **{"return_as_list": True, "length": 12, "seed": 1, **asked})


# --- what is written ---


def test_greedy_text_is_the_old_programs(texts, shared):
    theirs = json.loads((shared / "fixtures" / "gpt2simple" / "generate.json").read_text("utf-8"))
    expected = theirs.pop("text")
    assert texts(**theirs) == [expected]


def test_the_same_seed_writes_the_same_and_another_something_else(texts):
    assert texts(nsamples=2) == texts(nsamples=2)
    assert texts(seed=1) != texts(seed=2)
    assert texts(seed=None) != texts(seed=None)


def test_samples_differ_from_each_other(texts):
    assert len(set(texts(nsamples=4, batch_size=2))) == 4


def test_batches_change_no_text(texts):
    assert texts(nsamples=4, batch_size=4, top_k=1) == texts(nsamples=4, batch_size=1, top_k=1)


def test_temperature_0_takes_the_likeliest(texts):
    assert texts(temperature=0, seed=1) == texts(top_k=1, seed=2)


def test_top_p_takes_the_place_of_top_k(texts):
    assert texts(top_p=1.0, top_k=1) == texts(top_p=1.0, top_k=0) != texts(top_k=1)


def test_length_counts_new_tokens_and_the_prefix_takes_room(sess, texts):
    [text] = texts(prefix="A" * 1020, length=1023, top_k=1)
    # The old program's rule: 1023 tokens in all. A letter is a token; what is half a character is one, too.
    assert text.startswith("A" * 1020)
    assert 1 <= len(text) - 1020 <= 3 * 4


def test_a_prefix_of_large_characters_comes_back_whole(texts):
    [text] = texts(prefix="你好")
    assert text.startswith("你好")


@pytest.mark.parametrize("prefix", [None, ""])
def test_without_a_prefix_a_text_begins_from_nothing(texts, prefix):
    assert texts(prefix=prefix) == texts()


def test_a_text_does_not_begin_with_blank_lines(texts):
    [text] = texts(prefix="\n\n\nA")
    assert text.startswith("A")


# --- truncate ---


def test_a_text_ends_before_what_truncates_it(texts):
    [whole] = texts(prefix="KING", length=40, top_k=1)
    mark = whole[10:12]
    assert texts(prefix="KING", length=40, top_k=1, truncate=mark) == [whole[: whole.index(mark)]]


def test_the_prefix_can_be_left_out_of_what_is_truncated(texts):
    [whole] = texts(prefix="<|startoftext|>", length=40, top_k=1)
    rest = whole.removeprefix("<|startoftext|>")
    mark = rest[5:7]
    asked = {"prefix": "<|startoftext|>", "length": 40, "top_k": 1, "truncate": mark, "include_prefix": False}
    assert texts(**asked) == [rest[: rest.index(mark)]]


def test_where_nothing_truncates_it_the_whole_text_stays_with_its_prefix(texts):
    [whole] = texts(prefix="KING", top_k=1)
    assert texts(prefix="KING", top_k=1, truncate="not there", include_prefix=False) == [whole]


def test_a_prefix_that_holds_the_mark_is_cut_too(texts):
    assert texts(prefix="KING.RICHARD", truncate=".") == ["KING"]


def test_leaving_out_the_prefix_does_nothing_unless_the_text_is_truncated(texts):
    assert texts(prefix="KING", include_prefix=False) == texts(prefix="KING")


# --- where it goes ---


def test_as_a_list_nothing_is_printed(texts, capsys):
    found = texts(nsamples=4, batch_size=2)
    assert [type(text) for text in found] == [str] * 4
    assert capsys.readouterr().out == ""


def test_texts_are_printed_with_a_line_between_them(sess, texts, capsys):
    assert gpt2.generate(sess, nsamples=2, length=12, seed=1) is None
    assert capsys.readouterr().out == "".join(f"{text}\n{DELIMITER}" for text in texts(nsamples=2))


def test_a_single_text_has_no_line_behind_it(sess, texts, capsys):
    gpt2.generate(sess, length=12, seed=1)
    assert capsys.readouterr().out == f"{texts()[0]}\n"


def test_a_file_is_utf_8_and_nothing_is_printed(here, sess, texts, capsys):
    asked = {"nsamples": 2, "length": 12, "seed": 1, "prefix": "你好"}
    assert gpt2.generate_to_file(sess, **asked) is None
    assert capsys.readouterr().out == ""
    expected = "".join(f"{text}\n{DELIMITER}" for text in texts(**asked))
    assert (here / "gpt_2_gen_texts.txt").read_bytes() == expected.encode()


def test_what_stands_between_texts_can_be_chosen(here, sess, texts):
    gpt2.generate_to_file(sess, destination_path="out.txt", nsamples=2, length=12, seed=1, sample_delim="~")
    assert (here / "out.txt").read_text("utf-8") == "".join(f"{text}\n~" for text in texts(nsamples=2))


def test_a_file_and_a_list_are_the_same(here, texts):
    [text] = texts(destination_path="out.txt")
    assert (here / "out.txt").read_text("utf-8") == f"{text}\n"


# --- loading ---


def test_a_model_and_a_run_are_told_as_they_were(have, here, shared, capsys):
    have("124M")
    shutil.copytree(shared / "fixtures" / "gpt2simple" / "checkpoint", here / "checkpoint")
    session = gpt2.start_tf_sess()
    gpt2.load_gpt2(session, model_name="124M")
    gpt2.load_gpt2(session)
    gpt2.load_gpt2(session, checkpoint="model-2")
    assert capsys.readouterr().out.splitlines() == [
        "Loading pretrained model models/124M/model.ckpt",
        "Loading checkpoint checkpoint/run1/model-2",
        "Loading checkpoint checkpoint/run1/model-2",
    ]


def test_a_second_load_takes_the_place_of_the_first(have, here, shared, texts):
    have("124M")
    shutil.copytree(shared / "fixtures" / "gpt2simple" / "checkpoint", here / "checkpoint")
    session = gpt2.start_tf_sess()
    gpt2.load_gpt2(session, model_name="124M")
    small = gpt2.generate(session, length=12, top_k=1, return_as_list=True)
    gpt2.load_gpt2(session)
    assert gpt2.generate(session, length=12, top_k=1, return_as_list=True) == texts(top_k=1) != small


def test_a_session_that_has_loaded_nothing_loads_what_is_named(have):
    have("124M")
    assert gpt2.generate(gpt2.start_tf_sess(), model_name="124M", length=3, return_as_list=True)


def test_a_session_that_was_reset_has_no_model(here):
    session = gpt2.reset_session(gpt2.start_tf_sess())
    with pytest.raises(FileNotFoundError, match=r"checkpoint/run1: no such run"):
        gpt2.generate(session)


def test_gpus_are_a_list_of_names():
    assert all(isinstance(name, str) for name in gpt2.get_available_gpus())


def test_threads_can_be_limited(one_thread):
    import torch

    gpt2.start_tf_sess(threads=2)
    assert torch.get_num_threads() == 2
    gpt2.reset_session(gpt2.start_tf_sess(), threads=1)
    assert torch.get_num_threads() == 1


# --- wrong input ---


@pytest.mark.parametrize(("nsamples", "batch_size"), [(3, 2), (1, 0), (1, 2), (0, 1)])
def test_samples_that_make_no_whole_batches_are_refused(texts, nsamples, batch_size):
    with pytest.raises(AssertionError, match="nsamples must be a multiple of batch_size"):
        texts(nsamples=nsamples, batch_size=batch_size)


def test_no_batch_size_is_1(texts):
    assert texts(batch_size=None) == texts()


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ({"prefix": "A" * 1023}, "the prefix has 1,023 tokens, .* at most 1,023 are possible; shorten it"),
        ({"length": 0}, "length must be 1 or more, got 0"),
    ],
)
def test_a_text_that_cannot_be_is_refused(texts, asked, problem):
    with pytest.raises(ValueError, match=problem):
        texts(**asked)


def test_a_refusal_leaves_the_file_of_before(here, texts):
    (here / "out.txt").write_text("before", encoding="utf-8")
    for wrong in ({"temperature": -1}, {"length": 0}, {"nsamples": 0}):
        with pytest.raises(Gpt2kitError):
            texts(destination_path="out.txt", **wrong)
    assert (here / "out.txt").read_text("utf-8") == "before"


def test_a_checkpoint_that_is_not_there_is_named(here, shared):
    shutil.copytree(shared / "fixtures" / "gpt2simple" / "checkpoint", here / "checkpoint")
    with pytest.raises(FileNotFoundError, match=re.escape("model-3")):
        gpt2.load_gpt2(gpt2.start_tf_sess(), checkpoint="model-3")


def test_a_model_that_is_not_there_is_named(here):
    with pytest.raises(FileNotFoundError, match=r"models/355M: no such model; .*download_gpt2\(model_name='355M'\)"):
        gpt2.load_gpt2(gpt2.start_tf_sess(), model_name="355M")


def test_errors_are_those_of_the_command_line_too(texts):
    with pytest.raises(ConfigError):
        texts(nsamples=3, batch_size=2)
