"""The steps of a training run's image half; each caches what it made. Fits no head."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model import checkpoint
from model.config import ImageConfig
from model.data import datasets
from model.data.corpus import Corpus
from model.int8 import to_int8
from model.network import ImageSelector, TextSelector
from model.records import CLASSES
from model.training import crossval, image_reading, pretrained, protocol, teacher, train_image
from model.training.image_reading import TowerSettings
from model.training.masked_texts import whole
from model.training.steps import SELECTION, Run, fit_teacher
from model.training.text_kit import TextKit
from model.vision import VisionTower

IMAGE = ImageConfig(
    size_px=224,
    rows=7,
    cols=7,
    selector_width=1.0,
    selector_depth=1.0,
    selector_head_width=pretrained.HEAD_WIDTH,
    decider_patch_px=16,
    decider_width=768,
    decider_layers=8,
    decider_heads=12,
)
TOWER = TowerSettings()


def fit_image_stage_1(
    run: Run, corpus: Corpus, kit: TextKit, text_selector: TextSelector
) -> tuple[ImageSelector, Tensor]:
    """The image selector, and every image's patch mask (N, P); also fills `text_selector.space`."""
    encoder = checkpoint.as_stored(pretrained.lite_encoder(run.weights, "lite0"))
    patch_rows = run.cached(
        "patches",
        lambda: {"patches": train_image.encode_images(corpus.images, encoder, IMAGE.size_px, "stage 1 images")},
    )["patches"]
    words = train_image.word_rows(corpus.images, kit, text_selector)
    torch.manual_seed(run.seed)
    selector = ImageSelector(IMAGE, SELECTION.space_width, len(CLASSES))
    selector.encoder.load_state_dict(encoder.state_dict())
    labels = torch.tensor([row.label for row in corpus.images])
    usable = torch.tensor(corpus.free)

    def fit() -> dict[str, Tensor]:
        train_image.fit_image_space(
            selector, text_selector.space, patch_rows, words, labels, usable, SELECTION, run.seed
        )
        learnt = {key: value for key, value in selector.state_dict().items() if not key.startswith("encoder.")}
        return learnt | {f"words.{key}": value for key, value in text_selector.space.state_dict().items()}

    state = run.cached("space", fit)
    text_selector.space.load_state_dict(
        {key.removeprefix("words."): value for key, value in state.items() if key.startswith("words.")}
    )
    learnt = {key: value for key, value in state.items() if not key.startswith("words.")}
    selector.load_state_dict(selector.state_dict() | learnt)
    return selector.eval(), train_image.select_patches(selector, text_selector.space, patch_rows, words, SELECTION)


def fit_image_stage_2(run: Run, corpus: Corpus) -> VisionTower:
    """Stage 2's tower: CLIP's first layers, the last of them taught on images of which none is a test row's."""
    tower = pretrained.clip_tower(run.weights, IMAGE.decider_layers)
    index = [k for k in range(len(corpus.images)) if corpus.free[k]]
    rows = [corpus.images[k] for k in index]
    generator = torch.Generator().manual_seed(run.seed)

    def lower() -> dict[str, Tensor]:
        trunk = to_int8(pretrained.clip_tower(run.weights, TOWER.n_frozen_layers))
        masks = [
            image_reading.random_cells(len(rows), IMAGE, SELECTION.n_patches, generator) for _ in range(TOWER.n_masks)
        ]
        states = [image_reading.lower_states(rows, cells, trunk, TOWER.n_frozen_layers, IMAGE) for cells in masks]
        return {"states": torch.stack(states)}

    def fit() -> nn.Module:
        tower_rows = image_reading.TowerRows(
            states=run.cached("lower_states", lower)["states"],
            teacher=whole_features(run, corpus)[index].float(),
            labels=torch.tensor([row.label for row in rows]),
            disasters=torch.tensor([row.disaster for row in rows]),
        )
        image_reading.fit_tower(tower, tower_rows, TOWER, run.seed)
        return tower

    run.trained("image_reader", tower, fit)
    return tower


def whole_features(run: Run, corpus: Corpus) -> Tensor:
    """CLIP's [CLS] of every whole image, (N, D)."""

    def encode() -> dict[str, Tensor]:
        tower = to_int8(pretrained.clip_tower(run.weights))
        return {"features": train_image.whole_features(corpus.images, tower, IMAGE.size_px)}

    return run.cached("whole_features", encode)["features"]


def whole_posts(run: Run, corpus: Corpus) -> protocol.Whole:
    """Whole test images as CLIP's whole tower sees them, whole test and dev texts as the teacher does."""
    features = whole_features(run, corpus).float()
    test = [k for k, row in enumerate(corpus.images) if row.split == "test"]
    other = [k for k, row in enumerate(corpus.images) if corpus.free[k] and row.label >= 0]
    rows = [datasets.TextRow(row_id=row.row_id, text=row.text, label=row.label) for row in corpus.images]
    kit = fit_teacher(run, corpus)
    text, text_dev = (teacher.read(whole(some), kit) for some in ([rows[k] for k in test], corpus.dev))
    view = crossval.View(text=text, features=features[test], other_features=features[other])
    return protocol.Whole(view=view, text_dev=text_dev)
