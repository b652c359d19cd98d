"""The two Flask demos of 2019 and 2021, as they answered, without their faults: a form, and POST /generate."""

from __future__ import annotations

from html import escape
from string import Template
from urllib.parse import parse_qs

from anyio.to_thread import run_sync
from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from gpt2kit.generate.texts import Piece
from gpt2kit.serve.answers import Generated
from gpt2kit.serve.choices import Choice
from gpt2kit.serve.errors import HttpError
from gpt2kit.serve.keys import Keys
from gpt2kit.serve.models import Model
from gpt2kit.serve.ordering import make_order
from gpt2kit.serve.pages import PAGE
from gpt2kit.serve.responses import JobResponse
from gpt2kit.serve.schema import GenerateRequest, Sampling
from gpt2kit.serve.security import key_in

router = APIRouter()


@router.post("/", summary="The form of the demo of 2019; works without JavaScript.", include_in_schema=False)
async def form(request: Request) -> Response:
    """Fields `seed` and `key` in; a page out, the seed black, what the model wrote red.

    Half a window of new tokens, top_k 40.
    """
    state = request.app.state
    request.state.seed = ""  # for form_refused
    fields = await run_sync(_fields, await request.body(), limiter=state.readers)
    seed, key = (fields.get(name, [""])[0].replace("\r\n", "\n") for name in ("seed", "key"))
    request.state.seed = seed
    keys: Keys = state.keys
    if keys and not (keys.accepts(key) or keys.accepts(key_in(request.headers))):
        raise HttpError(401, "This key is not one of the server's." if key else "This server needs a key.")
    if not seed.strip():
        return _form(keys, seed, message="Please enter a seed sentence.")
    state.worker.require_room()
    model: Model = state.models.default
    asked = Sampling(temperature=0.7, top_k=40, truncate_prompt_tokens=-1)
    ids = await run_sync(model.tokenizer.encode, seed, limiter=state.readers)
    length = min(model.window // 2, state.config.max_tokens)
    order = make_order(model, asked, [ids], state.config, max_new_tokens=length, samples=1)
    return JobResponse(request, order, FormAnswer(keys, seed))


def _fields(body: bytes) -> dict[str, list[str]]:
    try:
        return parse_qs(body.decode(errors="replace"), max_num_fields=8)
    except ValueError:
        raise HttpError(400, "the form has two fields, seed and key; found more than 8") from None


def form_refused(request: Request, error: HttpError) -> Response:
    """The form again, with what went wrong; whoever sent it is a person."""
    return _form(request.app.state.keys, request.state.seed, message=str(error), status=error.status)


@router.post("/generate", summary="Continue a text greedily, as the demo of 2021 did.", response_model=Generated)
async def generate(asked: GenerateRequest, request: Request) -> Response:
    """{"text"} in, {"generated_text"} out: the text and what follows it, likeliest tokens only."""
    state = request.app.state
    model: Model = state.models.find(asked.model)
    state.worker.require_room()
    ids = await run_sync(model.tokenizer.encode, asked.text, limiter=state.readers)
    if len(ids) >= asked.max_length:
        raise HttpError(
            400,
            f"the text has {len(ids):,} tokens; max_length, which counts them too, is {asked.max_length:,}; raise it",
            param="max_length",
        )
    greedy = Sampling(temperature=0, truncate_prompt_tokens=-1)
    new = min(asked.max_length - len(ids), state.config.max_tokens)
    order = make_order(model, greedy, [ids], state.config, max_new_tokens=new, samples=1)
    return JobResponse(request, order, TextAnswer(asked.text))


class TextAnswer:
    """One text, told when it is whole."""

    def __init__(self, text: str) -> None:
        self._text, self._choice = text, Choice(0)

    def take(self, piece: Piece) -> None:
        """Add a piece."""
        self._choice.take(piece)

    def whole(self) -> Response:
        """The demo's JSON."""
        return JSONResponse({"generated_text": self._text + self._choice.tell().text})


class FormAnswer(TextAnswer):
    """The same as a page."""

    def __init__(self, keys: Keys, seed: str) -> None:
        super().__init__(seed)
        self._keys = keys

    def whole(self) -> Response:
        """The form again, and below it the text."""
        return _form(self._keys, self._text, output=self._choice.tell().text)


def _form(keys: Keys, seed: str, *, output: str = "", message: str = "", status: int = 200) -> Response:
    """form.html, filled; all that came from outside is escaped."""
    template = Template((PAGE / "form.html").read_text("utf-8"))
    shown = {"seed": escape(seed), "output": escape(output), "message": escape(message)}
    hidden = {"no_key": "" if keys else "hidden", "no_output": "" if output else "hidden"}
    return HTMLResponse(template.substitute(shown | hidden), status)
