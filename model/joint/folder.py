"""Reads and writes a joint checkpoint's folder, under the same checks as the shipped kind."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
import torch
from safetensors.torch import save as save_tensors

from model import checkpoint
from model.checkpoint import CONFIG, TOKENIZER, WEIGHTS
from model.joint.build import make_network
from model.joint.config import JointConfig
from model.joint.network import TwoStage
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
    with torch.random.fork_rng(devices=[]):
        network = make_network(config)
    checkpoint.fill(network, state, path / WEIGHTS)
    return network.eval(), config, tokenizer
