"""What the GPU's section counts and tells, as far as it can be held without a GPU."""

from __future__ import annotations

import pytest
import torch

from deploy.gpu_tables import gpu_tables
from model import Example, checkpoint
from model.batched import BatchedRationaleClassifier
from model.evaluation.speed import made_posts
from model.testing import tiny_checkpoint
from tests.bench.gpu import _flops_per_post, _networks


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> BatchedRationaleClassifier:
    path = tiny_checkpoint(tmp_path_factory.mktemp("tiny"))
    return BatchedRationaleClassifier(*checkpoint.load(path), device="cpu", exact=True, replays=False)


def test_arithmetic_of_a_post_is_counted_once_and_pictures_cost_more(classifier: BatchedRationaleClassifier) -> None:
    pictured, texts = made_posts(image=True)[:4], made_posts(image=False)[:4]
    alone = _flops_per_post(classifier, pictured[:1])
    assert _flops_per_post(classifier, [pictured[0]] * 8) == pytest.approx(alone, rel=0.01)
    assert alone > 2 * _flops_per_post(classifier, texts)


def test_arithmetic_is_at_least_the_towers_products(classifier: BatchedRationaleClassifier) -> None:
    """By hand: each kept patch and [CLS] meets every weight of the tower's layers once, in a product and a sum."""
    post = Example(text="flood", image=made_posts(image=True)[0].image)
    config, tower = classifier.config, classifier.network.image_decider.tower
    n_states = 1 + config.selection.n_patches * (tower.side // config.image.rows) ** 2
    n_weights = sum(weight.numel() for layer in tower.layers for weight in layer.parameters() if weight.ndim == 2)
    assert _flops_per_post(classifier, [post]) > 2 * n_states * n_weights


def test_networks_run_on_ready_inputs(classifier: BatchedRationaleClassifier) -> None:
    run = _networks(classifier, [*made_posts(image=True)[:3], *made_posts(image=False)[:3]])
    with torch.inference_mode():
        run()


def test_tables_tell_every_batch_size_and_what_was_missed() -> None:
    rows = [{"batch": 8, "posts_per_s": 1234.5, "joules_per_post": 0.5, "share_of_bf16_peak": 0.25}]
    key = {"what": "w", "median": 0.25, "spread": [0.2, 0.3], "runs": [0.2, 0.25, 0.3], "at_least": 0.4}
    summary = {
        "about": {"gpu": "A GPU", "machine": "m", "posts": "p", "versions": {"torch": "2"}},
        "share_of_bf16_peak": {**key, "reached": False},
        "figures": {
            "gpu_bf16_product": {"median": 6e14, "peak": 9e14, "side": 8192},
            **{f"gpu_dual_{kind}": {"rows": rows} for kind in ("posts", "posts_networks", "pictures")},
            "gpu_dual_pictures_networks": {"rows": rows},
        },
    }
    told = gpu_tables({"dual": summary})
    assert "| dual | `share_of_bf16_peak` | 0.4 | 0.25 (0.2 to 0.3) | **missed** |" in told
    assert "| dual | all with a picture | 8 | 1,234 | 0.500 | 1,234 | 0.250 |" in told
    assert gpu_tables({}) == ""
