"""Programs that know OpenAI's interface, asked what they make of a running server."""

import json
import math
import subprocess

import numpy as np
import pytest

from gpt2kit.jobs.evaluate import evaluate

pytestmark = [pytest.mark.slow, pytest.mark.judges]

OPENAI = {"openai 3": "clients", "openai 2": "clients-2"}
SAMPLED = {"prompt": "It is ", "max_tokens": 12, "temperature": 1, "seed": 7}
NEW = 24  # tokens that the golden continuation adds to its prompt


@pytest.fixture(scope="module")
def tiny(golden):
    return golden / "hf-safetensors"


@pytest.fixture(scope="module")
def address(serve, tiny):
    return serve(tiny)


@pytest.fixture(scope="module")
def expected(tiny):
    return np.load(tiny / "expected.npz")


@pytest.fixture(params=OPENAI)
def openai(request, consult):
    """openai(question, address, **fields), in each version of the package."""
    return lambda question, *words, **fields: consult(
        OPENAI[request.param], "clients_openai.py", question, *words, **fields
    )


@pytest.fixture
def greedy(expected):
    """What another program made the likeliest continuation of, as the fields of a request, and the ids expected."""
    prompt, tokens = expected["greedy_prompt"].tolist(), expected["greedy_tokens"][0].tolist()
    fields = {"prompt": prompt, "temperature": 0, "max_tokens": NEW, "extra_body": {"return_token_ids": True}}
    return fields, tokens[len(prompt) :]


@pytest.mark.parametrize("question", ["completion", "async_completion"])
def test_openai_gets_the_likeliest_continuation(openai, address, greedy, question):
    fields, ids = greedy
    [choice] = openai(question, address, **fields)["choices"]
    assert choice["token_ids"] == ids
    assert choice["finish_reason"] == "length"


@pytest.mark.parametrize("question", ["stream", "async_stream"])
def test_openai_streams_the_same_text(openai, address, question):
    whole = openai("completion", address, **SAMPLED)
    *chunks, last = openai(question, address, **SAMPLED, stream_options={"include_usage": True})
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == whole["choices"][0]["text"]
    assert [c["choices"][0]["finish_reason"] for c in chunks if c["choices"][0]["finish_reason"]] == ["length"]
    assert (last["choices"], last["usage"]) == ([], whole["usage"])


def test_openai_gets_the_texts_of_many_prompts_in_order(openai, address):
    several = openai("completion", address, prompt=["One ", "two "], n=2, max_tokens=8, seed=1)
    assert [choice["index"] for choice in several["choices"]] == [0, 1, 2, 3]
    texts = [choice["text"] for choice in several["choices"]]
    alone = [openai("completion", address, prompt=prompt, n=2, max_tokens=8, seed=1) for prompt in ("One ", "two ")]
    assert texts == [choice["text"] for answer in alone for choice in answer["choices"]]
    assert len(set(texts)) == 4


def test_openai_gets_the_best_of_several(openai, address):
    fields = {"prompt": "It is ", "max_tokens": 8, "seed": 3, "logprobs": 0}
    [best] = openai("completion", address, best_of=4, n=1, **fields)["choices"]
    four = openai("completion", address, n=4, **fields)["choices"]
    assert best["text"] == max(four, key=lambda choice: np.mean(choice["logprobs"]["token_logprobs"]))["text"]


def test_openai_reads_the_prompts_logprobs(openai, address, expected):
    ids, logits = expected["tokens_0"][0], expected["logits_0"][0].astype(np.float64)
    wanted = logits - expected["logsumexp_0"][0][:, None]
    [choice] = openai("completion", address, prompt=ids.tolist(), echo=True, logprobs=3, max_tokens=0, temperature=0)[
        "choices"
    ]
    first, *others = choice["logprobs"]["token_logprobs"]
    assert first is None
    np.testing.assert_allclose(others, wanted[np.arange(len(ids) - 1), ids[1:]], atol=1e-4)
    for likeliest, row in zip(choice["logprobs"]["top_logprobs"][1:], wanted, strict=False):
        np.testing.assert_allclose(sorted(likeliest.values())[-3:], np.sort(row)[-3:], atol=1e-4)


def test_a_seed_tells_the_text(openai, address):
    first, again, other = (openai("completion", address, **{**SAMPLED, "seed": seed}) for seed in (7, 7, 8))
    assert first["choices"] == again["choices"] != other["choices"]


@pytest.mark.parametrize("question", ["closed_stream", "closed_async_stream"])
def test_a_stream_that_openai_closes_is_written_no_further(openai, address, question):
    writing, seconds = openai(question, address)
    assert writing == 1
    assert seconds < 1


def test_a_text_that_openai_stops_waiting_for_is_written_no_further(openai, address):
    assert openai("impatience", address) < 1


REFUSALS = {
    "temperature": ({"prompt": "a", "temperature": -1}, "BadRequestError", 400, "temperature"),
    "too long": ({"prompt": "a" * 600}, "BadRequestError", 400, "prompt"),
    "unknown field": ({"prompt": "a", "extra_body": {"temprature": 1}}, "BadRequestError", 400, "temprature"),
    "unknown model": ({"prompt": "a", "model": "gpt-5"}, "NotFoundError", 404, "model"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_openai_raises_the_right_error_and_asks_once(openai, address, case):
    fields, exception, status, param = REFUSALS[case]
    told = openai("refusal", address, **fields)
    assert (told["exception"], told["status_code"], told["param"]) == (exception, status, param)
    assert told["requests"] == 1


def test_openai_is_told_how_much_too_long_a_prompt_is(openai, address):
    told = openai("refusal", address, prompt=list(range(60)))
    assert told["code"] == "context_length_exceeded"
    assert (told["body"]["n_prompt_tokens"], told["body"]["n_ctx"]) == (60, 56)


def test_openai_is_asked_for_the_key(openai, serve, tiny):
    locked = serve(tiny, "--api-key", "open-sesame")
    assert openai("refusal", locked, prompt="a", key="wrong")["exception"] == "AuthenticationError"
    assert openai("refusal", locked, prompt="a", key="open-sesame")["exception"] is None


def test_openai_comes_back_to_a_full_server_as_often_and_as_late_as_it_is_told(openai, serve, tiny):
    small = serve(tiny, "--slots", "1", "--queue", "1")
    told = openai("crowd", small, prompt="a", retries=2)
    assert (told["exception"], told["requests"]) == ("RateLimitError", 3)
    assert min(told["waits"]) >= float(told["retry_after"]) > 0


def test_openai_chats_where_a_template_is_given(openai, address, serve, tiny):
    fields = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8, "seed": 1}
    chatting = serve(tiny, "--chat-template", "plain")
    [choice] = openai("chat", chatting, **fields)["choices"]
    pieces = [chunk["choices"][0]["delta"] for chunk in openai("chat_stream", chatting, **fields)]
    assert choice["message"]["role"] == pieces[0]["role"] == "assistant"
    assert "".join(piece["content"] or "" for piece in pieces) == choice["message"]["content"] != ""
    told = openai("refusal", address, method="chat", **fields)
    assert told["exception"] == "BadRequestError"
    assert "--chat-template" in told["message"]


def test_openai_lists_the_models(openai, address):
    listed, one = openai("models", address)
    assert listed["data"] == [one]
    assert one["id"] == "hf-safetensors"


@pytest.fixture
def langchain(consult, address):
    return lambda question, **fields: consult("clients", "clients_langchain.py", question, address, **fields)


def test_langchain_invokes_streams_and_batches(langchain, openai_text):
    sampling = {"max_tokens": 12, "temperature": 1, "seed": 7}
    whole = langchain("invoke", asked="It is ", **sampling)
    assert whole == openai_text(SAMPLED)
    assert "".join(langchain("stream", asked="It is ", **sampling)) == whole
    assert langchain("batch", asked=["It is ", "One "], **sampling) == [
        whole,
        openai_text({**SAMPLED, "prompt": "One "}),
    ]


def test_langchain_gets_the_best_of_several(langchain):
    best = langchain("generate", asked=["It is "], max_tokens=8, seed=3, best_of=4, n=2)
    assert len(best["generations"][0]) == 2
    assert best["llm_output"]["token_usage"]["completion_tokens"] == 4 * 8


@pytest.fixture
def openai_text(consult, address):
    def text(fields):
        return consult("clients", "clients_openai.py", "completion", address, **fields)["choices"][0]["text"]

    return text


def test_litellm_completes_and_streams(consult, address, openai_text):
    def asked(question):
        return consult("clients-2", "clients_litellm.py", question, address, **SAMPLED)

    texts = [asked(question)["choices"][0]["text"] for question in ("completion", "async_completion")]
    streamed = "".join(chunk["choices"][0]["text"] or "" for chunk in asked("stream"))
    assert {*texts, streamed} == {openai_text(SAMPLED)}


def test_litellm_knows_that_a_prompt_is_too_long(consult, address):
    told = consult("clients-2", "clients_litellm.py", "refusal", address, prompt="a" * 600)
    assert told["exception"] == "ContextWindowExceededError"


@pytest.mark.parametrize("how", [[], ["--no-stream"]], ids=["stream", "whole"])
def test_llm_writes_on_the_command_line(client_programs, clean_environment, address, openai_text, tmp_path, how):
    model = {"model_id": "tiny", "model_name": "hf-safetensors", "api_base": f"{address}/v1", "completion": True}
    (tmp_path / "extra-openai-models.yaml").write_text(json.dumps([model]), "utf-8")  # JSON is YAML
    fields = [word for name in ("max_tokens", "temperature", "seed") for word in ("-o", name, str(SAMPLED[name]))]
    done = subprocess.run(
        [client_programs("clients") / "llm", "-m", "tiny", *how, *fields, SAMPLED["prompt"]],
        env={**clean_environment, "LLM_USER_PATH": str(tmp_path)},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.stdout == openai_text(SAMPLED) + "\n", done.stderr


DOCUMENTS = ["It is one of the two.", "The first\n of them\n\n is here .", "naïve 字"]
TASKS = {
    "documents": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": metric} for metric in ("word_perplexity", "byte_perplexity", "bits_per_byte")],
    },
    "choices": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{text}}",
        "doc_to_choice": ["one", "two", "three"],
        "doc_to_target": 1,
        "metric_list": [{"metric": "acc"}],
    },
    "continuations": {
        "output_type": "generate_until",
        "doc_to_text": "{{text}}",
        "doc_to_target": "x",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 8},
        "metric_list": [{"metric": "exact_match"}],
    },
}


@pytest.fixture
def lm_eval(client_programs, clean_environment, address, tmp_path):
    """lm_eval(task): its figures for DOCUMENTS, asked through the server alone."""

    def figures(task):
        lines = [json.dumps({"text": text}) + "\n" for text in DOCUMENTS]
        (tmp_path / "documents.jsonl").write_text("".join(lines), "utf-8")
        data = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(tmp_path / "documents.jsonl")}}}
        (tmp_path / "task.yaml").write_text(json.dumps({"task": task, **data, "test_split": "test", **TASKS[task]}))
        options = f"model=hf-safetensors,base_url={address}/v1/completions,tokenizer_backend=remote,max_length=56"
        done = subprocess.run(
            [
                *(client_programs("lm-eval") / "lm-eval", "run", "--model", "local-completions"),
                *("--model_args", options, "--batch_size", "2"),
                *("--tasks", tmp_path / "task.yaml", "--output_path", tmp_path / "figures.json"),
            ],
            env={**clean_environment, "HF_HOME": str(tmp_path / "cache")},
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        [written] = tmp_path.glob("figures*.json")
        return json.loads(written.read_text("utf-8"))["results"][task]

    return figures


def test_lm_eval_finds_the_perplexity_that_gpt2_evaluate_finds(lm_eval, tiny, tmp_path):
    """Each document follows the end token, in both; one longer than the window would be cut in two ways."""
    ours = []
    for number, document in enumerate(DOCUMENTS):
        (tmp_path / f"{number}.txt").write_text(document, "utf-8")
        ours.append(evaluate(tiny, tmp_path / f"{number}.txt"))
    nll, size = sum(one.nll for one in ours), sum(one.bytes for one in ours)
    theirs = lm_eval("documents")
    assert theirs["bits_per_byte,none"] == pytest.approx(nll / size / math.log(2), rel=1e-4)
    assert theirs["byte_perplexity,none"] == pytest.approx(math.exp(nll / size), rel=1e-4)
    words = sum(len(document.split()) for document in DOCUMENTS)
    assert theirs["word_perplexity,none"] == pytest.approx(math.exp(nll / words), rel=1e-4)


@pytest.mark.parametrize("task", ["choices", "continuations"])
def test_lm_eval_works_through_other_tasks(lm_eval, task):
    assert lm_eval(task)
