"""Reads and writes a joint checkpoint's folder, under the same checks as the shipped kind."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import torch
from safetensors.torch import save as save_tensors

from model import checkpoint
from model.checkpoint import CONFIG, TOKENIZER, WEIGHTS
from model.errors import CheckpointError
from model.joint.build import make_network
from model.joint.config import EncoderConfig, JointConfig
from model.joint.network import TwoStage
from model.joint.states import Inputs
from model.tokens import WordTokenizer


def save(path: Path, network: TwoStage, config: JointConfig, tokenizer_json: str, *, int8: bool) -> JointConfig:
    """Writes weights, config and tokenizer; returns the config with the digest and the version that follows from it."""
    path.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().float().cpu().contiguous() for name, tensor in network.state_dict().items()}
    weights = save_tensors(checkpoint.pack(state) if int8 else state)
    digest = hashlib.sha256(weights).hexdigest()
    config = msgspec.structs.replace(
        config,
        version=f"{config.name}-{digest[:12]}",
        weights_sha256=digest,
        tokenizer_sha256=hashlib.sha256(tokenizer_json.encode()).hexdigest(),
    )
    (path / WEIGHTS).write_bytes(weights)
    (path / TOKENIZER).write_text(tokenizer_json, encoding="utf-8")
    (path / CONFIG).write_text(config.to_json(), encoding="utf-8")
    return config


def load(path: Path) -> tuple[TwoStage, JointConfig, WordTokenizer]:
    """The network with its stored weights, in eval mode; raises `CheckpointError` on any doubt."""
    config = JointConfig.parse(checkpoint.read_config(path))
    state = checkpoint.load_weights(path, config.weights_sha256)
    tokenizer = checkpoint.load_tokenizer(path, config.tokenizer_sha256, config.encoder.max_tokens, config.n_pieces)
    with torch.random.fork_rng(devices=[]), _fitting(path):
        network = make_network(config)
    checkpoint.fill(network, state, path / WEIGHTS)
    with _fitting(path):
        _try(network.eval(), config.encoder, tokenizer)
    return network, config, tokenizer


@contextmanager
def _fitting(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # transformers and torch raise nearly anything for a shape that makes no network
        line = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise CheckpointError(
            f"{path / CONFIG}: the encoder's shape makes no working network ({line}); copy the checkpoint again"
        ) from error


@torch.inference_mode()
def _try(network: TwoStage, encoder: EncoderConfig, tokenizer: WordTokenizer) -> None:
    """The longest post with an image through both stages: not all of a shape shows in that of the weights."""
    T, S = encoder.max_tokens, encoder.size_px  # tokens, side of the image
    inputs = Inputs(
        input_ids=torch.full((1, T), tokenizer.hidden_id),
        attention_mask=torch.ones(1, T, dtype=torch.bool),
        pixel_values=torch.zeros(1, 3, S, S),
        pixel_mask=torch.ones(1, S, S, dtype=torch.bool),
    )
    network.selector(inputs)
    network.decider(inputs)
