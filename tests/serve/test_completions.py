import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from gpt2kit.config.sampling import SamplingConfig, StopConfig
from gpt2kit.serve.answers import Completion

HELLO = [
    39,
    68,
    274,
    78,
    261,
    272,
    311,
]  # "Hello world", by Hugging Face's tokenizer: golden/hf-safetensors/encodings.json
LONG = list(range(40)) * 2  # 80 ids; the window is 56
A, B = 32, 33  # any two tokens: this vocabulary begins with !"#, so these are "A" and "B"
END = 319


@pytest.fixture(scope="module")
def write(complete):
    """The one choice of an answer."""

    def written(**body):
        (choice,) = complete(**{"prompt": HELLO, "seed": 1, "return_token_ids": True, **body})["choices"]
        return choice

    return written


# --- prompts ---


def test_the_likeliest_tokens_are_those_that_another_program_chose(golden, write):
    expected = np.load(golden / "hf-safetensors" / "expected.npz")
    prompt, tokens = expected["greedy_prompt"].tolist(), expected["greedy_tokens"][0].tolist()
    choice = write(prompt=prompt, temperature=0, max_tokens=len(tokens) - len(prompt))
    assert (choice["prompt_token_ids"], choice["token_ids"]) == (prompt, tokens[len(prompt) :])


@pytest.mark.parametrize("prompt", ["Hello world", ["Hello world"], HELLO, [HELLO]])
def test_a_prompt_is_text_or_ids_alone_or_in_a_list(write, prompt):
    assert write(prompt=prompt) == write()


def test_choices_are_numbered_prompt_by_prompt(complete, local):
    answer = complete(prompt=["Hello world", [A, B], ""], n=2, seed=3, max_tokens=5)
    expected = [
        text.text
        for prompt in ("Hello world", "AB", None)
        for text in local.generate(
            prompt, samples=2, sampling=SamplingConfig(seed=3), stop=StopConfig(max_new_tokens=5)
        )
    ]
    assert [(choice["index"], choice["text"]) for choice in answer["choices"]] == list(enumerate(expected))


def test_without_a_prompt_a_text_begins(write):
    assert write(prompt="") == write(prompt=None) == write(prompt=[END])


def test_end_of_text_in_a_prompt_is_text_unless_parsed(write):
    prompt = "A<|endoftext|>B"
    assert write(prompt=prompt, parse_special=True)["prompt_token_ids"] == [A, END, B]
    assert END not in write(prompt=prompt)["prompt_token_ids"]


def test_tokens_are_counted_each_prompt_once(complete):
    usage = complete(prompt=["Hello world", "A"], n=3, max_tokens=4, ignore_eos=True)["usage"]
    assert usage == {"prompt_tokens": 8, "completion_tokens": 24, "total_tokens": 32}


def test_sixteen_tokens_come_where_nobody_says_how_many(complete):
    assert complete(ignore_eos=True)["usage"]["completion_tokens"] == 16


def test_an_answer_has_the_shape_it_is_documented_with(complete):
    answer = complete(prompt="A", n=2, logprobs=2, echo=True, return_token_ids=True, return_entropy=True)
    Completion.model_validate(answer, strict=True)
    Completion.model_validate(complete(prompt_logprobs=1), strict=True)
    assert answer["id"].startswith("cmpl-")
    assert answer["model"] == "hf-safetensors"
    assert answer["id"] != complete()["id"]


# --- seeds ---


def test_a_seed_gives_one_text_whatever_else_is_written(complete):
    alone = [complete(prompt="A", seed=seed, max_tokens=12)["choices"][0]["text"] for seed in range(4)]
    assert len(set(alone)) == 4
    with ThreadPoolExecutor(4) as others:
        together = list(others.map(lambda seed: complete(prompt="A", seed=seed, max_tokens=12, n=2), range(4)))
    assert [answer["choices"][0]["text"] for answer in together] == alone


def test_a_seed_that_was_drawn_is_told_and_gives_the_text_again(complete):
    first = complete(prompt="A")
    assert complete(prompt="A", seed=first["seed"])["choices"] == first["choices"]


@pytest.mark.parametrize(("given", "used"), [(0, 0), (2**64 - 1, 2**64 - 1), (-1, 2**64 - 1), (5.0, 5)])
def test_any_64_bits_are_a_seed(complete, given, used):
    assert complete(seed=given, max_tokens=1)["seed"] == used


# --- what each field does ---

SAMPLING = [
    ({"temperature": 0.3}, {"temperature": 0.3}),
    ({"top_k": 3}, {"top_k": 3}),
    ({"top_p": 0.3}, {"top_p": 0.3}),
    ({"min_p": 0.7}, {"min_p": 0.7}),
    ({"typical_p": 0.2}, {"typical_p": 0.2}),
    ({"repetition_penalty": 9}, {"repetition_penalty": 9.0}),
    ({"presence_penalty": 2, "temperature": 0.2}, {"presence_penalty": 2.0, "temperature": 0.2}),
    ({"frequency_penalty": -2, "temperature": 0.2}, {"frequency_penalty": -2.0, "temperature": 0.2}),
    ({"no_repeat_ngram_size": 1, "top_k": 40}, {"no_repeat_ngram": 1, "top_k": 40}),
    ({"logit_bias": {"32": 6, "33": -100}}, {"logit_bias": {A: 6.0, B: -100.0}}),
    ({"bad_words": ["e", "a"]}, {"banned_words": ("e", "a")}),
    ({"banned_ids": list(range(200))}, {"banned_ids": tuple(range(200))}),
    ({"forced_ids": [A, B]}, {"forced_ids": (A, B)}),
    ({"chain": "nshepperd", "top_p": 0.4}, {"chain": "nshepperd", "top_p": 0.4}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("fields", "settings"), SAMPLING, ids=lambda value: "-".join(value))
def test_sampling_over_http_is_sampling_without(write, local, fields, settings):
    stop = StopConfig(max_new_tokens=16, ignore_end=True)
    (expected,) = local.generate("Hello world", sampling=SamplingConfig(seed=1, **settings), stop=stop)
    choice = write(**fields, max_tokens=16, ignore_eos=True)
    assert (choice["text"], tuple(choice["token_ids"])) == (expected.text, expected.ids)
    assert choice["text"] != write(max_tokens=16, ignore_eos=True)["text"]


@pytest.mark.parametrize("off", [{"top_k": -1}, {"top_k": 0}, {"top_p": 1}, {"min_p": 0}, {"stop": []}, {"stop": None}])
def test_what_is_off_changes_nothing(write, off):
    assert write(**off) == write()


def test_a_text_ends_with_the_end_token_unless_told_otherwise(write):
    wanted = {"logit_bias": {str(END): 100}, "max_tokens": 6}
    assert write(**wanted)["finish_reason"] == "stop"
    assert write(**wanted)["text"] == ""
    assert len(write(**wanted, min_tokens=4)["token_ids"]) >= 4
    forever = write(**wanted, ignore_eos=True)
    assert (forever["token_ids"], forever["finish_reason"]) == ([END] * 6, "length")


@pytest.mark.parametrize("several", [False, True])
def test_a_text_ends_before_a_stop_string_or_behind_it(write, several):
    whole = write(max_tokens=30, top_k=20)["text"]
    word = whole[8:11]
    stop = ["never there", word] if several else word
    ended = write(max_tokens=30, top_k=20, stop=stop)
    assert (ended["text"], ended["finish_reason"]) == (whole[: whole.index(word)], "stop")
    kept = write(max_tokens=30, top_k=20, stop=stop, include_stop_str_in_output=True)
    assert kept["text"] == whole[: whole.index(word) + len(word)]


def test_a_text_ends_before_a_stop_token(write):
    ids = write(max_tokens=20)["token_ids"]
    ended = write(max_tokens=20, stop_token_ids=[ids[7]])
    assert (ended["token_ids"][: ids.index(ids[7])], ended["finish_reason"]) == (ids[: ids.index(ids[7])], "stop")
    assert len(ended["token_ids"]) <= ids.index(ids[7]) + 1


def test_a_text_ends_with_its_first_sentence(complete, local):
    full_stop, blank, capital = 13, 220, A
    ended = complete(forced_ids=[A, B, full_stop, blank, capital], until_sentence=True)["choices"][0]
    assert (ended["text"], ended["finish_reason"]) == ("AB.", "stop")


def test_a_text_can_begin_inside_a_character(write, local):
    ids = local.tokenizer.encode("é")
    assert len(ids) == 2
    assert write(forced_ids=ids)["text"].startswith("é")
    assert write(forced_ids=ids[:1], bad_words=["é"])["token_ids"][0] == ids[0]


# --- the window ---


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({"truncate_prompt_tokens": 10}, LONG[-10:]),
        ({"truncate_prompt_tokens": -1}, LONG[-56:]),
        ({"truncate_prompt_tokens": 1000}, LONG[-56:]),
        ({"truncate_prompt_tokens": 10, "truncation_side": "right"}, LONG[:10]),
        ({"truncate_prompt_tokens": -1, "truncation_side": "right"}, LONG[:56]),
    ],
)
def test_a_prompt_is_cut_on_request(write, fields, kept):
    assert write(prompt=LONG, **fields) == write(prompt=kept)


@pytest.mark.parametrize("streamed", [False, True])
def test_a_prompt_beyond_the_window_is_refused_with_counts_before_a_stream_opens(refuse, streamed):
    status, error = refuse(prompt=[A, *LONG], stream=streamed)
    assert (status, error["code"], error["param"]) == (400, "context_length_exceeded", "prompt")
    assert (error["n_prompt_tokens"], error["n_ctx"]) == (81, 56)
    # By these words litellm and others know it.
    assert "This model's maximum context length is 56 tokens" in error["message"]


def test_when_the_window_is_full_it_slides_or_the_text_stops_or_is_refused(complete, refuse, local):
    prompt = LONG[:50]
    slid, stopped = (
        complete(prompt=prompt, max_tokens=20, overflow=overflow, ignore_eos=True) for overflow in ("slide", "stop")
    )
    assert slid["usage"]["completion_tokens"] == 20
    assert stopped["usage"]["completion_tokens"] < 20
    assert stopped["choices"][0]["finish_reason"] == "length"
    status, error = refuse(prompt=prompt, max_tokens=20, overflow="error")
    assert (status, error["code"], error["n_prompt_tokens"], error["n_ctx"]) == (400, "context_length_exceeded", 50, 56)


# --- echo and best_of ---


@pytest.mark.parametrize("prompt", ["Hello world", " 床前明月光 🙂\n", "A\0B", ""])
def test_an_echo_is_the_prompt_and_the_text(write, prompt):
    assert write(prompt=prompt, echo=True)["text"] == prompt + write(prompt=prompt)["text"]


def test_an_echo_alone_writes_nothing(complete):
    answer = complete(prompt=["Hello world", HELLO], echo=True, max_tokens=0)
    assert [(choice["text"], choice["finish_reason"]) for choice in answer["choices"]] == [
        ("Hello world", "length")
    ] * 2
    assert answer["usage"] == {"prompt_tokens": 14, "completion_tokens": 0, "total_tokens": 14}


def test_of_a_prompt_that_was_cut_the_rest_is_echoed(write):
    assert write(prompt="Hello world", echo=True, max_tokens=0, truncate_prompt_tokens=3)["text"] == " world"[-6:]


def test_the_best_of_several_texts_have_the_likeliest_tokens_on_average(complete):
    asked = {"prompt": "A", "seed": 5, "max_tokens": 8, "logprobs": 0}
    four = complete(**asked, n=4)["choices"]
    ranked = sorted(four, key=lambda choice: -np.mean(choice["logprobs"]["token_logprobs"]))
    best = complete(**asked, n=2, best_of=4)
    assert [choice["text"] for choice in best["choices"]] == [choice["text"] for choice in ranked[:2]]
    assert [choice["index"] for choice in best["choices"]] == [0, 1]
    assert best["usage"]["completion_tokens"] == sum(len(choice["logprobs"]["tokens"]) for choice in four)


@pytest.mark.parametrize(
    "fields",
    [
        {"best_of": 2, "n": 3},
        {"best_of": 2, "stream": True},
        {"max_tokens": 0},
        {"min_tokens": 20},
        {"n": 17},
        {"best_of": 17},
    ],
)
def test_what_contradicts_itself_is_refused(refuse, fields):
    status, error = refuse(**fields)
    assert (status, error["param"]) == (400, next(iter(fields)))


def test_fields_of_openai_that_change_nothing_are_taken(complete):
    unused = {"user": "me", "metadata": {"a": "b"}, "store": False, "service_tier": "auto", "suffix": "", "best_of": 1}
    assert complete(**unused, seed=1, stream_options={"include_usage": True})["choices"] == complete(seed=1)["choices"]


def test_text_is_sent_as_it_is_not_escaped(api):
    response = api.post("/v1/completions", json={"prompt": "床 </script>", "echo": True, "max_tokens": 0})
    assert response.headers["content-type"] == "application/json"
    assert "床 </script>".encode() in response.content
    assert json.loads(response.content)["choices"][0]["text"] == "床 </script>"
