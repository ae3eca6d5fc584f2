"""Stage 1 and stage 2 over any joint encoder: separate weights, tensors in and named tensors out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.joint.states import Inputs, JointEncoder, JointStates
from model.network import run_gru


@dataclass(frozen=True, slots=True, kw_only=True)
class Selected:
    token_logits: Tensor  # (B, T) pre-sigmoid rationale scores
    class_logits: dict[str, Tensor]  # (B, C) of each task, auxiliary
    states: JointStates


class Selector(nn.Module):
    """Reads the whole post: a rationale score per wordpiece and a class guess per task."""

    def __init__(self, encoder: JointEncoder, gru_width: int, tasks: Mapping[str, Sequence[str]]) -> None:
        super().__init__()
        self.encoder = encoder
        self.gru = nn.GRU(encoder.width, gru_width, batch_first=True, bidirectional=True)
        self.token_head = nn.Linear(2 * gru_width, 1)
        self.class_heads = _heads(encoder.width, tasks)

    def forward(self, inputs: Inputs) -> Selected:
        states = self.encoder.encode(inputs)
        pooled = states.pooled.float()
        return Selected(
            token_logits=self._score(states.token_states, inputs),
            class_logits={task: head(pooled) for task, head in self.class_heads.items()},
            states=states,
        )

    def _score(self, tokens: Tensor, inputs: Inputs) -> Tensor:
        """The GRU runs in float32 whatever the precision, and never over padding."""
        with torch.autocast(tokens.device.type, enabled=False):
            states = run_gru(self.gru, tokens.float(), inputs.attention_mask, inputs.lengths)
            scores: Tensor = self.token_head(states).squeeze(2)
        return scores


class Decider(nn.Module):
    """Classifies what is left of a post after everything but the rationale was hidden."""

    def __init__(self, encoder: JointEncoder, tasks: Mapping[str, Sequence[str]]) -> None:
        super().__init__()
        self.encoder = encoder
        self.class_heads = _heads(encoder.width, tasks)

    def forward(self, inputs: Inputs) -> dict[str, Tensor]:
        pooled = self.encoder.encode(inputs).pooled.float()
        return {task: head(pooled) for task, head in self.class_heads.items()}  # each (B, C)


class TwoStage(nn.Module):
    """All weights of a checkpoint; the stages share none."""

    def __init__(self, selector: Selector, decider: Decider) -> None:
        super().__init__()
        self.selector, self.decider = selector, decider


def _heads(width: int, tasks: Mapping[str, Sequence[str]]) -> nn.ModuleDict:
    return nn.ModuleDict({task: nn.Linear(width, len(classes)) for task, classes in tasks.items()})
