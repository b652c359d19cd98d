import pytest

from gpt2kit.serve.answers import ChatCompletion

HI = [{"role": "user", "content": "Hi"}]
PATH = "/v1/chat/completions"


@pytest.fixture(scope="module")
def chat(ask):
    """The one choice of an answer."""

    def chatted(messages=HI, **body):
        (choice,) = ask(PATH, messages=messages, **{"seed": 1, "max_tokens": 20, **body})["choices"]
        return choice

    return chatted


@pytest.fixture(scope="module")
def continued(complete):
    """What /v1/completions writes after a prompt, up to the next turn."""

    def written(prompt, **body):
        stop = ["\nUser:", "\nAssistant:"]
        (choice,) = complete(**{"prompt": prompt, "seed": 1, "max_tokens": 20, "stop": stop, **body})["choices"]
        return choice

    return written


# --- messages become text ---


@pytest.mark.parametrize(
    ("messages", "prompt"),
    [
        (HI, "User: Hi\nAssistant:"),
        (
            [{"role": "user", "content": [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]}],
            "User: Hi\nAssistant:",
        ),
        ([{"role": "system", "content": "Be."}, *HI], "Be.\n\nUser: Hi\nAssistant:"),
        ([{"role": "developer", "content": "Be."}, *HI], "Be.\n\nUser: Hi\nAssistant:"),
        (
            [*HI, {"role": "assistant", "content": "Yo", "refusal": None}, *HI],
            "User: Hi\nAssistant: Yo\nUser: Hi\nAssistant:",
        ),
        ([*HI, {"role": "assistant", "content": None}, *HI], "User: Hi\nAssistant: \nUser: Hi\nAssistant:"),
    ],
)
def test_a_chat_is_written_out_as_turns(chat, continued, messages, prompt):
    choice, expected = chat(messages), continued(prompt)
    assert choice["message"] == {"role": "assistant", "content": expected["text"].lstrip(), "refusal": None}
    assert choice["finish_reason"] == expected["finish_reason"]


def test_a_last_turn_of_the_assistant_is_gone_on_with(chat, continued):
    messages = [*HI, {"role": "assistant", "content": "Yo,\n"}]
    assert chat(messages)["message"]["content"] == continued("User: Hi\nAssistant: Yo,\n")["text"]


@pytest.mark.parametrize("blanks", [" ", "\n\n ", " \n"])
@pytest.mark.parametrize(
    "last", [HI, [*HI, {"role": "assistant", "content": "Yo"}]], ids=["a new turn", "gone on with"]
)
def test_the_blanks_before_a_turn_are_left_out_whole_or_streamed(local, chat, stream, blanks, last):
    fields = {"forced_ids": local.tokenizer.encode(f"{blanks}A  \n"), "seed": 1, "max_tokens": 12}
    content = chat(last, **fields)["message"]["content"]
    assert content.startswith("A  \n" if last is HI else f"{blanks}A  \n")
    deltas = [choice["delta"] for chunk in stream(PATH, messages=last, **fields) for choice in chunk["choices"]]
    assert "".join(delta.get("content", "") for delta in deltas) == content


@pytest.mark.parametrize("speaker", ["User", "Assistant"])
def test_a_turn_ends_where_the_next_begins(local, chat, speaker):
    choice = chat(forced_ids=local.tokenizer.encode(f" Yo!\n{speaker}: Hi"), max_tokens=40)
    assert (choice["message"]["content"], choice["finish_reason"]) == ("Yo!", "stop")


def test_stop_strings_of_the_caller_count_as_well(local, chat):
    ids = local.tokenizer.encode(" Yo! Ho")
    assert chat(forced_ids=ids, stop="! H", max_tokens=40)["message"]["content"] == "Yo"


# --- the answer ---


def test_an_answer_has_the_shape_it_is_documented_with(ask):
    answer = ask(PATH, messages=HI, n=2, logprobs=True, top_logprobs=2, max_completion_tokens=4, ignore_eos=True)
    ChatCompletion.model_validate(answer, strict=True)
    prompt = ask("/tokenize", prompt="User: Hi\nAssistant:")["count"]
    assert answer["usage"] == {"prompt_tokens": prompt, "completion_tokens": 8, "total_tokens": prompt + 8}
    assert answer["id"].startswith("chatcmpl-")


def test_logprobs_have_openais_shape_for_chats(chat):
    choice = chat(logprobs=True, top_logprobs=3, temperature=0)
    for entry in choice["logprobs"]["content"]:
        assert entry["logprob"] == entry["top_logprobs"][0]["logprob"]
        assert entry["token"] == entry["top_logprobs"][0]["token"]
        assert len(entry["top_logprobs"]) == 3
        if not entry["token"].startswith("bytes:"):
            assert bytes(entry["bytes"]).decode() == entry["token"]
    assert chat()["logprobs"] is None


def test_a_stream_begins_with_the_role_and_adds_up_to_the_whole(chat, stream):
    fields = {"messages": HI, "seed": 1, "max_tokens": 20, "logprobs": True, "top_logprobs": 1}
    *chunks, usage = stream(PATH, **fields, stream_options={"include_usage": True})
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    whole = chat(**fields)
    assert choices[0]["delta"]["role"] == "assistant"
    assert not any("role" in choice["delta"] for choice in choices[1:])
    assert "".join(choice["delta"].get("content", "") for choice in choices) == whole["message"]["content"]
    entries = [entry for choice in choices for entry in choice["logprobs"]["content"]]
    assert entries == whole["logprobs"]["content"]
    assert [c["finish_reason"] for c in choices] == [None] * (len(choices) - 1) + [whole["finish_reason"]]
    assert (usage["choices"], usage["usage"]["completion_tokens"]) == ([], len(entries))
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}


def test_what_front_ends_send_is_taken(ask):
    answer = ask(
        PATH,
        messages=[{"role": "user", "content": "Hi", "id": "1", "parentMessageId": None}],
        **{"model": "hf-safetensors", "max_tokens": 8, "top_p": 1, "presence_penalty": 1, "temperature": 0.8},
        **{"tools": [], "functions": None, "tool_choice": "auto", "parallel_tool_calls": True, "store": False},
        **{"response_format": {"type": "text"}, "service_tier": "auto", "modalities": ["text"], "user": "me", "n": 1},
    )
    assert answer["object"] == "chat.completion"


# --- refusals ---


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"response_format": {"type": "json_object"}}, "response_format.type"),
        ({"modalities": ["audio"]}, "modalities[0]"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"include_stop_str_in_output": True}, "include_stop_str_in_output"),
        ({"max_completion_tokens": 1_000_000}, "max_completion_tokens"),
        ({"max_tokens": 1_000_000}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": "Hi"}, "messages"),
        ({"messages": ["Hi"]}, "messages[0]"),
        ({"messages": [{"content": "Hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "tool", "content": "Hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": "A" * 100}]}, "messages"),
    ],
)
def test_what_would_change_the_meaning_is_refused(refuse, fields, param):
    status, error = refuse(PATH, **{"messages": HI, **fields})
    assert (status, error["param"]) == (400, param)


def test_messages_are_missed(refuse):
    assert refuse(PATH)[1]["message"] == "messages is missing"


def test_a_model_without_a_template_does_not_chat_and_says_what_helps(golden, client_of):
    with client_of(golden / "hf-safetensors") as client:
        response = client.post(PATH, json={"messages": HI})
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (400, "no_chat_template")
    assert "--chat-template plain" in error["message"]
    assert "/v1/completions" in error["message"]
