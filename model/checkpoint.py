"""Reads and writes a checkpoint folder: safetensors, JSON, tokenizer; few bits at rest, never pickle."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from model import int4
from model.config import ModelConfig
from model.errors import CheckpointError
from model.network import Network
from model.tokens import WordTokenizer

M = TypeVar("M", bound=nn.Module)

WEIGHTS, CONFIG, TOKENIZER = "model.safetensors", "config.json", "tokenizer.json"
_INT8, _INT4, _SCALE = ".int8", ".int4", ".scale"
_MIN_PACKED_SIZE = 4096  # smaller tensors stay float32: they cost nothing and matter most
_MIN_INT4_SIZE = 65_536


def save(path: Path, network: Network, config: ModelConfig, tokenizer_json: str) -> ModelConfig:
    """Writes the folder and returns the config with the digests of its other files filled in."""
    path.mkdir(parents=True, exist_ok=True)
    weights = save_tensors(pack(network.state_dict()))
    config = replace(config, weights_sha256=_sha256(weights), tokenizer_sha256=_sha256(tokenizer_json.encode()))
    (path / WEIGHTS).write_bytes(weights)
    (path / CONFIG).write_text(json.dumps(config.to_dict(), indent=1) + "\n", encoding="utf-8")
    (path / TOKENIZER).write_text(tokenizer_json, encoding="utf-8")
    return config


def load(path: Path) -> tuple[Network, ModelConfig, WordTokenizer]:
    """The network with its stored weights, in eval mode; raises `CheckpointError` on any doubt."""
    config = load_config(path)
    state = load_weights(path, config.weights_sha256)
    tokenizer = load_tokenizer(path, config.tokenizer_sha256, config.text.max_tokens, config.text.n_pieces)
    with torch.device("meta"):
        network = Network(config)
    fill(network, state, path / WEIGHTS)
    return network.eval(), config, tokenizer


def load_config(path: Path) -> ModelConfig:
    values = read_config(path)
    if "kind" in values:
        raise CheckpointError(f"{path} is a {values['kind']} checkpoint; load it with `model.load_classifier`")
    return ModelConfig.parse(values)


def load_weights(path: Path, expected_sha256: str) -> dict[str, Tensor]:
    """The folder's float32 tensors, if the file is the one that config.json names."""
    return unpack(_decode(_checked(path / WEIGHTS, expected_sha256), path / WEIGHTS))


def load_tokenizer(path: Path, expected_sha256: str, max_tokens: int, n_pieces: int) -> WordTokenizer:
    """The folder's tokenizer, if the file is the one that config.json names: another's ids would mean other words."""
    _checked(path / TOKENIZER, expected_sha256)
    tokenizer = WordTokenizer.from_file(_existing(path / TOKENIZER), max_tokens=max_tokens)
    if tokenizer.n_pieces != n_pieces:
        raise CheckpointError(
            f"{path / TOKENIZER} has {tokenizer.n_pieces} pieces, config.json expects {n_pieces};"
            " copy both files from the same release"
        )
    return tokenizer


def read_config(path: Path) -> dict[str, Any]:
    """The decoded config.json of any kind of checkpoint, its keys not yet checked."""
    if not path.is_dir():
        raise CheckpointError(f"{path} is not a checkpoint folder; give one that holds {WEIGHTS} and {CONFIG}")
    try:
        values = json.loads(_read(path / CONFIG))
    except ValueError as error:
        raise CheckpointError(f"{path / CONFIG} is not JSON ({error}); copy it again") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path / CONFIG} is not a JSON object; copy it again")
    return values


def as_stored(module: M) -> M:
    """A copy of the module with the weights that a checkpoint would give back."""
    copied = copy.deepcopy(module)
    copied.load_state_dict(unpack(pack(module.state_dict())))
    return copied


def pack(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Large matrices as int4, other large tensors as int8, with their scales; the rest as they are."""
    packed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        tensor = tensor.detach().cpu().contiguous()
        if tensor.ndim < 2 or tensor.numel() < _MIN_PACKED_SIZE:
            packed[name] = tensor.clone()
        elif _is_int4(tensor):
            packed[name + _INT4], packed[name + _SCALE] = int4.pack(tensor)
        else:
            rows = tensor.flatten(1)
            scale = (rows.abs().amax(1) / 127.0).clamp(min=1e-12)
            packed[name + _INT8] = torch.round(rows / scale[:, None]).to(torch.int8).view(tensor.shape)
            packed[name + _SCALE] = scale
    return packed


def _is_int4(tensor: Tensor) -> bool:
    is_matrix = tensor.numel() == tensor.shape[0] * tensor.shape[1]  # a linear layer, or a convolution of 1 x 1
    return is_matrix and tensor.numel() >= _MIN_INT4_SIZE and tensor.shape[1] % int4.GROUP == 0


def unpack(packed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The float32 tensors that `pack` stored; its inverse up to rounding."""
    state: dict[str, Tensor] = {}
    for name, tensor in packed.items():
        base, _, kind = name.rpartition(".")
        if f".{kind}" in (_INT8, _INT4):
            scale = packed.get(base + _SCALE)
            if scale is None or scale.shape[:1] != tensor.shape[:1]:
                raise CheckpointError(f"{name} has no matching {base + _SCALE}; copy the checkpoint again")
            if f".{kind}" == _INT4:
                state[base] = int4.unpack(tensor, scale)
            else:
                state[base] = tensor.float() * scale.view(-1, *[1] * (tensor.ndim - 1))
        elif f".{kind}" != _SCALE:
            state[name] = tensor
        elif base + _INT8 not in packed and base + _INT4 not in packed:
            raise CheckpointError(f"{name} scales a tensor that is not there; copy the checkpoint again")
    return state


def fill(network: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Puts the tensors into the network for inference, if they are exactly its own and finite."""
    expected = {name: tensor.shape for name, tensor in network.state_dict().items()}
    missing, extra = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    if missing or extra:
        raise CheckpointError(
            f"{path} lacks keys {missing[:3]} and has unknown keys {extra[:3]}; it is from another version"
        )
    for name, shape in expected.items():
        if state[name].shape != shape or state[name].dtype != torch.float32:
            raise CheckpointError(
                f"{path}: {name} is {state[name].dtype} {tuple(state[name].shape)}, config.json implies float32"
                f" {tuple(shape)}; copy both files from the same release"
            )
        if not torch.isfinite(state[name]).all():
            raise CheckpointError(f"{path}: {name} holds values that are not finite; train or copy it again")
    network.load_state_dict(state, assign=True)
    for parameter in network.parameters():
        parameter.requires_grad_(False)


def _checked(path: Path, expected_sha256: str) -> bytes:
    content = _read(path)
    if _sha256(content) != expected_sha256:
        raise CheckpointError(
            f"{path} has sha256 {_sha256(content)}, config.json expects {expected_sha256};"
            " copy both files from the same release"
        )
    return content


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _decode(weights: bytes, path: Path) -> dict[str, Tensor]:
    try:
        return load_tensors(weights)
    except (SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{path} is not a safetensors file ({error}); pickled weights are refused, export them as safetensors"
        ) from error


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise CheckpointError(f"{path} is missing; copy the whole checkpoint folder")
    return path


def _read(path: Path) -> bytes:
    return _existing(path).read_bytes()
