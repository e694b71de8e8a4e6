"""Post-local SGD: ranks train apart, and their weights are averaged from time to time.

After Lin, Stich, Patel and Jaggi, "Don't Use Large Mini-Batches, Use Local SGD", 2018 (arXiv 1808.07217).
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch.distributed as dist
from lightning_utilities.core.apply_func import apply_to_collection
from pytorch_lightning import LightningModule
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_modules.strategies.averaging import average

__all__ = ["PeriodicAveraging"]

_OF_RANKS = "of_ranks"


class PeriodicAveraging(DDPStrategy):
    """Average gradients for `warmup_steps` optimizer steps, then only weights, every `period` steps.

    Between two averagings no rank waits for another. That saves time on a slow network, at the price of a
    slightly different course of training.

    **One model.** Weights and the floating-point buffers, such as the running statistics of batch normalisation,
    are averaged also before every validation, test and checkpoint, before each epoch and at the end of training. So
    the model that is judged is the one that is saved, and every rank has it. A checkpoint or validation in the middle
    of a period is therefore an additional averaging. One between two epochs is not, so saving there changes nothing.

    **Optimizers.** Their states, such as momentum, are separate on each rank. A checkpoint has those of all ranks, and
    each rank resumes with its own, so that an interrupted training run ends like an uninterrupted one. With a different
    number of ranks, all resume with the state of rank 0. Gradients are clipped on each rank alone once steps are local.
    Schedules see the same steps on all ranks.

    **Steps** are optimizer steps, as `trainer.global_step` counts them: batches whose gradients are accumulated
    make one step, and a resumed training run continues the count.

    Lightning's `DDPStrategy(model_averaging_period=...)` works on GPUs only, leaves out buffers and does not
    average before it validates or saves. With `period=1` ranks agree after each step, but this is not DDP, because
    optimizers see local gradients.

    Args:
        period: optimizer steps from one averaging to the next.
        warmup_steps: optimizer steps at the beginning in which gradients are averaged, as DDP does.
        find_unused_parameters: whether a warm-up step may leave parameters without a gradient; see torch's
            `DistributedDataParallel`.

    Raises:
        ValueError: `period` is below 1 or `warmup_steps` below 0.
    """

    def __init__(self, period: int, warmup_steps: int = 0, find_unused_parameters: bool = False) -> None:
        if period < 1:
            raise ValueError(f"trainer.strategy.period must be at least 1, but got {period}")
        if warmup_steps < 0:
            raise ValueError(f"trainer.strategy.warmup_steps must be at least 0, but got {warmup_steps}")
        super().__init__(broadcast_buffers=False, find_unused_parameters=find_unused_parameters)
        self.period = period
        self.warmup_steps = warmup_steps
        self._is_apart = False

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """Run a step; once the warm-up is over, its backward pass waits for no other rank."""
        assert self.model is not None
        self._is_apart = True  # even before an optimizer step: batch statistics drift at every pass
        if self._is_local:
            self.model.require_backward_grad_sync = False  # type: ignore[assignment]
        return super().training_step(*args, **kwargs)

    def pre_backward(self, closure_loss: Tensor) -> None:
        """Keep manual optimization from preparing to synchronise a local step."""
        if not self._is_local:
            super().pre_backward(closure_loss)

    def optimizer_step(
        self,
        optimizer: Optimizer,
        closure: Callable[[], Any],
        model: LightningModule | nn.Module | None = None,
        **kwargs: Any,
    ) -> Any:
        """Take a step, and average if a period ends with it."""
        output = super().optimizer_step(optimizer, closure, model, **kwargs)
        local_steps = self._steps + 1 - self.warmup_steps  # Lightning counts this step only afterwards
        if local_steps > 0 and local_steps % self.period == 0:
            self.average()
        return output

    def average(self) -> None:
        """Make all ranks hold one model, the mean of theirs; all ranks call it together."""
        if self._is_apart:
            assert self.model is not None
            trained = (parameter for parameter in self.model.parameters() if parameter.requires_grad)
            average([*trained, *self.model.buffers()])
            self._is_apart = False

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Begin an epoch with one model, whether or not a checkpoint was saved before it."""
        if batch_idx == 0:
            self.average()

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Gather the states of all ranks on rank 0, once they differ; every rank takes part."""
        state: dict[str, Any] = super().optimizer_state(optimizer)
        if not self._is_local:
            return state
        states: list[Any] | None = [None] * self.world_size if self.is_global_zero else None
        dist.gather_object(apply_to_collection(state, Tensor, Tensor.cpu), states)
        return state if states is None else {**state, _OF_RANKS: states}

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Resume with this rank's own states, if there are as many as ranks."""
        own = [self._own(state) for state in checkpoint["optimizer_states"]]
        super().load_optimizer_state_dict({"optimizer_states": own})

    def on_validation_start(self) -> None:
        """Judge one model."""
        self.average()

    def on_test_start(self) -> None:
        """Judge one model."""
        self.average()

    def on_train_end(self) -> None:
        """End with one model."""
        self.average()

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Save one model; every rank takes part, as Lightning calls it on all."""
        self.average()
        return super().lightning_module_state_dict()

    def _own(self, state: Mapping[str, Any]) -> dict[str, Any]:
        states = state.get(_OF_RANKS, ())
        if len(states) == self.world_size:
            return dict(states[self.global_rank])
        return {key: value for key, value in state.items() if key != _OF_RANKS}

    @property
    def _steps(self) -> int:
        assert self.lightning_module is not None
        return self.lightning_module.trainer.global_step

    @property
    def _is_local(self) -> bool:
        return self._steps >= self.warmup_steps
