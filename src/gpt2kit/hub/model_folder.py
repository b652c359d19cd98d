"""All files of a model into its directory: what is there is kept, what is cut is completed, the rest is fetched.

From the hub: config.json, then what there is of the tokenizer, then the first of WEIGHTS there is, whole or in shards.
"""

from __future__ import annotations

import os
import re
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import NoReturn

from filelock import FileLock, Timeout

from gpt2kit.checkpoint import TOKENIZER_FILES
from gpt2kit.errors import DownloadError, FormatError, RunLocked
from gpt2kit.formats.huggingface import read_config
from gpt2kit.formats.shards import read_weight_map
from gpt2kit.hub.catalogue import KnownFile
from gpt2kit.hub.check import hash_problem, structure_problem
from gpt2kit.hub.fetch import Pause, Refused, Wanted, fetch
from gpt2kit.hub.manifest import LOCK, Entry, is_in_place, read_entries
from gpt2kit.hub.order import Order
from gpt2kit.hub.partial import Partial
from gpt2kit.hub.promise import Promise
from gpt2kit.hub.web import Web
from gpt2kit.progress import Report
from gpt2kit.tokenizer.characters import CHARACTERS
from gpt2kit.tokenizer.vocabulary import OPENAI_PAIR

CONFIG, DATA = "config.json", ".data-"
NOT_ON_HUBS = {*OPENAI_PAIR, CHARACTERS}
OPTIONAL = ("generation_config.json", *(name for name in TOKENIZER_FILES if name not in NOT_ON_HUBS))
WEIGHTS = ("model.safetensors", "pytorch_model.bin", "tf_model.h5")
INDEX = ".index.json"
SHARD = re.compile(r"[A-Za-z0-9_][\w.-]*\.(safetensors|bin|h5)", re.ASCII)
MOST_SHARDS = 1000
ABSENT = {403, 404, 410}  # 403: what stores of static files say where a file is not there


@contextmanager
def reserved(folder: Path) -> Iterator[None]:
    """Be the only one that downloads into `folder`. The reservation dies with the process. Raises RunLocked."""
    new = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise RunLocked(f"{folder}: another process is downloading into it; wait until it is done") from None
    try:
        yield
    finally:
        if [path.name for path in folder.iterdir()] == [LOCK]:  # nothing came of it
            with suppress(OSError):  # Windows keeps what is open
                (folder / LOCK).unlink()
        lock.release()
        with suppress(OSError):
            for place in new:
                place.rmdir()


class ModelFolder:
    """Fetches what an order lacks, and remembers what every file turned out to be."""

    def __init__(self, order: Order, web: Web, report: Report, pause: Pause = time.sleep) -> None:
        self.entries: dict[str, Entry] = {}
        self._order, self._web, self._report, self._pause = order, web, report, pause
        self._before = read_entries(order.folder)
        self._others: dict[Path, str] = {}  # what is in the place of a file and is not it: why not

    def fill(self) -> dict[str, Entry]:
        """Fetch what is not there. Returns every file of the model. Raises DownloadError, DiskFull."""
        if self._order.source == "openai":
            for known in self._order.files:
                self._require(known)
            return self.entries
        self._require(KnownFile(CONFIG))
        self._check_config()
        for name in OPTIONAL:
            if (refused := self._get(KnownFile(name))) and refused.status not in ABSENT:
                self._explain(name, refused)
        self._get_weights()
        return self.entries

    def _require(self, known: KnownFile) -> None:
        if refused := self._get(known):
            self._explain(known.name, refused)

    def _get(self, known: KnownFile) -> Refused | None:
        """See that the file is there. Returns the server's words where it does not exist."""
        path, expected = self._order.folder / known.name, Promise(known.size, known.sha256)
        url, entry = self._order.url(known.name), self._there(path, expected)
        if entry is None:
            try:
                with _moved_aside(path, self._others.get(path)):
                    wanted = Wanted(url, path, expected, f"{self._order.name}/{known.name}")
                    entry = Entry(url, fetch(self._web, wanted, self._report, self._pause))
            except Refused as refused:
                return refused
        self.entries[known.name] = entry
        return None

    def _there(self, path: Path, expected: Promise) -> Entry | None:
        """What is in the place of the file, if it can stay. A cut file is left to be completed."""
        if not path.is_file():
            return None
        before = self._before.get(path.name)
        if before and is_in_place(path, before.promise):
            return before
        damage, whole = (
            structure_problem(path, path.name),
            expected.completed_by(before.promise if before else Promise()),
        )
        cut = whole.size is not None and path.stat().st_size < whole.size
        if cut and (before or damage or DATA in path.name):  # else it may be somebody's own version of a text
            Partial(path).adopt(whole)
            return None
        sha256, problem = hash_problem(path, expected, self._report, f"verify {self._order.name}/{path.name}")
        if problem := problem or damage:
            self._others[path] = problem
            return None
        return Entry(None, Promise(path.stat().st_size, sha256))

    def _check_config(self) -> None:
        """Before gigabytes of another kind of model are fetched. Leaves nothing of what was fetched for it."""
        path = self._order.folder / CONFIG
        try:
            read_config(path)
        except FormatError as error:
            if self.entries[CONFIG].url:
                path.unlink()
            problem = str(error).removeprefix(f"{path}: ")
            raise DownloadError(f"{self._order.url(CONFIG)}: not a GPT-2 that can be used here: {problem}") from None

    def _get_weights(self) -> None:
        folder = self._order.folder
        candidates = [name + end for name in WEIGHTS for end in ("", INDEX)]
        for name in sorted(candidates, key=lambda name: not (folder / name).is_file()):
            if refused := self._get(KnownFile(name)):
                if refused.status not in ABSENT:
                    self._explain(name, refused)
                continue
            if name.endswith(INDEX):
                for shard in _shards(folder / name):
                    self._require(KnownFile(shard))
            return
        raise DownloadError(
            f"{self._order.url('')}: no weights there that can be read here; looked for {', '.join(WEIGHTS)} and their "
            "indexes of shards"
        )

    def _explain(self, file: str, refused: Refused) -> NoReturn:
        order = self._order
        if refused.status in (401, 403) and order.source == "huggingface":
            remedy = (
                "the token in HF_TOKEN does not open it: check it, accept the model's terms at "
                f"{order.base}/{order.stored_as}, or check the name"
                if order.token
                else "there is no such model, or it is private or gated: check the name, or put a token into HF_TOKEN"
            )
        elif order.source == "huggingface":
            remedy = "check the name, or take another mirror (--endpoint)"
        else:
            remedy = (
                f"take the model from the hub: gpt2 download {order.name} --source huggingface; or from a mirror of "
                "OpenAI's store: --endpoint URL"
            )
        raise DownloadError(f"{refused}: {order.name} has no {file} there, or it is not for everybody; {remedy}")


def _shards(index: Path) -> list[str]:
    """The files that an index of shards names. A name that leads elsewhere is an attack, not a shard."""
    shards = sorted(set(read_weight_map(index).values()))
    if not shards:
        raise FormatError(index, None, "names no shard")
    for shard in shards:
        if not SHARD.fullmatch(shard):
            raise FormatError(index, None, f"names the shard {shard!r:.80}; expected a file in the same directory")
    if len(shards) > MOST_SHARDS:
        raise FormatError(index, None, f"names {len(shards)} shards; at most {MOST_SHARDS} are fetched")
    return shards


@contextmanager
def _moved_aside(path: Path, problem: str | None) -> Iterator[None]:
    """What is in the place of a file that is fetched is kept under another name, and comes back where that fails."""
    if problem is None:
        yield
        return
    taken = (path.with_name(f"{path.name}.before{number or ''}") for number in count())
    aside = next(place for place in taken if not place.exists())
    os.replace(path, aside)
    try:
        yield
    except BaseException:
        os.replace(aside, path)
        raise
    warnings.warn(f"{path}: not the released file ({problem}); kept as {aside.name}", stacklevel=2)
