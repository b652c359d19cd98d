"""gpt-2-simple's own account of itself: ANSWER.json NAME...; the signature of each function, and the command's help."""

import contextlib
import inspect
import io
import json
import sys
from pathlib import Path

import gpt_2_simple

answer, *names = sys.argv[1:]
sys.argv = ["gpt_2_simple", "--help"]
with contextlib.redirect_stdout(io.StringIO()) as help_text, contextlib.suppress(SystemExit):
    gpt_2_simple.cmd()
signatures = {name: str(inspect.signature(getattr(gpt_2_simple, name))) for name in names}
Path(answer).write_text(json.dumps({"signatures": signatures, "help": help_text.getvalue()}), "utf-8")
