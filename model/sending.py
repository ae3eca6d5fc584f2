"""To the device and back without waiting for what is queued there; on a CPU nothing is copied."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.errors import ModelError


def sent(tensor: Tensor, device: str | torch.device) -> Tensor:
    """The tensor on the device, in the order of the queue; from pageable memory the copy would wait for the queue."""
    if torch.device(device).type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


class Answer:
    """What a network made, on its way from the device; `get` waits for it alone, not for what was queued after it.

    Half precision comes as float32.
    """

    def __init__(self, tensor: Tensor) -> None:
        if tensor.is_floating_point():
            tensor = tensor.float()
        self._event = None
        if tensor.is_cuda:
            self._value = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._value.copy_(tensor, non_blocking=True)
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record()
        else:
            self._value = tensor

    def get(self) -> npt.NDArray[Any]:
        """The values, once they are there; raises `ModelError` unless all are finite."""
        if self._event is not None:
            self._event.synchronize()
        values: npt.NDArray[Any] = self._value.numpy()
        if not np.isfinite(values).all():
            raise ModelError("the network produced a value that is not finite; the checkpoint is damaged")
        return values
