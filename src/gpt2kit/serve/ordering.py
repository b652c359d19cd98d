"""From a request's JSON to an order for the worker: prompts into ids, limits kept, everything refused that must be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

from gpt2kit.config.serving import ServingConfig
from gpt2kit.errors import PromptTooLong, RequestError
from gpt2kit.generate.scheduler import Request
from gpt2kit.generate.texts import Task
from gpt2kit.serve.errors import HttpError
from gpt2kit.serve.models import Model
from gpt2kit.serve.schema import Sampling


@dataclass(frozen=True, eq=False)
class Order:
    """What one HTTP request wants written."""

    model: Model
    task: Task
    samples: int
    """Texts for each prompt."""
    requests: tuple[Request, ...]
    """One a text, the samples of one prompt side by side; a piece's `sample` is the place of its text in here."""

    @property
    def prompts(self) -> list[tuple[int, ...]]:
        """The ids of each prompt, as they are read."""
        return [request.ids for request in self.requests[:: self.samples]]


def make_order(
    model: Model,
    asked: Sampling,
    prompts: Sequence[Sequence[int]],
    config: ServingConfig,
    *,
    max_new_tokens: int,
    samples: int,
    logprobs: int = 0,
    judge: int | None = None,
    entropy: bool = False,
) -> Order:
    """The order for `samples` texts of each prompt.

    Raises:
        HttpError: a limit of the server, or the window of the model, is passed; settings contradict each other.
    """
    _require_within(len(prompts), config.max_prompts, asked.prompt_field, "prompts")
    _require_within(samples, config.max_n, asked.samples_field, "texts for each prompt")
    _require_within(max_new_tokens, config.max_tokens, asked.tokens_field, "new tokens")
    if (asked.min_tokens or 0) > max_new_tokens:
        raise HttpError(
            400,
            f"min_tokens is {asked.min_tokens}, more than {asked.tokens_field} ({max_new_tokens})",
            param="min_tokens",
        )
    require_known_ids(model, asked.prompt_field, chain(*prompts))
    require_known_ids(model, "logit_bias", map(int, asked.logit_bias or ()))
    for param in ("banned_ids", "forced_ids", "stop_token_ids"):
        require_known_ids(model, param, getattr(asked, param) or ())
    task = model.requests.task(
        asked.sampling(),
        asked.stopping(max(max_new_tokens, 1)),
        logprobs=logprobs,
        judge=judge,
        entropy=entropy,
        keep_stop=bool(asked.include_stop_str_in_output),
    )
    found = [tuple(_fitting(ids, asked, model)) for ids in prompts]  # samples share them
    try:
        requests = [model.requests.request(task, ids, sample) for ids in found for sample in range(samples)]
    except PromptTooLong as error:
        raise _too_long(max(map(len, found)), model, asked, str(error)) from None
    return Order(model, task, samples, tuple(requests))


def require_known_ids(model: Model, param: str, ids: Iterable[int]) -> None:
    """Raise HttpError for ids that stand for no text, as those beyond the vocabulary."""
    for id in set(ids):
        try:
            model.tokenizer.bytes_of(id)
        except RequestError:
            last = model.tokenizer.vocab_size - 1
            problem = f"{param}: there is no token id {id}; the ids of {model.name} are 0 to {last}"
            raise HttpError(400, problem, param=param) from None


def _require_within(count: int, most: int, param: str, what: str) -> None:
    if count > most:
        raise HttpError(400, f"{count:,} {what} were asked for; this server allows {most:,}", param=param)


def _fitting(ids: Sequence[int], asked: Sampling, model: Model) -> Sequence[int]:
    """The prompt, cut if that was asked for. Raises HttpError if it does not fit the window."""
    keep = asked.truncate_prompt_tokens
    if keep == 0:
        raise HttpError(
            400, "truncate_prompt_tokens must be -1 (the window) or 1 or more, got 0", param="truncate_prompt_tokens"
        )
    if keep is not None:
        keep = model.window if keep == -1 else min(keep, model.window)
        ids = ids[:keep] if asked.truncation_side == "right" else ids[-keep:]
    if len(ids) > model.window:
        problem = f"the prompt has {len(ids)}; shorten it, or let it be cut with truncate_prompt_tokens: -1"
        raise _too_long(len(ids), model, asked, problem)
    return ids


def _too_long(tokens: int, model: Model, asked: Sampling, problem: str) -> HttpError:
    # litellm and others know this error by these words of OpenAI's.
    message = f"This model's maximum context length is {model.window} tokens; {problem}"
    counts = {"n_prompt_tokens": tokens, "n_ctx": model.window}
    return HttpError(400, message, code="context_length_exceeded", param=asked.prompt_field, extra=counts)
