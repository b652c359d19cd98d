"""Cross-entropy from hidden states, a chunk of tokens at a time: the logits of a whole batch never exist.

Shape letters: N tokens   D width   V vocabulary
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gpt2kit.config.training import Precision
from gpt2kit.data.batches import IGNORED, Batch
from gpt2kit.train.precision import DTYPES, autocast

ROWS, COLUMNS = 32, 4096  # of logits that are worked on at once: what comes of them stays in the processor's cache


def batch_loss(
    hidden_of: Callable[[Tensor], Tensor],
    head_VD: Tensor,
    batch: Batch,
    precision: Precision,
    *,
    chunk: int,
    scale: float = 1.0,
    head_grad_VD: Tensor | None = None,
) -> Tensor:
    """`cross_entropy` over a batch, of which `hidden_of` makes hidden states (B, T, D) from ids."""
    inputs_BT, targets_BT = (torch.from_numpy(ids).to(head_VD.device) for ids in (batch.inputs_BT, batch.targets_BT))
    with autocast(head_VD.device, precision):
        hidden_ND = hidden_of(inputs_BT).flatten(0, 1)
    targets_N, dtype = targets_BT.flatten(), DTYPES[precision]
    return cross_entropy(
        hidden_ND, head_VD, targets_N, chunk=chunk, dtype=dtype, scale=scale, head_grad_VD=head_grad_VD
    )


def cross_entropy(
    hidden_ND: Tensor,
    head_VD: Tensor,
    targets_N: Tensor,
    *,
    chunk: int,
    dtype: torch.dtype,
    scale: float = 1.0,
    head_grad_VD: Tensor | None = None,
) -> Tensor:
    """The sum over all targets but -100 of -log p(target), times `scale`; float32, differentiable.

    Args:
        hidden_ND: what the network's head gets.
        head_VD: the head's matrix, float32.
        targets_N: int64.
        chunk: tokens whose logits are in memory at once.
        dtype: what the products are computed in; everything else is float32.
        scale: belongs into the sum before gradients are rounded to `dtype`: float16 loses small ones.
        head_grad_VD: where the head's gradient is added at once, as that of this very sum; autograd gets none then.
    """
    if head_grad_VD is not None:
        head_VD = head_VD.detach()
    if not torch.is_grad_enabled():  # inside, the mode cannot be told any more
        hidden_ND, head_VD = hidden_ND.detach(), head_VD.detach()
    loss: Tensor = _ChunkedCrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden_ND, head_VD, targets_N, chunk, dtype, scale, head_grad_VD
    )
    return loss


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Finds the gradients on the way forward, where the logits are at hand: no product is done twice."""

    @staticmethod
    def forward(
        context: Any,
        hidden_ND: Tensor,
        head_VD: Tensor,
        targets_N: Tensor,
        chunk: int,
        dtype: torch.dtype,
        scale: float,
        head_grad_VD: Tensor | None,
    ) -> Tensor:
        with torch.autocast(hidden_ND.device.type, enabled=False):
            learning = any(context.needs_input_grad)
            hidden_grad_ND = torch.empty_like(hidden_ND) if learning else None
            if learning and head_grad_VD is None:
                head_grad_VD = torch.zeros_like(head_VD)
            head = head_VD.to(dtype)
            total = torch.zeros((), device=hidden_ND.device)
            for first in range(0, hidden_ND.size(0), chunk):
                part = slice(first, first + chunk)
                hidden = hidden_ND[part].to(dtype)
                logits = hidden @ head.t()
                for rows, targets in zip(logits.split(ROWS), targets_N[part].split(ROWS), strict=True):
                    total += _loss_and_slope(rows, targets, scale)
                if hidden_grad_ND is not None and head_grad_VD is not None:
                    hidden_grad_ND[part] = logits @ head
                    _add_product(head_grad_VD, logits, hidden)
        context.grads = hidden_grad_ND, head_grad_VD if context.needs_input_grad[1] else None
        return total * scale

    @staticmethod
    def backward(context: Any, *grads: Tensor) -> Any:
        return *(None if grad is None else grad * grads[0] for grad in context.grads), None, None, None, None, None


def _add_product(sum_VD: Tensor, slope_NV: Tensor, hidden_ND: Tensor) -> None:
    """Add the transposed first by the second to a float32 matrix."""
    if slope_NV.dtype == sum_VD.dtype:
        sum_VD.addmm_(slope_NV.t(), hidden_ND)
        return
    for sums, slope in zip(sum_VD.split(COLUMNS), slope_NV.split(COLUMNS, dim=1), strict=True):
        sums.add_(slope.t() @ hidden_ND)


def _loss_and_slope(logits_NV: Tensor, targets_N: Tensor, scale: float) -> Tensor:
    """The sum of losses; in the place of the logits, what the loss changes by with each, times `scale`."""
    counted_N1 = (targets_N != IGNORED).unsqueeze(1)
    targets_N1 = targets_N.unsqueeze(1).where(counted_N1, 0)
    logits = logits_NV.float()
    largest_N1 = logits.amax(1, keepdim=True)
    logits -= largest_N1
    wanted_N1 = logits.gather(1, targets_N1)
    weights = logits.exp_()
    sums_N1 = weights.sum(1, keepdim=True)
    weights *= counted_N1 * scale / sums_N1
    weights.scatter_add_(1, targets_N1, counted_N1 * -scale)
    logits_NV.copy_(weights)
    return (sums_N1.log() - wanted_N1).where(counted_N1, 0).sum()
