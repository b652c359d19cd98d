"""The training loop: draw windows, measure, step, now and then validate, sample and save."""

from __future__ import annotations

import errno
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gpt2kit.config.training import Recipe
from gpt2kit.data.batches import IGNORED, Batch, Corpus, batch_at, consecutive_batches, with_noise
from gpt2kit.errors import ConfigError, DiskFull
from gpt2kit.model.gpt2 import GPT2
from gpt2kit.model.memory import naming_exhaustion
from gpt2kit.progress import Progress, Report
from gpt2kit.runs import Run
from gpt2kit.train.loss import batch_loss
from gpt2kit.train.optimizer import Optimizer
from gpt2kit.train.schedule import share_of_peak
from gpt2kit.train.snapshot import freeze, wake_optimizer

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
CHUNK = 512  # tokens whose logits are in memory at once, before a recipe says how many
REMEDY = "take a smaller batch_size or window, or accumulate; the last snapshot is whole"
FIRST_ESTIMATE = 10  # steps after which the time left is told


@dataclass(frozen=True)
class Outcome:
    """Where training stands when the loop ends."""

    step: int
    loss: float
    """Of the last step, in nats a token."""
    validation_loss: float | None
    interrupted: bool
    stopped_early: bool
    """Whether the held-out loss had stopped falling."""


class Trainer:
    """One network being trained into one run. The caller holds the run's lock."""

    def __init__(
        self,
        network: GPT2,
        recipe: Recipe,
        learn: Corpus,
        validate: Corpus | None,
        run: Run,
        report: Report,
        *,
        on_event: Callable[[Mapping[str, Any]], None] = lambda event: None,
        sample: Callable[[int], str | None] | None = None,
    ) -> None:
        self.network, self.recipe, self.learn, self.validate = network.train(), recipe, learn, validate
        self.run, self.report, self.on_event, self.sample = run, report, on_event, sample
        self.device = next(network.parameters()).device
        network.recompute = recipe.recompute
        if recipe.only_train_transformer_layers:
            network.requires_grad_(False).h.requires_grad_(True)
        # Where the head is tied to the embedding, a few rows of gradient are added to the head's in place.
        network.wte.sparse = network.lm_head is None and self.device.type == "cpu"
        self.hidden = torch.compile(network.hidden) if recipe.compile else network.hidden
        self.optimizer = Optimizer(network, recipe)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=recipe.precision == "fp16")
        self.scaler.scale(torch.zeros((), device=self.device))  # only here does it make its state
        self.step = 0
        self.updates = 0  # steps that were not skipped
        self.values: dict[str, float] = {}
        self.seconds: list[float] = []  # of the steps since the last report
        self.best: float | None = None  # lowest validation loss so far
        self.best_saved: float | None = None  # ... of a snapshot
        self.validated = 0  # the step of the newest validation
        self.validations_since_best = 0

    def resume(self, step: int) -> None:
        """Go on after `step` steps; the network holds that step's weights already."""
        state = self.run.state(step)
        if (former := state.get("optimizer", self._optimizer_name)) == self._optimizer_name:
            self.updates = state["updates"]
            wake_optimizer(self.network, self.optimizer, self.run.step_directory(step), self.updates)
        else:
            warnings.warn(f"{self._optimizer_name} remembers nothing yet: step {step} was {former}'s", stacklevel=3)
        self.run.rewind(step)
        self.step, self.best, self.best_saved = step, state["best"], state["best_saved"]
        self.validations_since_best = state["validations_since_best"]
        self.values = dict(state["values"])
        if self.scaler.is_enabled() and state["loss_scale"]:
            self.scaler.load_state_dict(state["loss_scale"])

    @property
    def _optimizer_name(self) -> str:
        return f"{self.recipe.optimizer}{' of the layers' if self.recipe.only_train_transformer_layers else ''}"

    @property
    def finished(self) -> bool:
        return self.step >= self.recipe.steps or self.stopped_early

    @property
    def stopped_early(self) -> bool:
        return 0 < self.recipe.patience <= self.validations_since_best

    def train(self, stop_asked: Callable[[], bool]) -> Outcome:
        """Train to the last step, until the held-out loss stops falling, or until `stop_asked`; and save.

        Raises:
            ConfigError: the loss is not a number any more.
            DiskFull: there is no room for a snapshot or a line; the snapshot before is whole.
        """
        interrupted = False
        if not self.finished:
            self._report()  # that it begins: from now on there will be something to save
        if self.recipe.validate_first and self.step == 0:
            with self._naming_full_disk(), naming_exhaustion(REMEDY):
                self._validate()
        while not self.finished and not interrupted:
            with self._naming_full_disk(), naming_exhaustion(REMEDY):
                self._step()
                interrupted = stop_asked() and self.step < self.recipe.steps
                saving = self._due(self.recipe.save_every)
                if self._due(self.recipe.validate_every) or saving:
                    self._validate()
                if self.sample and self.recipe.sample_every and self._due(self.recipe.sample_every):
                    self._sample()
                ending = interrupted or self.stopped_early
                speaking = self._due(self.recipe.print_every) or self.step in (1, FIRST_ESTIMATE) or ending
                if speaking:
                    self._log("train", **self.values)
                if saving or ending:
                    self._save()
            if speaking:  # after the save, so that whoever listens knows when nothing is left to save
                self.seconds.clear()
                self._report()
        validation_loss = self.values.get("validation_loss")
        return Outcome(self.step, self.values["loss"], validation_loss, interrupted, self.stopped_early)

    def _report(self) -> None:
        self.report(Progress("train", self.step, self.recipe.steps, "step", dict(self.values)))

    def _due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.recipe.steps

    def _step(self) -> None:
        started, recipe = time.perf_counter(), self.recipe
        share = share_of_peak(recipe, self.step)
        self.optimizer.set_rate(share)
        loss = torch.zeros((), device=self.device)
        for part in range(recipe.accumulate):
            loss += self._learn_from(self._batch(part), part)
        self._update(loss.item())
        self.optimizer.zero_grad()
        self.step += 1
        tokens = recipe.batch_size * recipe.window
        self.values |= {"loss": loss.item(), "lr": share * recipe.learning_rate, "tokens": self.step * tokens}
        self.seconds.append(time.perf_counter() - started)
        self.values["tokens_per_second"] = tokens * len(self.seconds) / sum(self.seconds)

    def _batch(self, part: int) -> Batch:
        recipe = self.recipe
        batch = batch_at(self.learn, recipe.seed, self.step, recipe.batch_size, part, recipe.accumulate)
        if not recipe.noise:
            return batch
        first_window = self.step * recipe.batch_size + part * len(batch.inputs_BT)
        noisy = with_noise(batch.inputs_BT, recipe.noise, self.network.config.vocab_size, recipe.seed, first_window)
        return Batch(noisy, batch.targets_BT)

    def _learn_from(self, batch: Batch, part: int) -> torch.Tensor:
        """Add the gradients of one part of a step. Returns its part of the step's loss."""
        scale = self.scaler.get_scale() * (self.recipe.accumulate if self.recipe.accumulate_as == "sum" else 1)
        scale_of_token = scale / (self.recipe.batch_size * self.recipe.window)
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else [], bool(self.recipe.dropout)):
            if self.recipe.dropout:
                torch.manual_seed(_seed(self.recipe.seed, self.step, part))
            weight = self.network.head_weight
            head_grad = torch.zeros_like(weight) if weight.requires_grad else None
            loss = self._loss(batch, scale_of_token, head_grad)
            if self.recipe.step_in_backward and not torch.isfinite(loss):
                return loss.detach()
            loss.backward()
        if head_grad is not None:
            weight.grad = head_grad if weight.grad is None else head_grad.add_(weight.grad)
            if self.recipe.step_in_backward:
                self.optimizer.step_one(weight)
        return loss.detach() / scale

    def _update(self, loss: float) -> None:
        """Change the weights by the gradients. Raises ConfigError where they are not numbers."""
        if self.recipe.step_in_backward:
            self._require_finite(self.step + 1, loss=loss)
            self.updates += 1
            return
        for part in self.optimizer.parts:
            self.scaler.unscale_(part)
        grads = [weight.grad for weight in self.network.parameters() if weight.grad is not None]
        norm = torch.nn.utils.get_total_norm(grads).item()
        scale = self.scaler.get_scale()
        if not self.scaler.is_enabled() or scale < 1:
            self._require_finite(self.step + 1, loss=loss, gradient=norm)
        if np.isfinite(norm):  # not scaler.step, which would skip only those parts whose own gradients are too large
            self.values["grad_norm"] = norm
            if norm > self.recipe.clip_norm > 0:
                torch._foreach_mul_(grads, self.recipe.clip_norm / norm)
            for part in self.optimizer.parts:
                part.step()
            self.updates += 1
        else:
            self._log("skip", step=self.step + 1, loss_scale=scale)
        self.scaler.update()

    def _require_finite(self, step: int, **norms: float) -> None:
        if np.isfinite(list(norms.values())).all():
            return
        saved = self.run.latest()
        kept = "nothing was saved yet" if saved is None else f"the snapshot of step {saved} is whole"
        found = ", ".join(f"the {name} is {norm}" for name, norm in norms.items())
        raise ConfigError(f"step {step}: {found}; {kept}; go on with a lower learning_rate")

    def _loss(self, batch: Batch, scale: float, head_grad: torch.Tensor | None = None) -> torch.Tensor:
        head, chunk = self.network.head_weight, self.recipe.loss_chunk
        return batch_loss(
            self.hidden, head, batch, self.recipe.precision, chunk=chunk, scale=scale, head_grad_VD=head_grad
        )

    @torch.no_grad()
    def _validate(self) -> None:
        if self.validate is None:
            return
        self.network.eval()
        total, tokens = 0.0, 0
        size = max(1, self.recipe.batch_size // self.recipe.accumulate)
        windows = math.ceil((self.validate.total - 1) / self.validate.window)
        windows = min(windows, self.recipe.validation_windows or windows)
        for number, batch in enumerate(consecutive_batches(self.validate, size, windows)):
            self.report(Progress("validate", number * size, windows, "window"))
            total += self._loss(batch, 1.0).item()
            tokens += int((batch.targets_BT != IGNORED).sum())
        self.report(Progress("validate", windows, windows, "window"))
        self.network.train()
        loss = self.values["validation_loss"] = total / tokens
        self._require_finite(self.step, loss=loss)
        self.validated = self.step
        better = self.best is None or loss < self.best
        self.best = loss if better else self.best
        self.validations_since_best = 0 if better else self.validations_since_best + 1
        self._log("validation", loss=loss)

    def _sample(self) -> None:
        assert self.sample
        self.network.eval()
        text = self.sample(self.step)
        self.network.train()
        if text is not None:
            self._log("sample", text=text)

    def _save(self) -> None:
        # Where weights change in backward, no gradient was looked at: what they became is.
        norm = torch.nn.utils.get_total_norm([weight.detach() for weight in self.network.parameters()]).item()
        self._require_finite(self.step, **{"length of all weights": norm})
        loss = self.values.get("validation_loss") if self.validated == self.step else None
        best = loss is not None and (self.best_saved is None or loss < self.best_saved)
        self.best_saved = loss if best else self.best_saved
        state = {
            "values": self.values,
            "updates": self.updates,
            "optimizer": self._optimizer_name,
            "loss_scale": self.scaler.state_dict(),
            "best": self.best,
            "best_saved": self.best_saved,
            "validations_since_best": self.validations_since_best,
        }
        with self.run.saving(self.step, state, best=best, keep=self.recipe.keep) as directory:
            freeze(self.network, self.optimizer, directory)
            self._log("save")

    @contextmanager
    def _naming_full_disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            saved = self.run.latest()
            kept = "nothing was saved before" if saved is None else f"the snapshot of step {saved} is whole"
            raise DiskFull(
                f"{self.run.directory}: no room for what step {self.step} writes ({error.strerror}); {kept}; "
                "make room, and the same command goes on from there"
            ) from None

    def _log(self, event: str, **values: Any) -> None:
        entry = {"event": event, "step": self.step, "time": time.time(), **values}
        self.run.log(entry)
        self.on_event(entry)


@torch.no_grad()
def first_loss(network: GPT2, learn: Corpus) -> float:
    """What a network makes of some of the text before it has learnt from it, in nats a token."""
    network.eval()
    batch = batch_at(learn, 0, 0, min(2, learn.windows))
    loss = batch_loss(network.hidden, network.head_weight, batch, "fp32", chunk=CHUNK).item()
    return loss / batch.targets_BT.size


def _seed(*parts: int) -> int:
    """One seed of 64 bits from several numbers."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0])
