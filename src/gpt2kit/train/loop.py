"""The training loop: draw windows, measure, step, now and then validate and save."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from gpt2kit.config.training import TrainingConfig
from gpt2kit.data.batches import Batch, Corpus, batch_at, consecutive_batches
from gpt2kit.errors import ConfigError
from gpt2kit.model.gpt2 import GPT2
from gpt2kit.model.memory import naming_exhaustion
from gpt2kit.progress import Progress, Report
from gpt2kit.runs import Run
from gpt2kit.train.optimizer import adamw
from gpt2kit.train.schedule import learning_rate
from gpt2kit.train.snapshot import freeze, wake_optimizer


@dataclass(frozen=True)
class Outcome:
    """Where training stands when the loop ends."""

    step: int
    loss: float
    """Of the last step, in nats a token."""
    validation_loss: float | None
    interrupted: bool


class Trainer:
    """One network being trained into one run. The caller holds the run's lock."""

    def __init__(
        self, network: GPT2, config: TrainingConfig, learn: Corpus, validate: Corpus | None, run: Run, report: Report
    ) -> None:
        self.network, self.config, self.learn, self.validate = network, config, learn, validate
        self.run, self.report = run, report
        self.device = next(network.parameters()).device
        self.optimizer = adamw(network, config)
        self.step = 0
        self.values: dict[str, float] = {}
        self.validated = 0  # the step of the newest validation
        self.best: float | None = None  # lowest validation loss of any snapshot

    def resume(self, step: int) -> None:
        """Go on after `step` steps; the network holds that step's weights already."""
        state = self.run.state(step)
        wake_optimizer(self.network, self.optimizer, self.run.step_directory(step), step)
        self.run.cut_metrics(state["metrics_bytes"])
        self.step, self.best = step, state["best_validation_loss"]
        self.values = dict(state["values"])

    def train(self, stop_asked: Callable[[], bool]) -> Outcome:
        """Train to the last step, or until `stop_asked`, and save. Raises ConfigError when the loss is not a number."""
        interrupted = False
        while self.step < self.config.steps and not interrupted:
            with naming_exhaustion("take a smaller batch_size or window; the last snapshot is whole"):
                self._step()
                interrupted = stop_asked() and self.step < self.config.steps
                saving = self._due(self.config.save_every)
                if self._due(self.config.validate_every) or (saving and not interrupted):
                    self._validate()
            speaking = self._due(self.config.print_every) or self.step == 1 or interrupted
            if speaking:
                self.run.log({"event": "train", "step": self.step, "time": time.time(), **self.values})
            if saving or interrupted:
                self._save()
            if speaking:  # after the save, so that whoever listens knows when nothing is left to save
                self.report(Progress("train", self.step, self.config.steps, "step", dict(self.values)))
        return Outcome(self.step, self.values["loss"], self.values.get("validation_loss"), interrupted)

    def _due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.config.steps

    def _step(self) -> None:
        started = time.perf_counter()
        rate = learning_rate(self.config, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        batch = batch_at(self.learn, self.config.seed, self.step, self.config.batch_size)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._loss(batch)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip_norm or float("inf"))
        if not torch.isfinite(norm):
            saved = self.run.latest()
            kept = "nothing was saved yet" if saved is None else f"the snapshot of step {saved} is whole"
            raise ConfigError(
                f"step {self.step + 1}: the loss is {loss.item()}, the gradient {norm.item()}; {kept}; "
                "go on with a lower learning rate"
            )
        self.optimizer.step()
        self.step += 1
        tokens = self.config.batch_size * self.learn.window
        self.values |= {"loss": loss.item(), "lr": rate, "grad_norm": norm.item(), "tokens": self.step * tokens}
        self.values["tokens_per_second"] = tokens / (time.perf_counter() - started)

    def _loss(self, batch: Batch) -> torch.Tensor:
        inputs_BT, targets_BT = (torch.from_numpy(ids).to(self.device) for ids in (batch.inputs_BT, batch.targets_BT))
        return F.cross_entropy(self.network(inputs_BT).flatten(0, 1), targets_BT.flatten())

    @torch.no_grad()
    def _validate(self) -> None:
        if self.validate is None:
            return
        total, tokens = 0.0, 0
        for batch in consecutive_batches(self.validate, self.config.batch_size):
            total += self._loss(batch).item() * batch.targets_BT.size
            tokens += batch.targets_BT.size
        self.values["validation_loss"] = total / tokens
        self.validated = self.step
        self.run.log({"event": "validation", "step": self.step, "time": time.time(), "loss": total / tokens})

    def _save(self) -> None:
        loss = self.values.get("validation_loss") if self.validated == self.step else None
        best = loss is not None and (self.best is None or loss < self.best)
        self.best = loss if best else self.best
        state = {"values": self.values, "best_validation_loss": self.best}
        with self.run.saving(self.step, state, best=best, keep=self.config.keep) as directory:
            freeze(self.network, self.optimizer, directory)
            self.run.log({"event": "save", "step": self.step, "time": time.time()})
