"""`python -m model.calibrate`: fits fusions and alert threshold on a checkpoint's own encoders, and cross-validates.

For a change of the limits of the selection, which needs no new weights. Heads for the cross-validation are
fitted per fold; the checkpoint keeps its own.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch

from model import checkpoint, crossval, train_image
from model.config import ImageConfig
from model.corpus import Corpus, load_corpus
from model.network import Network
from model.train import HELD_OUT_FOLD, Run, make_config, write_json
from model.train_text import TextKit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True, help="its config.json is written anew")
    parser.add_argument("--data", type=Path, required=True, help="folder of the training tables and images")
    parser.add_argument("--cache", type=Path, required=True, help="folder for image features, made anew when empty")
    parser.add_argument("--results", type=Path, required=True, help="gets crossval.json; holds held_out_ids.txt")
    parser.add_argument("--version", required=True, help="of the checkpoint from now on: finding ids depend on it")
    parser.add_argument("--min-words", type=int, help="the selection's budget for short posts")
    parser.add_argument("--head-seeds", type=int, default=5, help="image heads per fold, for the spread")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.cache.mkdir(parents=True, exist_ok=True)
    run = Run(data=args.data, weights=Path(), cache=args.cache, seed=0)

    network, config, tokenizer = checkpoint.load(args.checkpoint)
    limits = config.selection if args.min_words is None else replace(config.selection, min_words=args.min_words)
    kit = TextKit(
        tokenizer=tokenizer,
        tokenizer_json="",
        embeddings=network.embeddings,
        config=config.text,
        selection=limits,
    )
    views = _views(run, load_corpus(args.data), network, kit, config.image)
    write_json(args.results / "crossval.json", crossval.evaluate(views, n_seeds=args.head_seeds))
    held_out = (args.results / "held_out_ids.txt").read_text(encoding="utf-8").split()
    assert held_out == crossval.fold_ids(views, HELD_OUT_FOLD), "these folds are not those of the checkpoint"
    fitted = crossval.fit_fold(views.rationale, views, HELD_OUT_FOLD, run.seed)
    fresh = make_config(run, kit, fitted, views.text_dev, views.dev_labels)
    calibrated = replace(
        config,
        version=args.version,
        selection=limits,
        fusion_both=fresh.fusion_both,
        fusion_text=fresh.fusion_text,
        fusion_image=fresh.fusion_image,
        alert_threshold=fresh.alert_threshold,
    )
    text = json.dumps(calibrated.to_dict(), indent=1) + "\n"
    (args.checkpoint / checkpoint.CONFIG).write_text(text, encoding="utf-8")


def _views(run: Run, corpus: Corpus, network: Network, kit: TextKit, image: ImageConfig) -> crossval.Views:
    selector, decider = network.image_selector, network.image_decider
    patch_rows = run.cached(
        "patches",
        lambda: {
            "patches": train_image.encode_images(
                corpus.images, selector.encoder, image.size_px, lambda _, pixels: pixels, "stage 1 images"
            )
        },
    )["patches"]
    words = train_image.word_rows(corpus.images, kit, network.text_selector)
    masks = train_image.select_patches(selector, network.text_selector.space, patch_rows, words, kit.selection)
    return crossval.views(run, corpus, kit, network.text_selector, network.text_decider, decider.encoder, masks, image)


if __name__ == "__main__":
    main()
