"""`python -m model.joint.packages`: the towers of `dual` from pip packages, where no model hub can be reached.

Reads the folder of unpacked packages that `python -m model.training.train` reads, and writes `vision/` and `text/` for
`sitrep train --recipe dual --weights`.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from model.training.pretrained import clip_state, tokenizer_path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help="folder of the unpacked pretrained packages")
    parser.add_argument("--out", type=Path, required=True, help="gets vision/ and text/")
    args = parser.parse_args()
    write_towers(args.weights, args.out)


def write_towers(weights: Path, out: Path) -> None:
    """CLIP ViT-B/16's vision tower, de-quantised, and all-MiniLM-L6-v2 with its tokenizer."""
    from transformers import BertModel, CLIPVisionConfig, CLIPVisionModel

    vision = CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=768,
            intermediate_size=3072,
            num_hidden_layers=12,
            num_attention_heads=12,
            image_size=224,
            patch_size=16,
        )
    )
    known = vision.state_dict()
    state = clip_state(weights)
    missing = sorted(known.keys() - state.keys())
    assert not missing, f"the package has another CLIP tower: it lacks {missing[:3]}"
    vision.load_state_dict({name: state[name] for name in known})
    vision.save_pretrained(out / "vision")
    text = tokenizer_path(weights).parent
    BertModel.from_pretrained(text).save_pretrained(out / "text")
    shutil.copyfile(tokenizer_path(weights), out / "text" / "tokenizer.json")


if __name__ == "__main__":
    main()
