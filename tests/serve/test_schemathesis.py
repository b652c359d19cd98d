"""Whether a server does what its /openapi.json says, asked thousands of times. GPT2KIT_FUZZ=50000 asks that often."""

import os
import subprocess
import sys

import pytest

from gpt2kit.config.serving import ServingConfig

EXAMPLES = int(os.environ.get("GPT2KIT_FUZZ", "160"))  # over all operations
METHODS = {"get", "put", "post", "delete", "options", "head", "patch", "trace"}
CHECKS = (
    *("not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance"),
    *("response_schema_conformance", "negative_data_rejection", "unsupported_method", "allow_header_conformance"),
)


@pytest.mark.slow
def test_a_server_does_what_its_document_says(golden, serve):
    """Not checked is that all is accepted that the document allows: it cannot say that best_of is at least n."""
    short = ServingConfig(max_tokens=8, max_n=2, max_prompts=4, chat_template="plain")  # keeps each example short
    client = serve(golden / "hf-safetensors", config=short, engine="reference").until_ready()
    _, _, document = client.ask("GET", "/openapi.json")
    each = max(1, EXAMPLES // sum(len(METHODS & path.keys()) for path in document["paths"].values()))
    options = ["--max-examples", str(each), "--phases", "examples,coverage,fuzzing", "--seed", "1", "--warnings", "off"]
    options += [
        "--generation-database",
        "none",
        "--suppress-health-check",
        "all",
        "--continue-on-failure",
        "--no-color",
    ]
    address = "http://{}:{}/openapi.json".format(*client.address)
    done = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", "run", address, "--checks", ",".join(CHECKS), *options],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert client.ask("GET", "/health")[0] == 200
