"""What may be asked over HTTP: the fields, their defaults and limits. OpenAI's names, then vLLM's, then ours.

A field that is not here is refused, not ignored: whoever writes `temprature` wants to know. Types are strict, so that
the schema at /openapi.json says what is taken: "5" is no number. Unions choose by what is given (`Tag`), so that an
error tells of the member that was meant.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from gpt2kit.config.sampling import Chain, Overflow, SamplingConfig, StopConfig

SEEDS = 2**64
MOST_KEYS = 1000  # pydantic tells of every single one that is wrong, which takes seconds, and everybody waits


def _as_whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _few(value: object) -> object:
    if isinstance(value, dict) and len(value) > MOST_KEYS:
        raise PydanticCustomError("too_many", "may hold {most} at most", {"most": MOST_KEYS})
    return value


def _one_or_several(value: object) -> str | None:
    return "<one>" if isinstance(value, str) else "<several>" if isinstance(value, list) else None


def _text_or_ids(value: object) -> str | None:
    match value:
        case str():
            return "<text>"
        case [str() | list(), *_]:
            return "<several>"
        case list():
            return "<ids>"
    return None


def _chosen_by(kind: Callable[[object], str | None], expected: str) -> Discriminator:
    return Discriminator(kind, custom_error_type="kind", custom_error_message=expected)


FEW = BeforeValidator(_few)
WHOLE = BeforeValidator(_as_whole)  # to JSON 16.0 is the same number as 16
Text = Annotated[str, Field(max_length=10_000_000)]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
Ids = Annotated[list[TokenId], Field(min_length=1, fail_fast=True)]
Prompt = Annotated[
    Annotated[Text, Tag("<text>")] | Annotated[Ids, Tag("<ids>")],
    _chosen_by(_text_or_ids, "must be text or a list of token ids"),
]
Prompts = Annotated[
    Annotated[Text, Tag("<text>")]
    | Annotated[Ids, Tag("<ids>")]
    | Annotated[list[Prompt], Field(min_length=1, fail_fast=True), Tag("<several>")],
    _chosen_by(_text_or_ids, "must be text, a list of token ids, or a list of either"),
]
StopWord = Annotated[str, Field(min_length=1, max_length=1000)]
StopWords = Annotated[
    Annotated[StopWord, Tag("<one>")]
    | Annotated[list[StopWord], Field(max_length=16, fail_fast=True), Tag("<several>")],
    _chosen_by(_one_or_several, "must be text or a list of texts"),
]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Bias = Annotated[float, Field(ge=-100, le=100)]
Biases = Annotated[
    dict[Annotated[str, Field(pattern=r"^[0-9]{1,9}$")], Bias],
    Field(json_schema_extra={"additionalProperties": False, "maxProperties": MOST_KEYS}),
    FEW,
]
Labels = Annotated[dict[str, str], Field(json_schema_extra={"maxProperties": MOST_KEYS}), FEW]
Nothing = Annotated[list[Any], Field(max_length=0)]


def _optional(description: str, default: str | float | bool | None = None) -> Any:
    """A field that may be left out, or null: readers of the schema see what that stands for."""
    return Field(default=None, description=description, json_schema_extra={"default": default})


UNUSED = _optional("Not used.")


class Body(BaseModel):
    """A JSON object whose fields are all known."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())

    _has_few_fields = model_validator(mode="before")(_few)


def _prompt_second(schema: dict[str, Any], request: type[Any]) -> None:
    """The prompt stands right after the model, where readers look for it."""
    fields = schema["properties"]
    schema["properties"] = {name: fields[name] for name in ("model", request.prompt_field)} | fields


class StreamOptions(Body):
    """How a stream is told."""

    include_usage: bool = Field(default=False, description="End the stream with a chunk that counts the tokens.")


class Sampling(Body):
    """How tokens are chosen, and when a text ends; the same for completions and chats."""

    model_config = ConfigDict(json_schema_extra=_prompt_second)
    prompt_field: ClassVar[str] = "prompt"
    """Where the text to be continued comes from."""

    model: Annotated[str, Field(max_length=1000)] | None = _optional("The first served where none is named.")
    temperature: Annotated[float, Field(ge=0, le=100)] | None = _optional("0 picks the likeliest.", 1)
    top_p: Annotated[float, Field(ge=0, le=1)] | None = _optional("Keep this total probability.", 1)
    n: Annotated[int, Field(ge=1, lt=2**31), WHOLE] | None = _optional("Texts for each prompt.", 1)
    stream: bool | None = _optional("Tell tokens as they come, as server-sent events.", False)
    stream_options: StreamOptions | None = _optional("What a stream tells besides.")
    stop: StopWords | None = _optional("Stop before any of these strings.")
    presence_penalty: Penalty | None = _optional("Subtracted from tokens that the text has.", 0)
    frequency_penalty: Penalty | None = _optional("The same times how often it has them.", 0)
    logit_bias: Biases | None = _optional("Added to the logits of these token ids; -100 forbids a token.")
    seed: Annotated[int, Field(ge=-(2**63), lt=SEEDS), WHOLE] | None = _optional(
        "Equal seeds give equal texts. One is drawn, and told in the answer, where none is given."
    )
    # OpenAI's that change nothing here
    user: str | None = UNUSED
    metadata: Labels | None = UNUSED
    store: bool | None = UNUSED
    service_tier: str | None = UNUSED
    safety_identifier: str | None = UNUSED
    prompt_cache_key: str | None = UNUSED
    # vLLM's names
    top_k: Annotated[int, Field(ge=-1, le=2**31), WHOLE] | None = _optional("Keep the k likeliest; 0 or -1: all.", 0)
    min_p: Annotated[float, Field(ge=0, le=1)] | None = _optional("Drop what is less likely than this share.", 0)
    repetition_penalty: Annotated[float, Field(ge=1e-3, le=1e3)] | None = _optional(
        "Divides the logits of tokens seen before, prompt included.", 1
    )
    min_tokens: Annotated[int, Field(ge=0, lt=2**31), WHOLE] | None = _optional("No end before so many tokens.", 0)
    stop_token_ids: Annotated[list[TokenId], Field(max_length=1000, fail_fast=True)] | None = _optional(
        "Stop before these."
    )
    include_stop_str_in_output: bool | None = _optional("The stop string is part of the text.", False)
    ignore_eos: bool | None = _optional("Go on after <|endoftext|>.", False)
    bad_words: Annotated[list[StopWord], Field(max_length=1000, fail_fast=True)] | None = _optional(
        "Strings that the text never holds."
    )
    truncate_prompt_tokens: Annotated[int, Field(ge=-1), WHOLE] | None = _optional(
        "Keep so many tokens of the prompt; -1: as many as the window holds."
    )
    truncation_side: Literal["left", "right"] | None = _optional("left drops the oldest.", "left")
    # ours
    typical_p: Annotated[float, Field(gt=0, le=1)] | None = _optional("Locally typical sampling; 1 is off.", 1)
    no_repeat_ngram_size: Annotated[int, Field(ge=0, le=2**31), WHOLE] | None = _optional(
        "No sequence of so many tokens comes twice.", 0
    )
    banned_ids: Annotated[list[TokenId], Field(max_length=100_000, fail_fast=True)] | None = _optional("Never chosen.")
    forced_ids: Annotated[list[TokenId], Field(max_length=100_000, fail_fast=True)] | None = _optional(
        "The text begins with these token ids."
    )
    until_sentence: bool | None = _optional("Stop after the first whole sentence.", False)
    overflow: Overflow | None = _optional(
        "When the window is full: slide keeps its newest half, stop ends the text, error refuses.", "slide"
    )
    chain: Chain | None = _optional("standard, or the rules of an old program.", "standard")

    @property
    def streamed(self) -> bool:
        """Whether tokens are told as they come."""
        return bool(self.stream)

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """What was given as one string or as several."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    def sampling(self) -> SamplingConfig:
        """What was asked for, in our terms. Raises ConfigError for what contradicts itself."""
        asked: dict[str, Any] = {
            "chain": self.chain,
            "temperature": self.temperature,
            "top_k": None if self.top_k is None else max(self.top_k, 0),
            "top_p": self.top_p,
            "min_p": self.min_p,
            "typical_p": self.typical_p,
            "repetition_penalty": self.repetition_penalty,
            "presence_penalty": self.presence_penalty,
            "frequency_penalty": self.frequency_penalty,
            "no_repeat_ngram": self.no_repeat_ngram_size,
            "banned_words": tuple(self.bad_words or ()),
            "banned_ids": tuple(self.banned_ids or ()),
            "forced_ids": tuple(self.forced_ids or ()),
            "seed": None if self.seed is None else self.seed % SEEDS,
            "logit_bias": {int(id): bias for id, bias in (self.logit_bias or {}).items()},
        }
        return SamplingConfig(**{name: value for name, value in asked.items() if value is not None})

    @property
    def samples_field(self) -> str:
        """Which field tells how many texts."""
        return "n"

    @property
    def tokens_field(self) -> str:
        """Which field tells how many tokens."""
        return "max_tokens"

    def stopping(self, max_new_tokens: int) -> StopConfig:
        """When the text ends, in our terms."""
        return StopConfig(
            max_new_tokens=max_new_tokens,
            min_new_tokens=self.min_tokens or 0,
            stop=self.stop_strings,
            until_sentence=bool(self.until_sentence),
            stop_ids=tuple(self.stop_token_ids or ()),
            ignore_end=bool(self.ignore_eos),
            overflow=self.overflow or "slide",
        )


class CompletionRequest(Sampling):
    """Continue one text or several."""

    prompt: Prompts | None = _optional("Text, token ids, or a list of either; an empty text starts from nothing.", "")
    max_tokens: Annotated[int, Field(ge=0, lt=2**31), WHOLE] | None = _optional("New tokens for each text.", 16)
    best_of: Annotated[int, Field(ge=1, lt=2**31), WHOLE] | None = _optional("Write so many, and give the n likeliest.")
    logprobs: Annotated[int, Field(ge=0, le=20), WHOLE] | None = _optional(
        "Tell each token's log-probability, and so many of the likeliest."
    )
    echo: bool | None = _optional("The answer begins with the prompt.", False)
    suffix: Annotated[str, Field(max_length=0)] | None = _optional("Only empty: GPT-2 writes forwards.")
    prompt_logprobs: Annotated[int, Field(ge=0, le=20), WHOLE] | None = _optional(
        "Tell the likelihood of the prompt's tokens as vLLM does."
    )
    return_token_ids: bool | None = _optional("Tell the ids of the prompt and of the text.", False)
    return_entropy: bool | None = _optional("With logprobs: how undecided the model was, in nats.", False)
    return_tokens_as_token_ids: bool | None = _optional("In logprobs, write tokens as token_id:123.", False)
    parse_special: bool | None = _optional("<|endoftext|> in a prompt is the end token, not text.", False)
    add_special_tokens: bool | None = _optional("No effect: GPT-2 adds none.")

    @property
    def samples_field(self) -> str:
        """best_of where it is given."""
        return "n" if self.best_of is None else "best_of"

    def new_tokens(self, most: int) -> int:
        """How many to write where `most` are allowed; as many as OpenAI's where nothing is said."""
        return min(16, most) if self.max_tokens is None else self.max_tokens


class TextPart(BaseModel):
    """A part of a message."""

    type: Literal["text"]
    text: Text


class Message(BaseModel):
    """Somebody's turn in a chat. Further fields count for nothing: programs send back what they got with an answer."""

    role: Literal["system", "developer", "user", "assistant"]
    content: (
        Annotated[
            Annotated[Text, Tag("<one>")] | Annotated[list[TextPart], Field(fail_fast=True), Tag("<several>")],
            _chosen_by(_one_or_several, "must be text or a list of parts"),
        ]
        | None
    ) = None
    name: str | None = UNUSED

    @property
    def text(self) -> str:
        """Its parts joined."""
        return "".join(part.text for part in self.content) if isinstance(self.content, list) else self.content or ""


class PlainText(BaseModel):
    """The only form of an answer."""

    type: Literal["text"]


class ChatRequest(Sampling):
    """Write the next turn of a chat."""

    prompt_field: ClassVar[str] = "messages"

    messages: Annotated[list[Message], Field(min_length=1, fail_fast=True, description="The turns so far.")]
    max_tokens: Annotated[int, Field(ge=1, lt=2**31), WHOLE] | None = _optional("New tokens.", 256)
    max_completion_tokens: Annotated[int, Field(ge=1, lt=2**31), WHOLE] | None = _optional(
        "The same, by its newer name."
    )
    logprobs: bool | None = _optional("Tell each token's log-probability.", False)
    top_logprobs: Annotated[int, Field(ge=0, le=20), WHOLE] | None = _optional("And so many of the likeliest.")
    # OpenAI's that must say what is the case anyway
    response_format: PlainText | None = _optional("Only text.")
    tools: Nothing | None = _optional("Only an empty list: a base model calls no tools.")
    functions: Nothing | None = _optional("As tools.")
    tool_choice: Literal["none", "auto"] | None = UNUSED
    function_call: Literal["none", "auto"] | None = UNUSED
    parallel_tool_calls: bool | None = UNUSED
    modalities: list[Literal["text"]] | None = _optional("Only text.")

    @property
    def tokens_field(self) -> str:
        """The newer name where it is used."""
        return "max_completion_tokens" if self.max_completion_tokens else "max_tokens"

    def new_tokens(self, most: int) -> int:
        """How many to write where `most` are allowed."""
        return self.max_completion_tokens or self.max_tokens or min(256, most)


class TokenizeRequest(Body):
    """Turn text into token ids."""

    prompt: Text
    model: str | None = None
    add_special_tokens: bool = Field(default=True, description="No effect: GPT-2 adds none.")
    parse_special: bool = Field(  # as at vLLM and llama.cpp, unlike in completions
        default=True, description="<|endoftext|> in it is the end token, not text."
    )
    return_token_strs: bool = False
    return_offsets: bool = Field(default=False, description="Tell how many characters end before each token begins.")


class DetokenizeRequest(Body):
    """Turn token ids into text."""

    tokens: Annotated[list[TokenId], Field(fail_fast=True)]
    model: str | None = None


class GenerateRequest(Body):
    """What the Flask demo of 2021 took."""

    text: Text
    model: str | None = None
    max_length: Annotated[int, Field(ge=1, lt=2**31), WHOLE] = Field(
        default=100, description="Tokens, those of the text included."
    )
