"""A run's events for TensorBoard: `tensorboard --logdir checkpoint` shows one line a run.

<run>/events.out.tfevents.TIME.HOST holds one record an event, in TFRecord framing; every start of training adds a file.
No TensorFlow and no thread: a record is with the operating system when `log` returns, so a kill loses none.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

SCALARS = {  # event: {its field: the name on the board}
    "train": {"loss": "loss/train", **{name: name for name in ("lr", "grad_norm", "tokens_per_second")}},
    "validation": {"loss": "loss/validation"},
}


class Board:
    """Writes the events that go to metrics.jsonl for TensorBoard too."""

    def __init__(self, directory: Path, step: int) -> None:
        """Go on after `step` steps: readers forget what an earlier start logged about later ones."""
        from tensorboard.compat.proto import event_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event = event_pb2.Event
        directory.mkdir(parents=True, exist_ok=True)
        # Readers take the files of a directory in order of their names.
        name = f"events.out.tfevents.{time.time():017.6f}.{socket.gethostname()}"
        self._records = RecordWriter((directory / name).open("xb"))
        self._write(wall_time=time.time(), file_version="brain.Event:2")
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(wall_time=time.time(), step=step + 1, session_log=start)

    def log(self, event: Mapping[str, Any]) -> None:
        """Write what TensorBoard can show of an event."""
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.text.summary_v2 import text_pb

        names = SCALARS.get(event["event"], {})
        values = [Summary.Value(tag=tag, simple_value=event[name]) for name, tag in names.items() if name in event]
        if event["event"] == "sample":
            # The board takes text for Markdown, where four spaces mean: as it is.
            values = text_pb("sample", "    " + event["text"].replace("\n", "\n    ")).value
        if values:
            self._write(wall_time=event["time"], step=event["step"], summary=Summary(value=values))

    def close(self) -> None:
        """Close the file; `log` is over."""
        self._records.close()

    def _write(self, **fields: Any) -> None:
        self._records.write(self._event(**fields).SerializeToString())
        self._records.flush()


def board_if_installed(directory: Path, step: int) -> Board | None:
    """A board for the run in `directory` that has done `step` steps, or None without TensorBoard."""
    return Board(directory, step) if find_spec("tensorboard") else None
