"""Replays a network's kernels as CUDA graphs, one for each shape that comes: a thousand launches become one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Outputs = tuple[Tensor, ...]

_STEP = 32  # rows are filled up to a multiple of this
_FEW = 8
_MAX_ROWS = 256  # more rows keep the GPU busy without a graph
_N_WARM = 2


class ReplayedModule(nn.Module):
    """A module of tensors to one tensor, replayed."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self._replayed = Replayed(lambda *given: (module(*given),))

    def forward(self, *given: Tensor | None) -> Tensor:
        (output,) = self._replayed(*given)
        return output


@dataclass(frozen=True, slots=True, kw_only=True)
class _Captured:
    graph: Any
    inputs: Sequence[Tensor | None]
    outputs: Outputs


class Replayed:
    """A function of tensors whose rows do not depend on one another, captured at its first call with new shapes.

    What it returns is the caller's own. In inference mode only, and from one thread.
    """

    def __init__(self, function: Callable[..., Outputs]) -> None:
        self._function = function
        self._captured: dict[object, _Captured] = {}
        self._pool: Any = None

    def __call__(self, *given: Tensor | None) -> Outputs:
        """The function's outputs; an input may be None."""
        n_rows = next(len(tensor) for tensor in given if tensor is not None)
        if n_rows > _MAX_ROWS or not all(tensor is None or tensor.is_cuda for tensor in given):
            return self._function(*given)
        size = _FEW if n_rows <= _FEW else -(-n_rows // _STEP) * _STEP
        key = (size, *(None if tensor is None else (tensor.shape[1:], tensor.dtype) for tensor in given))
        captured = self._captured.get(key)
        if captured is None:
            captured = self._captured[key] = self._capture(size, given)
        for own, tensor in zip(captured.inputs, given, strict=True):
            if own is not None and tensor is not None:
                own[:n_rows].copy_(tensor)
        captured.graph.replay()
        return tuple(output[:n_rows].clone() for output in captured.outputs)

    def _capture(self, size: int, given: Sequence[Tensor | None]) -> _Captured:
        inputs = [None if tensor is None else _filled_up(tensor, size) for tensor in given]
        for _ in range(_N_WARM):  # what is compiled or allocated once must be by now
            self._function(*inputs)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        # graphs of one pool may share memory, since what they return is copied before the next replay
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            outputs = self._function(*inputs)
        self._pool = graph.pool()
        return _Captured(graph=graph, inputs=inputs, outputs=outputs)


def _filled_up(tensor: Tensor, size: int) -> Tensor:
    """The rows, and the last of them again up to `size`."""
    return torch.cat([tensor, tensor[-1:].expand(size - len(tensor), *tensor.shape[1:])])
