"""What the openai package says of a server: clients_openai.py QUESTION ADDRESS FIELDS -> JSON. Versions 2 and 3."""

import asyncio
import json
import sys
import time
from itertools import pairwise

import openai

MODEL = "hf-safetensors"
LONG = {"prompt": "a", "max_tokens": 10_000, "extra_body": {"ignore_eos": True}}


def client(address, **options):
    return openai.OpenAI(base_url=f"{address}/v1", **{"api_key": "none", **options})


def async_client(address, **options):
    return openai.AsyncOpenAI(base_url=f"{address}/v1", **{"api_key": "none", **options})


def completion(address, **fields):
    return client(address).completions.create(model=MODEL, **fields).model_dump()


def async_completion(address, **fields):
    async def asked():
        async with async_client(address) as ours:
            return (await ours.completions.create(model=MODEL, **fields)).model_dump()

    return asyncio.run(asked())


def stream(address, **fields):
    with client(address).completions.create(model=MODEL, stream=True, **fields) as chunks:
        return [chunk.model_dump() for chunk in chunks]


def async_stream(address, **fields):
    async def asked():
        async with async_client(address) as ours:
            return [c.model_dump() async for c in await ours.completions.create(model=MODEL, stream=True, **fields)]

    return asyncio.run(asked())


def chat(address, **fields):
    return client(address).chat.completions.create(model=MODEL, **fields).model_dump()


def chat_stream(address, **fields):
    with client(address).chat.completions.create(model=MODEL, stream=True, **fields) as chunks:
        return [chunk.model_dump() for chunk in chunks]


def models(address, **_):
    return [client(address).models.list().model_dump(), client(address).models.retrieve(MODEL).model_dump()]


def refusal(address, method="completions", retries=2, key="none", **fields):
    """What kind of exception comes, what it knows, and how often and how fast the package asked."""
    asked = []
    web = openai.DefaultHttpxClient(event_hooks={"request": [lambda request: asked.append(time.monotonic())]})
    ours = client(address, http_client=web, max_retries=retries, api_key=key)
    call = ours.completions.create if method == "completions" else ours.chat.completions.create
    try:
        call(**{"model": MODEL, **fields})
    except openai.APIStatusError as error:
        waits = [later - before for before, later in pairwise(asked)]
        known = {name: getattr(error, name) for name in ("status_code", "code", "param", "type", "body", "message")}
        after = error.response.headers.get("retry-after")
        return {
            "exception": type(error).__name__,
            **known,
            "requests": len(asked),
            "waits": waits,
            "retry_after": after,
        }
    return {"exception": None}


def closed_stream(address, **_):
    """Seconds from leaving a stream in its middle until the server writes nothing any more."""
    chunks = client(address).completions.create(model=MODEL, stream=True, **LONG)
    next(iter(chunks))
    writing = running(address)
    chunks.close()
    return [writing, seconds_until_idle(address)]


def closed_async_stream(address, **_):
    async def asked():
        chunks = await async_client(address).completions.create(model=MODEL, stream=True, **LONG)
        await anext(aiter(chunks))
        writing = running(address)
        await chunks.close()
        return [writing, seconds_until_idle(address)]

    return asyncio.run(asked())


def impatience(address, **_):
    """The same for a client that waits half a second for a whole text."""
    try:
        client(address, timeout=0.5, max_retries=0).completions.create(model=MODEL, **LONG)
    except openai.APITimeoutError:
        return seconds_until_idle(address)


def crowd(address, **fields):
    """The refusal that a third one gets of a server that writes one text and lets one wait."""
    first = client(address).completions.create(model=MODEL, stream=True, **LONG)
    next(iter(first))

    async def beside_a_second():
        second = asyncio.create_task(async_client(address).completions.create(model=MODEL, **LONG))
        await asyncio.sleep(0.5)
        told = await asyncio.to_thread(refusal, address, **fields)
        second.cancel()
        return told

    told = asyncio.run(beside_a_second())
    first.close()
    return told


def running(address):
    """How many texts the server writes now, by its own metrics."""
    text = openai.DefaultHttpxClient().get(f"{address}/metrics").text
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith("gpt2kit_texts_running"))


def seconds_until_idle(address):
    left = time.monotonic()
    while running(address) and time.monotonic() < left + 10:
        time.sleep(0.02)
    return time.monotonic() - left


if __name__ == "__main__":
    question, address, fields = sys.argv[1:]
    print(json.dumps(globals()[question](address, **json.loads(fields))))
