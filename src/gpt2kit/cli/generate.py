"""gpt2 generate: continue a prompt, or start from nothing, and print the text as it comes; or a file of prompts."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Annotated, TextIO

from tyro.conf import OmitArgPrefixes, Positional, UseAppendAction, arg

from gpt2kit.checkpoint import Checkpoint
from gpt2kit.cli.options import TrueOrFalse, optional_text, require_utf8
from gpt2kit.config.engine import EngineConfig
from gpt2kit.config.limits import require
from gpt2kit.config.sampling import SamplingConfig, StopConfig
from gpt2kit.hub.catalogue import MODELS
from gpt2kit.progress import Progress, Report, silent
from gpt2kit.resolve import adapted, open_checkpoint
from gpt2kit.runs import RUNS

DELIMITER = "=" * 20 + "\n"


@dataclass(frozen=True, kw_only=True)
class Generate:
    """Continue a prompt, or start from nothing.

    Samples come from what the model has read; nothing filters them. Each is printed as it is written, without the
    prompt. Several samples get a line between them. The names of older tools work: --model_name, --prefix, --length.
    """

    prompt: Annotated[str | None, Positional, optional_text("PROMPT")] = None
    """Text to continue; "-" reads standard input; without it the model starts from nothing."""
    prefix: Annotated[str | None, optional_text("TEXT")] = None
    """Another way to give PROMPT."""
    prompts: Annotated[Path | None, arg(metavar="FILE")] = None
    """Continue every prompt of a file into --out: in .jsonl an object with "prompt" a line, else a prompt a line."""
    out: Annotated[Path | None, arg(metavar="FILE.jsonl")] = None
    """Write JSON lines there, in the order of the prompts. A run that was interrupted goes on with the same command."""
    model: Annotated[str, arg(aliases=("--model-name", "--run-name"))] = "124M"
    """A known name (124M), a directory, a file, or a run (run1, run1@2000, run1@best)."""
    adapter: Annotated[UseAppendAction[tuple[Path, ...]], arg(metavar="DIRECTORY")] = ()
    """An adapter of PEFT (LoRA) to add to the model; given again, one more."""
    models_dir: Annotated[Path, arg(aliases=("--model-dir",))] = MODELS
    """Where the directories of known names lie."""
    checkpoint_dir: Path = RUNS
    """Where runs lie."""
    nsamples: int = 1
    """How many texts a prompt; each has its own randomness. 0 writes until interrupted."""
    sampling: OmitArgPrefixes[UseAppendAction[SamplingConfig]] = SamplingConfig()
    stop: OmitArgPrefixes[UseAppendAction[StopConfig]] = StopConfig()
    length: int | None = None
    """The same as max_new_tokens, which it replaces."""
    truncate: Annotated[str | None, optional_text("TEXT")] = None
    """One more string to stop before."""
    include_prefix: TrueOrFalse = False
    """Whether the prompt is part of the text that is printed."""
    sample_delim: Annotated[str | None, optional_text("TEXT")] = None
    """What follows each of several texts, instead of a line before each; \\n in it is a line break."""
    destination_path: Annotated[Path | None, arg(metavar="FILE")] = None
    """Write the texts there, with sample_delim, or else a line of 20 =, after each; print nothing."""
    logprobs: int | None = None
    """In the output of --out, give every token's log-probability, and so many of the likeliest alternatives."""
    batch_size: int | None = None
    """Texts written at once; changes the speed only. None is 8, or 32 with --out."""
    engine: OmitArgPrefixes[EngineConfig] = EngineConfig()
    config: Path | None = None
    """A TOML file with any of these options, those below in its tables [sampling] and [stop]; the command line wins."""

    def __call__(self) -> int:
        """Print the samples, or write them where they were asked for."""
        self._refuse_contradictions()
        if self.out:
            return self._write_lines(self.out)
        # Engines load here, not for --help.
        from gpt2kit.generate.texts import seeded
        from gpt2kit.jobs.generate import generate

        prompt, sampling = self._prompt(), seeded(self.sampling)
        pieces = generate(
            self._checkpoint(),
            prompt,
            samples=self.nsamples or None,
            sampling=sampling,
            stop=self._stop(),
            batch_size=8 if self.batch_size is None else self.batch_size,
            **self.engine.options(),
        )
        first = (prompt or "") if self.include_prefix else ""
        begun = 0
        begin = next(pieces)  # what is refused is refused here, before a file is overwritten
        try:
            with self._destination() as destination, self._progress() as report:
                for piece in chain([begin], pieces):
                    if piece.sample == begun:
                        begun += 1
                        print(self._header(begun) + first, end="", file=destination)
                    print(piece.text, end="", file=destination, flush=True)
                    if piece.completion:
                        print("\n" + self._delimiter(), end="", file=destination, flush=True)
                        report(Progress("generate", begun, self.nsamples or None, "text"))
        finally:
            if begun and self.sampling.seed is None and self.sampling.temperature > 0:
                print(f"seed {sampling.seed}", file=sys.stderr)
        return 0

    def _refuse_contradictions(self) -> None:
        require(self.nsamples >= 0, f"nsamples must be 0 or more, got {self.nsamples}")
        named = [name for name in ("prompt", "prefix", "prompts") if getattr(self, name) is not None]
        require(len(named) <= 1, f"{' and '.join(named)} say the same; give one of them")
        for name in ("prompt", "prefix", "truncate", "sample_delim"):
            require_utf8(getattr(self, name) or "", name)
        require(self.out is not None or self.prompts is None, "--prompts needs a file to write to: --out FILE.jsonl")
        require(self.out is not None or self.logprobs is None, "--logprobs needs a file to write to: --out FILE.jsonl")
        if not self.out:
            return
        require(self.nsamples > 0, "with --out, nsamples must be 1 or more: the file is whole in the end")
        misplaced = {
            "--destination-path": self.destination_path is not None,
            "--sample-delim": self.sample_delim is not None,
            "--include-prefix": self.include_prefix,
        }
        for name, given in misplaced.items():
            require(not given, f"--out writes JSON lines; {name} has no place in them")

    def _checkpoint(self) -> Checkpoint:
        return open_checkpoint(adapted(self.model, self.adapter), models=self.models_dir, runs=self.checkpoint_dir)

    def _prompt(self) -> str | None:
        prompt = self.prefix if self.prompt is None else self.prompt
        if prompt == "-":
            from gpt2kit.data.documents import decode_text

            require(sys.stdin is not None, "standard input is closed; give the prompt on the command line")
            return decode_text(sys.stdin.buffer.read(), "standard input")
        return prompt

    def _stop(self) -> StopConfig:
        stop = self.stop if self.length is None else replace(self.stop, max_new_tokens=self.length)
        return stop if self.truncate is None else replace(stop, stop=(*stop.stop, self.truncate))

    def _write_lines(self, out: Path) -> int:
        from gpt2kit.cli.terminal import drawing
        from gpt2kit.jobs.generate_file import Asked, generate_file, read_prompts
        from gpt2kit.jobs.journal import part_of

        try:
            with drawing() as report:
                written = generate_file(
                    self._checkpoint(),
                    read_prompts(self.prompts) if self.prompts else [Asked(self._prompt())],
                    out,
                    samples=self.nsamples,
                    sampling=self.sampling,
                    stop=self._stop(),
                    logprobs=self.logprobs,
                    batch_size=32 if self.batch_size is None else self.batch_size,
                    **self.engine.options(),
                    report=report,
                )
        except KeyboardInterrupt:
            if (part := part_of(out)).exists():
                print(f"\n{part} keeps what is finished; the same command goes on from there", file=sys.stderr)
            raise
        texts = "1 text" if written.texts == 1 else f"{written.texts:,} texts"
        found = f", {written.found:,} of them by an earlier call" if written.found else ""
        print(f"{out}: {texts}{found}; seed {written.seed}", file=sys.stderr)
        return 0

    @contextmanager
    def _destination(self) -> Iterator[TextIO]:
        if not self.destination_path:
            yield sys.stdout
            return
        self.destination_path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self.destination_path.open("w", encoding="utf-8", newline="\n") as file:
                yield file
        except OSError as error:
            error.filename = error.filename or str(self.destination_path)  # a full disk does not say where
            raise

    def _progress(self) -> AbstractContextManager[Report]:
        """For texts that nobody sees."""
        if not self.destination_path:
            return nullcontext(silent)
        from gpt2kit.cli.terminal import drawing

        return drawing()

    def _header(self, number: int) -> str:
        if self.nsamples == 1 or self.destination_path or self.sample_delim is not None:
            return ""
        return f"{'=' * 40} SAMPLE {number} {'=' * 40}\n"

    def _delimiter(self) -> str:
        if self.nsamples == 1 or (not self.destination_path and self.sample_delim is None):
            return ""
        return DELIMITER if self.sample_delim is None else self.sample_delim.replace("\\n", "\n")
