"""POST /v1/completions: JSON in, one JSON answer or a stream of server-sent events out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Request
from starlette.responses import Response

from gpt2kit.config.serving import ServingConfig
from gpt2kit.generate.texts import Piece
from gpt2kit.serve.answers import STREAM, Completion
from gpt2kit.serve.choices import Choice, News, head, usage
from gpt2kit.serve.errors import HttpError
from gpt2kit.serve.logprobs import Logprobs, LogprobsStyle, Offsets, TokenNames, prompt_logprobs
from gpt2kit.serve.models import Model
from gpt2kit.serve.ordering import Order, make_order
from gpt2kit.serve.responses import JobResponse, StreamedJobResponse
from gpt2kit.serve.schema import CompletionRequest

router = APIRouter()


@router.post("/v1/completions", summary="Continue one text or several.", response_model=Completion, responses=STREAM)
async def completions(asked: CompletionRequest, request: Request) -> Response:
    """OpenAI's route, with vLLM's further fields and ours."""
    state = request.app.state
    model: Model = state.models.find(asked.model)
    state.worker.require_room()
    order, texts = await run_sync(_order, asked, model, state.config, limiter=state.readers)
    kind = StreamedJobResponse if asked.streamed else JobResponse
    return kind(request, order, CompletionAnswer(asked, order, texts))


def _order(asked: CompletionRequest, model: Model, config: ServingConfig) -> tuple[Order, list[str]]:
    """The order, and each prompt as the text that `echo` repeats."""
    _refuse_contradictions(asked)
    prompts = [_ids(prompt, asked, model) for prompt in _prompts(asked)]
    order = make_order(
        model,
        asked,
        prompts,
        config,
        max_new_tokens=asked.new_tokens(config.max_tokens),
        samples=asked.best_of or asked.n or 1,
        logprobs=asked.logprobs or 0,
        judge=_judge(asked),
        entropy=bool(asked.return_entropy),
    )
    if not asked.echo:
        return order, [""] * len(prompts)
    told = zip(_prompts(asked), prompts, order.prompts, strict=True)
    return order, [_echo(prompt, ids, read, model) for prompt, ids, read in told]


def _prompts(asked: CompletionRequest) -> Sequence[str | list[int]]:
    match asked.prompt:
        case None:
            return [""]
        case str(text):
            return [text]
        case [int(), *_] as ids:
            return [ids]  # type: ignore[list-item]
        case several:
            return several  # type: ignore[return-value]


def _ids(prompt: str | list[int], asked: CompletionRequest, model: Model) -> list[int]:
    return model.tokenizer.encode(prompt, special=bool(asked.parse_special)) if isinstance(prompt, str) else prompt


def _echo(prompt: str | list[int], ids: list[int], read: Sequence[int], model: Model) -> str:
    """The prompt as text; of one that was cut, what was read."""
    return prompt if isinstance(prompt, str) and len(ids) in (0, len(read)) else model.tokenizer.decode(read)


def _judge(asked: CompletionRequest) -> int | None:
    """How many alternatives to tell for the prompt's own tokens; None where they need not be judged."""
    echoed = asked.logprobs if asked.echo else None
    counts = [count for count in (asked.prompt_logprobs, echoed) if count is not None]
    return max(counts, default=None)


def _refuse_contradictions(asked: CompletionRequest) -> None:
    n, best_of = asked.n or 1, asked.best_of
    if asked.max_tokens == 0 and not (asked.echo or asked.prompt_logprobs is not None):
        raise HttpError(
            400, "max_tokens is 0: nothing is to be written; with echo the prompt itself is told", param="max_tokens"
        )
    if best_of is not None and best_of < n:
        raise HttpError(400, f"best_of is {best_of}, fewer than the {n} texts to choose (n)", param="best_of")
    if best_of is not None and best_of > n and asked.streamed:
        raise HttpError(400, "best_of chooses among whole texts, so it cannot be streamed", param="best_of")


class CompletionAnswer:
    """Pieces of text as OpenAI's completions tell them."""

    def __init__(self, asked: CompletionRequest, order: Order, prompts: Sequence[str]) -> None:
        self._asked, self._order, self._prompts = asked, order, prompts
        self._choices = [Choice(index) for index in range(len(order.requests))]
        names = TokenNames(order.model.tokenizer, bool(asked.return_tokens_as_token_ids))
        self._style = LogprobsStyle(
            names, asked.logprobs or 0, bool(asked.return_token_ids), bool(asked.return_entropy)
        )
        self._logprobs = [Logprobs(self._style, Offsets(order.model.tokenizer)) for _ in self._choices]

    @cached_property
    def _head(self) -> dict[str, object]:
        return head(self._order, "cmpl", "text_completion")  # with the first words: the model is loaded by then

    def take(self, piece: Piece) -> None:
        """Add a piece."""
        self._choices[piece.sample].take(piece)

    def whole(self) -> Response:
        """The answer to a request that waits."""
        # Written choice by choice: in one go, sixty megabytes would halt all other threads for a second.
        told = (_json({**self._told(choice), "index": index}) for index, choice in enumerate(self._best()))
        body = f'{_json(self._head)[:-1]},"choices":[{",".join(told)}],"usage":{_json(self._usage())}}}'
        return Response(body, media_type="application/json")

    def chunk(self, piece: Piece) -> dict[str, Any] | None:
        """Add a piece; what is to be told now, if anything is."""
        self.take(piece)
        if piece.judged:  # told with what follows
            return None
        told = self._told(self._choices[piece.sample])
        return {**self._head, "choices": [told]} if _says_something(told) else None

    def last_chunks(self) -> list[dict[str, Any]]:
        """The count of tokens, if it was asked for."""
        options = self._asked.stream_options
        return [{**self._head, "choices": [], "usage": self._usage()}] if options and options.include_usage else []

    def _best(self) -> Iterable[Choice]:
        """Of each prompt's texts the n likeliest, a token's mean log-probability deciding."""
        n, samples = self._asked.n or 1, self._order.samples
        if n == samples:
            return self._choices
        groups = [self._choices[at : at + samples] for at in range(0, len(self._choices), samples)]
        return [choice for group in groups for choice in sorted(group, key=_mean_logprob, reverse=True)[:n]]

    def _told(self, choice: Choice) -> dict[str, Any]:
        news, asked = choice.tell(), self._asked
        request = self._order.requests[choice.index]
        if asked.max_tokens == 0:
            news = News(reason=news.reason and "length", first=news.first)
        echoed = self._prompts[choice.index // self._order.samples] if news.first else ""
        told = {
            "index": choice.index,
            "text": echoed + news.text,
            "logprobs": None if asked.logprobs is None else self._lists(choice, news, bool(echoed)),
            "finish_reason": news.reason,
        }
        if asked.return_token_ids:
            told["token_ids"] = [token.id for token in news.tokens]
            if news.first:
                told["prompt_token_ids"] = list(request.ids)
        if asked.prompt_logprobs is not None and news.first:
            told["prompt_logprobs"] = prompt_logprobs(request.ids, choice.judged, self._style.names)
        return told

    def _lists(self, choice: Choice, news: News, with_prompt: bool) -> dict[str, list[object]]:
        lists = self._logprobs[choice.index]
        if with_prompt:
            lists.add_first(self._order.requests[choice.index].ids[0])
            for token in choice.judged:
                lists.add(token)
        for token in news.tokens:
            lists.add(token)
        return lists.take()

    def _usage(self) -> dict[str, int]:
        return usage(self._order, 0 if self._asked.max_tokens == 0 else sum(choice.count for choice in self._choices))


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _says_something(told: dict[str, Any]) -> bool:
    lists = told["logprobs"] and told["logprobs"]["tokens"]
    return bool(told["text"] or told["finish_reason"] or lists or told.get("token_ids"))


def _mean_logprob(choice: Choice) -> float:
    return choice.logprob / max(choice.count, 1)
