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
UNUSED: Any = Field(default=None, description="Not used.")


class Body(BaseModel):
    """A JSON object whose fields are all known."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())

    _has_few_fields = model_validator(mode="before")(_few)


class StreamOptions(Body):
    """How a stream is told."""

    include_usage: bool = Field(default=False, description="End the stream with a chunk that counts the tokens.")


class Sampling(Body):
    """How tokens are chosen, and when a text ends; the same for completions and chats."""

    prompt_field: ClassVar[str] = "prompt"
    """Where the text to be continued comes from."""

    model: Annotated[str, Field(max_length=1000)] | None = Field(
        default=None, description="The first served where none is named."
    )
    temperature: Annotated[float, Field(ge=0, le=100)] | None = Field(
        default=None, description="0 picks the likeliest; 1."
    )
    top_p: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None, description="Keep this total probability; 1."
    )
    n: Annotated[int, Field(ge=1), WHOLE] | None = Field(default=None, description="Texts for each prompt; 1.")
    stream: bool | None = Field(default=None, description="Tell tokens as they come, as server-sent events.")
    stream_options: StreamOptions | None = Field(default=None, description="What a stream tells besides.")
    stop: StopWords | None = Field(default=None, description="Stop before any of these strings.")
    presence_penalty: Penalty | None = Field(default=None, description="Subtracted from tokens that the text has.")
    frequency_penalty: Penalty | None = Field(default=None, description="The same times how often it has them.")
    logit_bias: Biases | None = Field(
        default=None, description="Added to the logits of these token ids; -100 forbids a token."
    )
    seed: Annotated[int, Field(ge=-(2**63), lt=SEEDS), WHOLE] | None = Field(
        default=None,
        description="Equal seeds give equal texts. One is drawn, and told in the answer, where none is given.",
    )
    # OpenAI's that change nothing here
    user: str | None = UNUSED
    metadata: Labels | None = UNUSED
    store: bool | None = UNUSED
    service_tier: str | None = UNUSED
    safety_identifier: str | None = UNUSED
    prompt_cache_key: str | None = UNUSED
    # vLLM's names
    top_k: Annotated[int, Field(ge=-1, le=2**31), WHOLE] | None = Field(
        default=None, description="Keep the k likeliest; 0 or -1: all."
    )
    min_p: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None, description="Drop what is less likely than this share."
    )
    repetition_penalty: Annotated[float, Field(ge=1e-3, le=1e3)] | None = Field(
        default=None, description="Divides the logits of tokens seen before, prompt included; 1."
    )
    min_tokens: Annotated[int, Field(ge=0), WHOLE] | None = Field(
        default=None, description="No end before so many tokens."
    )
    stop_token_ids: Annotated[list[TokenId], Field(max_length=1000, fail_fast=True)] | None = Field(
        default=None, description="Stop before these."
    )
    include_stop_str_in_output: bool | None = Field(default=None, description="The stop string is part of the text.")
    ignore_eos: bool | None = Field(default=None, description="Go on after <|endoftext|>.")
    bad_words: Annotated[list[StopWord], Field(max_length=1000, fail_fast=True)] | None = Field(
        default=None, description="Strings that the text never holds."
    )
    truncate_prompt_tokens: Annotated[int, Field(ge=-1), WHOLE] | None = Field(
        default=None, description="Keep so many tokens of the prompt; -1: as many as the window holds."
    )
    truncation_side: Literal["left", "right"] | None = Field(default=None, description="left drops the oldest.")
    # ours
    typical_p: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None, description="Locally typical sampling; 1 is off."
    )
    no_repeat_ngram_size: Annotated[int, Field(ge=0, le=2**31), WHOLE] | None = Field(
        default=None, description="No sequence of so many tokens comes twice."
    )
    banned_ids: Annotated[list[TokenId], Field(max_length=100_000, fail_fast=True)] | None = Field(
        default=None, description="Never chosen."
    )
    forced_ids: Annotated[list[TokenId], Field(max_length=100_000, fail_fast=True)] | None = Field(
        default=None, description="The text begins with these token ids."
    )
    until_sentence: bool | None = Field(default=None, description="Stop after the first whole sentence.")
    overflow: Overflow | None = Field(
        default=None,
        description="When the window is full: slide keeps its newest half, stop ends the text, error refuses.",
    )
    chain: Chain | None = Field(default=None, description="standard, or the rules of an old program.")

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

    prompt: Prompts | None = Field(
        default=None, description="Text, token ids, or a list of either; an empty text starts from nothing."
    )
    max_tokens: Annotated[int, Field(ge=0), WHOLE] | None = Field(
        default=None, description="New tokens for each text; 16."
    )
    best_of: Annotated[int, Field(ge=1), WHOLE] | None = Field(
        default=None, description="Write so many, and give the n likeliest."
    )
    logprobs: Annotated[int, Field(ge=0, le=20), WHOLE] | None = Field(
        default=None, description="Tell each token's log-probability, and so many of the likeliest."
    )
    echo: bool | None = Field(default=None, description="The answer begins with the prompt.")
    suffix: Annotated[str, Field(max_length=0)] | None = Field(
        default=None, description="Only empty: GPT-2 writes forwards."
    )
    prompt_logprobs: Annotated[int, Field(ge=0, le=20), WHOLE] | None = Field(
        default=None, description="Tell the likelihood of the prompt's tokens as vLLM does."
    )
    return_token_ids: bool | None = Field(default=None, description="Tell the ids of the prompt and of the text.")
    return_entropy: bool | None = Field(
        default=None, description="With logprobs: how undecided the model was, in nats."
    )
    return_tokens_as_token_ids: bool | None = Field(
        default=None, description="In logprobs, write tokens as token_id:123."
    )
    parse_special: bool | None = Field(
        default=None, description="<|endoftext|> in a prompt is the end token, not text."
    )
    add_special_tokens: bool | None = Field(default=None, description="No effect: GPT-2 adds none.")

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
    max_tokens: Annotated[int, Field(ge=1), WHOLE] | None = Field(default=None, description="New tokens; 256.")
    max_completion_tokens: Annotated[int, Field(ge=1), WHOLE] | None = Field(
        default=None, description="The same, by its newer name."
    )
    logprobs: bool | None = Field(default=None, description="Tell each token's log-probability.")
    top_logprobs: Annotated[int, Field(ge=0, le=20), WHOLE] | None = Field(
        default=None, description="And so many of the likeliest."
    )
    # OpenAI's that must say what is the case anyway
    response_format: PlainText | None = Field(default=None, description="Only text.")
    tools: Nothing | None = Field(default=None, description="Only an empty list: a base model calls no tools.")
    functions: Nothing | None = Field(default=None, description="As tools.")
    tool_choice: Literal["none", "auto"] | None = UNUSED
    function_call: Literal["none", "auto"] | None = UNUSED
    parallel_tool_calls: bool | None = UNUSED
    modalities: list[Literal["text"]] | None = Field(default=None, description="Only text.")

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
    max_length: Annotated[int, Field(ge=1), WHOLE] = Field(
        default=100, description="Tokens, those of the text included."
    )
