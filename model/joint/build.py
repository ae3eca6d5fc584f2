"""Makes encoders and whole networks from their configs, or from pretrained weights; reads no data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec
from torch import nn

from model.errors import ModelError
from model.joint.compact import CompactEncoder
from model.joint.config import EncoderConfig, JointConfig
from model.joint.dual import DualEncoder
from model.joint.network import Decider, Selector, TwoStage
from model.joint.states import JointEncoder
from model.joint.vilt import ViltEncoder


class WeightsError(ModelError):
    """Pretrained weights that are not there or do not fit; the message names them and the fix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pretrained:
    encoder: JointEncoder
    config: EncoderConfig  # with the shape of the weights


def make_encoder(config: EncoderConfig) -> JointEncoder:
    """The architecture with new weights."""
    try:
        if config.kind == "vilt":
            return _checked(ViltEncoder(config.shape), config)
        if config.kind == "dual":
            return _checked(DualEncoder(config.shape), config)
        return _checked(CompactEncoder.of_shape(config.shape), config)
    except KeyError as error:
        raise WeightsError(f"encoder.shape lacks {error}, which the kind {config.kind!r} needs") from error


def pretrained_encoder(config: EncoderConfig, source: str) -> Pretrained:
    """The architecture with weights from a folder or, for ViLT, a hub id."""
    try:
        if config.kind == "vilt":
            encoder, shape = ViltEncoder.pretrained(source)
            return Pretrained(encoder=_checked(encoder, config), config=msgspec.structs.replace(config, shape=shape))
        if config.kind == "dual":
            for part in ("text", "vision"):
                if not (Path(source) / part / "config.json").is_file():
                    raise WeightsError(f"{Path(source) / part} is not a Hugging Face model folder; give --weights DIR")
            dual, shape = DualEncoder.pretrained(source, config.shape)
            return Pretrained(encoder=_checked(dual, config), config=msgspec.structs.replace(config, shape=shape))
    except (OSError, ValueError) as error:
        line = " ".join(str(error).split())[:300]
        raise WeightsError(
            f"no weights at {source!r} ({line}); give a folder or a reachable hub id by --weights"
        ) from error
    raise WeightsError(f"the kind {config.kind!r} has no pretrained weights of its own; leave --weights out")


def pretrained_tokenizer(config: EncoderConfig, source: str) -> str:
    """The JSON of the tokenizer that belongs to the weights."""
    for place in (Path(source) / "tokenizer.json", Path(source) / "text" / "tokenizer.json"):
        if place.is_file():
            return place.read_text(encoding="utf-8")
    if Path(source).is_dir():
        raise WeightsError(f"{source} holds no tokenizer.json, nor text/tokenizer.json; copy the tokenizer there")
    from transformers import AutoTokenizer

    try:
        tokenizer: str = AutoTokenizer.from_pretrained(source).backend_tokenizer.to_str()
    except (OSError, ValueError) as error:
        raise WeightsError(f"no tokenizer at {source!r} ({' '.join(str(error).split())[:200]})") from error
    return tokenizer


def with_vocabulary(config: EncoderConfig, n_pieces: int) -> EncoderConfig:
    """The config for a new tokenizer of that many pieces."""
    shape = dict(config.shape)
    if config.kind == "vilt":
        shape |= {"vocab_size": n_pieces, "max_position_embeddings": config.max_tokens}
    elif config.kind == "dual":
        shape["text"] = {**shape.get("text", {}), "vocab_size": n_pieces}
    else:
        shape |= {"n_pieces": n_pieces, "max_tokens": config.max_tokens}
    return msgspec.structs.replace(config, shape=shape)


def make_network(config: JointConfig) -> TwoStage:
    return TwoStage(
        Selector(make_encoder(config.encoder), config.gru_width, config.tasks),
        Decider(make_encoder(config.encoder), config.tasks),
    )


def freeze(module: nn.Module) -> None:
    for parameter in module.parameters():
        parameter.requires_grad_(False)


def _checked(encoder: JointEncoder, config: EncoderConfig) -> JointEncoder:
    if encoder.patch_px != config.patch_px:
        raise WeightsError(f"the weights have {encoder.patch_px} px patches, encoder.patch_px says {config.patch_px}")
    return encoder
