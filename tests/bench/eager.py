"""The same two stages built from plain transformers modules, fp32 and eager, to compare inference with."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import BertConfig, CLIPVisionConfig
from transformers.models.bert.modeling_bert import BertEncoder
from transformers.models.clip.modeling_clip import CLIPVisionModel

from model import Example, RationaleClassifier, checkpoint
from model.batched import BatchedRationaleClassifier
from model.config import ModelConfig
from model.encoders import LAYER_NORM_EPS, TextEncoder
from model.joint import folder
from model.joint.batched import BatchedJointClassifier
from model.network import Network
from model.tokens import WordTokenizer
from model.vision import Kept, VisionTower
from workers.device import Classifier


class PlainText(nn.Module):
    """Our text trunk's weights in BERT's own layers."""

    def __init__(self, ours: TextEncoder) -> None:
        super().__init__()
        width, ff_width = ours.layers[0].up.in_features, ours.layers[0].up.out_features
        config = BertConfig(
            hidden_size=width,
            intermediate_size=ff_width,
            num_attention_heads=ours.layers[0].n_heads,
            num_hidden_layers=len(ours.layers),
            layer_norm_eps=LAYER_NORM_EPS,
            attn_implementation="eager",
        )
        self.encoder = BertEncoder(config)
        for theirs, layer in zip(self.encoder.layer, ours.layers, strict=True):
            own = theirs.attention.self
            _copy_thirds(layer.qkv, own.query, own.key, own.value)
            _copy(layer.out, theirs.attention.output.dense)
            _copy(layer.attention_norm, theirs.attention.output.LayerNorm)
            _copy(layer.up, theirs.intermediate.dense)
            _copy(layer.down, theirs.output.dense)
            _copy(layer.output_norm, theirs.output.LayerNorm)

    def forward(self, embedded: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        added = None
        if attention_mask is not None:
            added = torch.where(attention_mask, 0.0, torch.finfo(embedded.dtype).min)[:, None, None, :]
        hidden: Tensor = self.encoder(embedded, attention_mask=added).last_hidden_state
        return hidden


class PlainVision(nn.Module):
    """Our tower's weights in CLIP's own model, which reads every patch of the blanked image."""

    def __init__(self, ours: VisionTower, size_px: int) -> None:
        super().__init__()
        self.side = ours.side
        width, _, patch_px, _ = ours.patches.weight.shape
        config = CLIPVisionConfig(
            hidden_size=width,
            intermediate_size=4 * width,
            num_attention_heads=ours.layers[0].n_heads,
            num_hidden_layers=len(ours.layers),
            image_size=size_px,
            patch_size=patch_px,
            attn_implementation="eager",
        )
        self.model = CLIPVisionModel(config)
        embeddings = self.model.embeddings
        with torch.no_grad():
            embeddings.patch_embedding.weight.copy_(ours.patches.weight)
            embeddings.class_embedding.copy_(ours.first)
            embeddings.position_embedding.weight.copy_(ours.positions)
            # CLIP's patches have no bias of their own; ours holds the normalisation of pixels
            embeddings.position_embedding.weight[1:].add_(ours.patches.bias)
        _copy(ours.norm, self.model.pre_layrnorm)
        for theirs, layer in zip(self.model.encoder.layers, ours.layers, strict=True):
            own = theirs.self_attn
            _copy_thirds(layer.qkv, own.q_proj, own.k_proj, own.v_proj)
            _copy(layer.out, own.out_proj)
            _copy(layer.attention_norm, theirs.layer_norm1)
            _copy(layer.output_norm, theirs.layer_norm2)
            _copy(layer.up, theirs.mlp.fc1)
            _copy(layer.down, theirs.mlp.fc2)

    def forward(self, pixel_values: Tensor, keep: Tensor | Kept | None = None) -> Tensor:
        pooled: Tensor = self.model(pixel_values).last_hidden_state[:, 0]
        return pooled


def plain_classifier(path: Path) -> RationaleClassifier:
    """The checkpoint with plain modules in both stages; its other code is ours."""
    return RationaleClassifier(*_plain(path), exact=True)


def plain_batched(path: Path, device: str) -> BatchedRationaleClassifier:
    """The same, many posts in a pass."""
    return BatchedRationaleClassifier(*_plain(path), device=device, exact=True, replays=False)


def eager_joint(path: Path, device: str) -> BatchedJointClassifier:
    """A `dual` checkpoint's own transformers modules in fp32 and eager, many posts in a pass."""
    network, config, tokenizer = folder.load(path)
    for stage in (network.selector, network.decider):
        for tower in (stage.encoder.text, stage.encoder.vision):
            tower.set_attn_implementation("eager")
    return BatchedJointClassifier(
        network, config, tokenizer, device=device, precision="float32", compiles=False, replays=False
    )


def _plain(path: Path) -> tuple[Network, ModelConfig, WordTokenizer]:
    network, config, tokenizer = checkpoint.load(path)
    network.text_selector.encoder = PlainText(network.text_selector.encoder)  # type: ignore[assignment]
    network.text_decider.encoder = PlainText(network.text_decider.encoder)  # type: ignore[assignment]
    network.image_decider.tower = PlainVision(network.image_decider.tower, config.image.size_px)  # type: ignore[assignment]
    return network, config, tokenizer


def rates(classifiers: Sequence[Classifier], examples: Sequence[Example], n_runs: int) -> list[list[float]]:
    """Posts/s of each classifier, in turns within one run."""
    for classifier in classifiers:
        classifier.predict(examples)
    found: list[list[float]] = [[] for _ in classifiers]
    for _ in range(n_runs):
        for classifier, runs in zip(classifiers, found, strict=True):
            start_s = time.perf_counter()
            classifier.predict(examples)
            runs.append(len(examples) / (time.perf_counter() - start_s))
    return found


def _copy(ours: nn.Module, theirs: nn.Module) -> None:
    theirs.load_state_dict(ours.state_dict())


def _copy_thirds(ours: nn.Linear, *theirs: nn.Linear) -> None:
    with torch.no_grad():
        for part, weight, bias in zip(theirs, ours.weight.chunk(3), ours.bias.chunk(3), strict=True):
            part.weight.copy_(weight)
            part.bias.copy_(bias)
