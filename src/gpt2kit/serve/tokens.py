"""Text to token ids and back, over HTTP: enough for lm-eval to need no other tokenizer."""

from __future__ import annotations

from typing import Any, Literal

from anyio.to_thread import run_sync
from fastapi import APIRouter, Request

from gpt2kit.serve.answers import Detokenized, Tokenized, TokenizerInfo
from gpt2kit.serve.logprobs import Offsets, TokenNames
from gpt2kit.serve.models import Model
from gpt2kit.serve.ordering import require_known_ids
from gpt2kit.serve.schema import DetokenizeRequest, TokenizeRequest
from gpt2kit.tokenizer.byte_level import ByteLevelBPE
from gpt2kit.tokenizer.characters import Characters
from gpt2kit.tokenizer.vocabulary import END
from gpt2kit.tokenizer.wordpiece import SEPARATOR, UNKNOWN, WordPiece

# The name, the end token and the one for unknown words of each kind.
KINDS: dict[type, tuple[Literal["GPT2Tokenizer", "BertTokenizer", "Characters"], str | None, str | None]] = {
    ByteLevelBPE: ("GPT2Tokenizer", END, END),
    WordPiece: ("BertTokenizer", SEPARATOR, UNKNOWN),
    Characters: ("Characters", None, None),
}

router = APIRouter()


@router.post(
    "/tokenize", summary="Turn text into token ids.", response_model=Tokenized, response_model_exclude_unset=True
)
async def tokenize(asked: TokenizeRequest, request: Request) -> dict[str, Any]:
    """vLLM's route."""
    state = request.app.state
    return await run_sync(_tokenized, asked, state.models.find(asked.model), limiter=state.readers)


def _tokenized(asked: TokenizeRequest, model: Model) -> dict[str, Any]:
    ids = model.tokenizer.encode(asked.prompt, special=asked.parse_special)
    told: dict[str, Any] = {"count": len(ids), "max_model_len": model.window, "tokens": ids}
    if asked.return_token_strs:
        told["token_strs"] = list(map(TokenNames(model.tokenizer), ids))
    if asked.return_offsets:
        offsets = Offsets(model.tokenizer)
        told["offsets"] = [offsets.next(id) for id in ids]
    return told


@router.post("/detokenize", summary="Turn token ids into text.")
async def detokenize(asked: DetokenizeRequest, request: Request) -> Detokenized:
    """vLLM's route; bytes that are no text become U+FFFD."""
    state = request.app.state
    return await run_sync(_detokenized, asked, state.models.find(asked.model), limiter=state.readers)


def _detokenized(asked: DetokenizeRequest, model: Model) -> Detokenized:
    require_known_ids(model, "tokens", asked.tokens)
    return Detokenized(prompt=model.tokenizer.decode(asked.tokens))


@router.get("/tokenizer_info", summary="What the tokenizer is.")
async def tokenizer_info(request: Request, model: str | None = None) -> TokenizerInfo:
    """vLLM's route, as far as GPT-2 has something to tell."""
    found: Model = request.app.state.models.find(model)
    kind, end, unknown = KINDS[type(found.tokenizer)]
    return TokenizerInfo(
        tokenizer_class=kind,
        vocab_size=found.tokenizer.vocab_size,
        model_max_length=found.window,
        bos_token=end,
        eos_token=end,
        unk_token=unknown,
        eos_token_id=found.tokenizer.end_id if end else None,
        chat_template=None,
    )
