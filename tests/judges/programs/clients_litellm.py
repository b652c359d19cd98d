"""What litellm says of a server: clients_litellm.py QUESTION ADDRESS FIELDS -> JSON."""

import asyncio
import json
import sys

import litellm

litellm.suppress_debug_info = True
litellm.telemetry = False


def where(address):
    return {"model": "text-completion-openai/hf-safetensors", "api_base": f"{address}/v1", "api_key": "none"}


def completion(address, **fields):
    return litellm.text_completion(**where(address), **fields).model_dump()


def async_completion(address, **fields):
    return asyncio.run(litellm.atext_completion(**where(address), **fields)).model_dump()


def stream(address, **fields):
    return [chunk.model_dump() for chunk in litellm.text_completion(**where(address), stream=True, **fields)]


def refusal(address, **fields):
    try:
        litellm.text_completion(**where(address), **fields)
    except Exception as error:
        return {"exception": type(error).__name__, "message": str(error)}
    return {"exception": None}


if __name__ == "__main__":
    question, address, fields = sys.argv[1:]
    print(json.dumps(globals()[question](address, **json.loads(fields)), default=str))
