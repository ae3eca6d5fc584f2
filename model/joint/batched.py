"""A joint checkpoint on a GPU: posts go through both stages in parts of a batch, and images are scaled there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.batches import REPLAYED_STEP
from model.classifier import Selection
from model.inputs import EncodedExample, encode_text
from model.joint.batch import Item, collate
from model.joint.classifier import JointClassifier, Precision, softmax
from model.joint.config import JointConfig
from model.joint.evidence import read, scored, selecting, shown_ids
from model.joint.network import TwoStage
from model.joint.states import Inputs, JointEncoder, JointStates
from model.records import HUMANITARIAN, Example, Prediction
from model.replayed import Replayed
from model.scaling import ImageStack
from model.sending import Answer, sent
from model.tokens import WordTokenizer
from model.turns import Turns, by_likeness


class BatchedJointClassifier(JointClassifier):
    """The same predictions as `JointClassifier`'s up to rounding, which what shares the call may change.

    In bf16 that may tip a word or patch at the border of the budget. It serves recipes with square images and a
    hard heatmap, as `dual` is; `serves` tells.
    """

    def __init__(
        self,
        network: TwoStage,
        config: JointConfig,
        tokenizer: WordTokenizer,
        *,
        device: str = "cuda",
        precision: Precision = "bf16",
        part_size: int = 256,
        compiles: bool = True,
        replays: bool = True,
    ) -> None:
        super().__init__(network, config, tokenizer, device=device, precision=precision)
        self.part_size = part_size
        for stage in (network.selector, network.decider):
            if precision == "bf16":
                stage.encoder.to(torch.bfloat16)
            if compiles:
                compile_layers(stage.encoder)
            if replays:
                remember_position_bias(stage.encoder)
                stage.encoder = ReplayedEncoder(stage.encoder)  # type: ignore[assignment]
        score = partial(scored, config=config.transfer)
        self._scored = Replayed(score) if replays else score
        mean, std = (
            torch.tensor(triple, device=device)[:, None, None] for triple in (config.encoder.mean, config.encoder.std)
        )
        self._gain, self._shift = 1.0 / (255.0 * std), -mean / std

    @staticmethod
    def serves(config: JointConfig) -> bool:
        """Whether such a checkpoint can be batched like this."""
        hard = config.transfer.heatmap == "hard" or config.transfer.method == "off"
        return config.encoder.kind == "dual" and config.encoder.fit == "square" and hard

    def encode(self, examples: Sequence[Example]) -> list[EncodedExample]:
        """The examples with their texts split and encoded ahead, in whichever thread."""
        return [encode_text(example, self.tokenizer) for example in examples]

    @torch.inference_mode()
    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        """One prediction per example, in order; raises `ModelError`, never NaN."""
        return by_likeness(self.encode(examples), self._predicting, self.part_size)

    def _predicting(self, examples: Sequence[EncodedExample]) -> Turns[list[Prediction]]:
        """A part of a call; either all of its posts have an image or none has."""
        readings = [read(example, self.kit, scales=False) for example in examples]
        stack = self.stack(examples)
        whole = self.inputs([reading.item.input_ids for reading in readings], stack, None)
        selections = yield from selecting(self.network.selector, whole, readings, self.kit, score=self._scored)
        left = self.inputs(
            [shown_ids(*post, self.kit) for post in zip(examples, selections, strict=True)], stack, selections
        )
        answer = Answer(self.network.decider(left)[HUMANITARIAN])
        yield
        logits = torch.from_numpy(answer.get())
        found = [
            softmax(row.double() / self.config.temperature)
            if selection.words or selection.patches
            else np.asarray(self.config.prior)
            for row, selection in zip(logits, selections, strict=True)
        ]
        return [self._told(*post) for post in zip(examples, selections, found, strict=True)]

    def stack(self, examples: Sequence[EncodedExample]) -> ImageStack | None:
        """The images of a group of like posts, on the device; None without any."""
        images = [example.image for example in examples if example.image is not None]
        if not images:
            return None
        config = self.config.encoder
        side = config.size_px // config.patch_px
        return ImageStack.of(images, size_px=config.size_px, grid=(side, side), kind="bicubic", device=self.kit.device)

    def inputs(
        self, input_ids: Sequence[list[int]], stack: ImageStack | None, selections: Sequence[Selection] | None
    ) -> Inputs:
        """Whole posts, or what the selections leave of them; a post left without a patch is left without an image."""
        config, device = self.config.encoder, self.kit.device
        items = [Item(input_ids=ids) for ids in input_ids]
        inputs = collate(items, pad_id=self.tokenizer.pad_id, patch_px=config.patch_px).to(device)
        if stack is None:
            return inputs
        keep, seen = None, torch.ones(len(items), dtype=torch.bool)
        if selections is not None:
            chosen = stack.kept([selection.patches for selection in selections])
            keep, seen = sent(chosen, device), chosen.any(1)
        levels = stack.scaled(keep).float()
        dtype = next(self.network.decider.encoder.parameters()).dtype
        mask = sent(seen, device)[:, None, None].expand(-1, config.size_px, config.size_px)
        return replace(inputs, pixel_values=(levels * self._gain + self._shift).to(dtype), pixel_mask=mask)


class ReplayedEncoder(nn.Module):
    """A joint encoder whose `encode` is replayed; texts come back filled up to one of a few lengths, masked."""

    def __init__(self, encoder: JointEncoder) -> None:
        super().__init__()
        self.encoder, self.width, self.patch_px = encoder, encoder.width, encoder.patch_px
        self._replayed = Replayed(self._states)

    def encode(self, inputs: Inputs) -> JointStates:
        """As `JointEncoder.encode`."""
        n_more = -inputs.input_ids.shape[1] % REPLAYED_STEP
        input_ids, attention_mask = (F.pad(each, (0, n_more)) for each in (inputs.input_ids, inputs.attention_mask))
        patch_mask = None
        if inputs.pixel_mask is not None:
            patch_mask = inputs.pixel_mask[:, :: self.patch_px, :: self.patch_px]
        tokens, patches, pooled, flat, token_space, patch_space = self._replayed(
            input_ids, attention_mask, inputs.pixel_values, patch_mask
        )
        return JointStates(
            token_states=tokens,
            patch_states=patches,
            pooled=pooled,
            grid=(0, 0) if patch_mask is None else (patch_mask.shape[1], patch_mask.shape[2]),
            patch_mask=flat,
            token_space=token_space,
            patch_space=patch_space,
        )

    def _states(
        self, input_ids: Tensor, attention_mask: Tensor, pixel_values: Tensor | None, patch_mask: Tensor | None
    ) -> tuple[Tensor, ...]:
        seen = None if pixel_values is None else self.encoder.see(pixel_values)
        if patch_mask is None:
            patch_mask = attention_mask.new_zeros(len(input_ids), 0, 0)
        states = self.encoder.join(input_ids, attention_mask, seen, patch_mask)
        return (
            states.token_states,
            states.patch_states,
            states.pooled,
            states.patch_mask,
            states.token_space,
            states.patch_space,
        )


def compile_layers(module: nn.Module) -> None:
    """Has every layer of the module's stacks compiled at its first use; like layers share what is compiled.

    Where that fails, as without a C compiler, torch warns and the layers run as they are.
    """
    torch._dynamo.config.suppress_errors = True
    for child in module.modules():
        if isinstance(child, nn.ModuleList):
            for layer in child:
                layer.compile(dynamic=True)


def remember_position_bias(encoder: JointEncoder) -> None:
    """Keeps what MPNet adds to its attention for each length: it is made on the CPU, which a replay cannot do."""
    layers: Any = getattr(getattr(encoder, "text", None), "encoder", None)
    if not hasattr(layers, "compute_position_bias"):
        return
    compute = layers.compute_position_bias
    known: dict[int, Tensor] = {}

    def remembered(hidden: Tensor, **more: Any) -> Tensor:
        length = hidden.shape[1]
        if length not in known:
            known[length] = compute(hidden[:1], **more)  # (1, heads, T, T)
        return known[length]

    layers.compute_position_bias = remembered
