"""POST /v1/chat/completions: a chat written out as text, for models that only continue text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from gpt2kit.config.serving import ServingConfig
from gpt2kit.errors import RequestError
from gpt2kit.generate.scheduler import Token
from gpt2kit.generate.texts import Piece
from gpt2kit.serve.answers import CHAT_STREAM, ChatCompletion
from gpt2kit.serve.choices import Choice, News, head, usage
from gpt2kit.serve.errors import HttpError
from gpt2kit.serve.logprobs import LOWEST, TokenNames
from gpt2kit.serve.models import Model
from gpt2kit.serve.ordering import Order, make_order
from gpt2kit.serve.responses import JobResponse, StreamedJobResponse
from gpt2kit.serve.schema import ChatRequest, Message

router = APIRouter()

SPEAKERS = {"user": "User", "assistant": "Assistant"}
TURNS_END = ("\nUser:", "\nAssistant:")


@router.post(
    "/v1/chat/completions",
    summary="Write the next turn of a chat.",
    response_model=ChatCompletion,
    responses=CHAT_STREAM,
)
async def chat(asked: ChatRequest, request: Request) -> Response:
    """OpenAI's route; only where the server was started with --chat-template."""
    state = request.app.state
    model: Model = state.models.find(asked.model)
    if state.config.chat_template == "none":
        raise HttpError(
            400,
            f"{model.name} is a base model without a chat template: it continues text, it does not answer. Ask "
            "/v1/completions, or start the server with --chat-template plain",
            code="no_chat_template",
        )
    if asked.top_logprobs and not asked.logprobs:
        raise HttpError(400, "top_logprobs needs logprobs: true", param="top_logprobs")
    if asked.include_stop_str_in_output:
        problem = "the strings that end a turn are the template's, so they cannot be part of it"
        raise HttpError(400, f"include_stop_str_in_output: {problem}", param="include_stop_str_in_output")
    state.worker.require_room()
    order = await run_sync(_order, asked, model, state.config, limiter=state.readers)
    kind = StreamedJobResponse if asked.streamed else JobResponse
    return kind(request, order, ChatAnswer(asked, order))


def plain_prompt(messages: Sequence[Message]) -> str:
    """The chat as text, up to where the assistant's next turn begins.

    What the system says stands in front as it is. A last message of the assistant's is gone on with.
    """
    turns = [
        f"{SPEAKERS[message.role]}: {message.text}\n" if message.role in SPEAKERS else f"{message.text}\n\n"
        for message in messages
    ]
    text = "".join(turns)
    return text.removesuffix("\n") if messages[-1].role == "assistant" else f"{text}Assistant:"


def _order(asked: ChatRequest, model: Model, config: ServingConfig) -> Order:
    stop = (*asked.stop_strings, *TURNS_END)
    return make_order(
        model,
        asked.model_copy(update={"stop": list(stop)}),
        [model.tokenizer.encode(plain_prompt(asked.messages))],
        config,
        max_new_tokens=asked.new_tokens(config.max_tokens),
        samples=asked.n or 1,
        logprobs=asked.top_logprobs or 0,
    )


class ChatAnswer:
    """Pieces of text as OpenAI's chats tell them."""

    def __init__(self, asked: ChatRequest, order: Order) -> None:
        self._asked, self._order = asked, order
        self._choices = [Choice(index) for index in range(len(order.requests))]
        self._names = TokenNames(order.model.tokenizer)
        goes_on = asked.messages[-1].role == "assistant"
        self._silent = set() if goes_on else {choice.index for choice in self._choices}  # only blanks so far

    @cached_property
    def _head(self) -> dict[str, object]:
        kind = "chat.completion.chunk" if self._asked.streamed else "chat.completion"
        return head(self._order, "chatcmpl", kind)  # with the first words: the model is loaded by then

    def take(self, piece: Piece) -> None:
        """Add a piece."""
        self._choices[piece.sample].take(piece)

    def whole(self) -> Response:
        """The answer to a request that waits."""
        choices = [
            {
                "index": choice.index,
                "message": {"role": "assistant", "content": self._text(choice, news), "refusal": None},
                "logprobs": self._logprobs(news),
                "finish_reason": news.reason,
            }
            for choice in self._choices
            for news in [choice.tell()]
        ]
        return JSONResponse({**self._head, "choices": choices, "usage": self._usage()})

    def chunk(self, piece: Piece) -> dict[str, Any] | None:
        """Add a piece; what is to be told now, if anything is."""
        self.take(piece)
        choice = self._choices[piece.sample]
        news = choice.tell()
        delta: dict[str, str] = {"role": "assistant", "content": ""} if news.first else {}
        if text := self._text(choice, news):
            delta["content"] = text
        logprobs = self._logprobs(news)
        if not (delta or logprobs or news.reason):
            return None
        entry = {"index": choice.index, "delta": delta, "logprobs": logprobs, "finish_reason": news.reason}
        return {**self._head, "choices": [entry]}

    def last_chunks(self) -> list[dict[str, Any]]:
        """The count of tokens, if it was asked for."""
        options = self._asked.stream_options
        return [{**self._head, "choices": [], "usage": self._usage()}] if options and options.include_usage else []

    def _text(self, choice: Choice, news: News) -> str:
        """What is new, without the blanks that a turn begins with."""
        if choice.index not in self._silent:
            return news.text
        if text := news.text.lstrip():
            self._silent.remove(choice.index)
        return text

    def _logprobs(self, news: News) -> dict[str, Any] | None:
        if not self._asked.logprobs:
            return None
        return {"content": [self._entry(token) for token in news.tokens], "refusal": None}

    def _entry(self, token: Token) -> dict[str, Any]:
        top = [self._named(id, logprob) for id, logprob in token.top]
        return {**self._named(token.id, token.logprob), "top_logprobs": top}

    def _named(self, id: int, logprob: float) -> dict[str, Any]:
        try:
            content = list(self._order.model.tokenizer.bytes_of(id))
        except RequestError:  # padding of the vocabulary
            content = None
        return {"token": self._names(id), "logprob": max(logprob, LOWEST), "bytes": content}

    def _usage(self) -> dict[str, int]:
        return usage(self._order, sum(choice.count for choice in self._choices))
