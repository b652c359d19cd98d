"""What langchain-openai says of a server: clients_langchain.py QUESTION ADDRESS FIELDS -> JSON.

QUESTION is a method of its class OpenAI; FIELDS are the arguments of the class, and `asked` that of the method.
"""

import json
import sys

from langchain_openai import OpenAI

question, address, fields = sys.argv[1:]
fields = json.loads(fields)
asked = fields.pop("asked")
model = OpenAI(base_url=f"{address}/v1", api_key="none", model="hf-safetensors", **fields)
answer = getattr(model, question)(asked)
if question == "generate":
    answer = answer.model_dump()
print(json.dumps(list(answer) if question == "stream" else answer, default=str))
