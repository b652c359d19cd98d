"""What is answered, for /openapi.json. Long answers are written by hand where they arise; tests hold them to this."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from gpt2kit.generate.texts import EndReason


class Answer(BaseModel):
    """A JSON object whose fields are all known."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class ErrorTold(BaseModel):
    """What went wrong; further fields hold counts."""

    message: str
    type: str
    param: str | None = Field(description="The field of the request that is at fault.")
    code: str | None = Field(description="What programs can go by, such as context_length_exceeded.")


class ErrorAnswer(Answer):
    """OpenAI's shape, whatever the error."""

    error: ErrorTold


ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorAnswer, "description": "Refused; to ask the same again only helps after a 429."},
    "5XX": {"model": ErrorAnswer, "description": "503: not now, such as while a model is loaded. 504: not in time."},
}
EVENT = {"type": "object", "required": ["data"], "properties": {"data": {"type": "string"}}}


def _streamed(shape: str) -> dict[int | str, dict[str, Any]]:
    told = (
        f"The answer; with stream, events (`data: ...`) {shape}, each with what is new, and `data: [DONE]` at the end."
    )
    return {200: {"description": told, "content": {"text/event-stream": {"schema": EVENT}}}}


STREAM = _streamed("of the same shape")
CHAT_STREAM = _streamed("of the kind chat.completion.chunk, with a delta in place of the message")


class Usage(Answer):
    """Tokens read and written."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class LogprobLists(Answer):
    """An entry for each token in every list."""

    tokens: list[str] = Field(description="What is no whole text is written bytes:\\xe4.")
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int] = Field(description="Where each begins in the text of the choice, in characters.")
    token_ids: list[int] | None = None
    top_token_ids: list[list[int]] | None = Field(default=None, description="In the order of top_logprobs.")
    entropy: list[float | None] | None = Field(default=None, description="In nats.")


class PromptLogprob(Answer):
    """One token in a place of the prompt."""

    logprob: float
    decoded_token: str


class TextChoice(Answer):
    """One continuation of a prompt."""

    index: int = Field(description="Prompt number * n + number of the text.")
    text: str
    logprobs: LogprobLists | None
    finish_reason: EndReason | None
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None
    prompt_logprobs: list[dict[str, PromptLogprob] | None] | None = Field(
        default=None, description="For each token of the prompt, by id."
    )


class Completion(Answer):
    """Texts, and what they took."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    seed: int = Field(description="The one that was used.")
    choices: list[TextChoice]
    usage: Usage | None = None


class ChatAlternative(Answer):
    """A token and how likely it was."""

    token: str
    logprob: float
    bytes: list[int] | None


class ChatToken(ChatAlternative):
    """A token of the text, and what else might have stood there."""

    top_logprobs: list[ChatAlternative]


class ChatLogprobs(Answer):
    """Of every token of a turn."""

    content: list[ChatToken]
    refusal: None


class ChatMessage(Answer):
    """The assistant's turn."""

    role: Literal["assistant"]
    content: str
    refusal: None


class ChatChoice(Answer):
    """One answer to a chat."""

    index: int
    message: ChatMessage
    logprobs: ChatLogprobs | None
    finish_reason: EndReason | None


class ChatCompletion(Answer):
    """Turns, and what they took."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    seed: int = Field(description="The one that was used.")
    choices: list[ChatChoice]
    usage: Usage


class ServedModel(Answer):
    """A model that can be asked."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["gpt2kit"] = "gpt2kit"
    max_model_len: int = Field(description="Tokens it sees at once.")
    parameters: int
    loaded: bool = Field(description="Whether it is in memory.")


class ServedModels(Answer):
    """Every model served here."""

    object: Literal["list"] = "list"
    data: list[ServedModel]


class Status(Answer):
    """All is well."""

    status: Literal["ok"] = "ok"


class Version(Answer):
    """Of gpt2kit."""

    version: str


class Limits(Answer):
    """How much one request may ask for."""

    max_body: int = Field(description="In bytes.")
    max_prompts: int
    max_n: int
    max_tokens: int
    deadline: float = Field(description="In seconds.")
    slots: int = Field(description="Texts written at once.")
    queue: int = Field(description="Requests that may wait.")


class Info(Answer):
    """What this server is."""

    version: str
    engine: str
    device: str
    default_model: str
    chat_template: Literal["none", "plain"]
    limits: Limits


class Tokenized(Answer):
    """The tokens of a text."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = None
    offsets: list[int] | None = None


class Detokenized(Answer):
    """The text of tokens."""

    prompt: str


class TokenizerInfo(Answer):
    """What the tokenizer is."""

    tokenizer_class: Literal["GPT2Tokenizer", "BertTokenizer", "Characters"]
    vocab_size: int
    model_max_length: int
    bos_token: str | None
    eos_token: str | None
    unk_token: str | None
    eos_token_id: int | None
    chat_template: None


class Generated(Answer):
    """The text and what follows it."""

    generated_text: str
