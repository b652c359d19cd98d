"""gpt2 serve: put models in front of a browser and of programs."""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import OmitArgPrefixes, Positional, UseAppendAction, arg

from gpt2kit.cli.options import size_in_bytes
from gpt2kit.cli.terminal import tell
from gpt2kit.config.engine import EngineConfig
from gpt2kit.config.limits import require
from gpt2kit.config.serving import ServingConfig
from gpt2kit.runs import RUNS

KEY_VARIABLE = "GPT2KIT_API_KEY"


@dataclass(frozen=True, kw_only=True)
class Serve:
    """Put models in front of a browser and of programs.

    The address that is printed has a page to write on, OpenAI's API at /v1, and a description of all that can be asked
    at /docs. Ctrl-C or SIGTERM lets requests finish first; a second one does not.
    """

    models: Annotated[tuple[str, ...], Positional, arg(metavar="[MODEL...]", help_behavior_hint="")] = ()
    """Known names, directories, files, runs (run1, run1@2000). The first answers those who name none. None: 124M."""
    adapter: Annotated[UseAppendAction[tuple[Path, ...]], arg(metavar="DIRECTORY")] = ()
    """An adapter of PEFT (LoRA) to add to the only model; given again, one more. Of several models, name those with one
    MODEL+DIRECTORY."""
    serving: OmitArgPrefixes[UseAppendAction[ServingConfig]] = ServingConfig()
    api_key: UseAppendAction[tuple[str, ...]] = ()
    """Callers must send this key. Others can see it in the list of processes: better --api-key-file, or the environment
    variable GPT2KIT_API_KEY."""
    api_key_file: Path | None = None
    """A file with a key a line."""
    memory: Annotated[str | None, arg(metavar="SIZE")] = None
    """What the weights of all loaded models may take, such as 6GB; who was idle longest makes room for others.
    Most of the main memory that is free, if nothing is said; on a GPU, name what that has."""
    engine: OmitArgPrefixes[EngineConfig] = EngineConfig()
    config: Path | None = None
    """A TOML file with any of these options, those of the server in its table [serving]; the command line wins."""

    def __call__(self) -> int:
        """Serve until told to stop."""
        # Engines and the web framework load here, not for --help.
        from gpt2kit.serve import require_packages

        require_packages()
        from gpt2kit.resolve import adapted
        from gpt2kit.serve.app import build_app
        from gpt2kit.serve.keys import read_keys
        from gpt2kit.serve.security import require_safe_address
        from gpt2kit.serve.server import run

        logging.basicConfig(format="gpt2: %(message)s", stream=sys.stderr, level=logging.WARNING)
        logging.getLogger("gpt2kit").setLevel(logging.INFO)
        models = self.models or ("124M",)
        if self.adapter:
            require(len(models) == 1, f"--adapter is for one model, got {len(models)}; name each MODEL+DIRECTORY")
            models = (adapted(models[0], self.adapter),)
        keys = read_keys(self.api_key, self.api_key_file, os.environ.get(KEY_VARIABLE))
        require_safe_address(self.serving, keys)
        app = build_app(
            models,
            self.serving,
            keys,
            memory_bytes=None if self.memory is None else size_in_bytes(self.memory),
            engine=self.engine,
            runs_directory=RUNS,
        )
        return 0 if run(app, self.serving, lambda line: tell(f"gpt2: {line}")) else 1
