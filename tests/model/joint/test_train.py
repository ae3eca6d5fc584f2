"""`sitrep train` from an unpacked archive to a checkpoint that answers, whatever interrupts it."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from transformers import BertConfig, BertModel, CLIPVisionConfig, CLIPVisionModel, ViltConfig, ViltModel

from model import CLASSES, Example, load_classifier
from model.joint import train
from model.joint.archive import load_archive
from model.joint.build import WeightsError, pretrained_encoder
from model.joint.classifier import JointClassifier
from model.joint.recipe import Recipe, load_recipe
from model.joint.report import class_prior
from model.joint.vocabulary import tokenizer_from_texts
from model.records import HUMANITARIAN
from tests.model.conftest import noise
from tests.model.joint.archive_layout import N_ROWS
from tests.model.joint.conftest import VILT, encoder_config, random_posts, sitrep

ROOT = Path(__file__).resolve().parents[3]
SHORT = ("--set", "training.n_epochs=1", "--set", "selector.evidence_epochs=1", "--threads", "1", "--device", "cpu")
FILES = {
    "model.safetensors",
    "config.json",
    "tokenizer.json",
    "calibration.json",
    "metrics.json",
    "reliability.png",
    "MODEL_CARD.md",
}


def _metrics(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / "metrics.json").read_text("utf-8"))
    return loaded


def _sha256(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def test_the_folder_is_complete_and_its_state_is_gone(trained_path: Path, archive_folder: Path) -> None:
    assert {path.name for path in trained_path.iterdir()} == FILES
    metrics, config = _metrics(trained_path), json.loads((trained_path / "config.json").read_text())
    assert metrics["version"] == config["version"] == f"tiny-{_sha256(trained_path)[:12]}"
    assert config["image_edge_px"] == 128, "as the recipe reads pictures"
    assert config["data_digest"] == load_archive(archive_folder, [HUMANITARIAN], drop_copies=False).digest
    calibration = json.loads((trained_path / "calibration.json").read_text())
    assert calibration["temperature"] == config["temperature"] > 0
    assert calibration["nll_after"] <= calibration["nll_before"]
    card = (trained_path / "MODEL_CARD.md").read_text("utf-8")
    assert f"{metrics['humanitarian.test']['rationale_only']['macro_f1']:.3f}" in card


def test_it_learns_better_than_chance_from_rationales_alone(trained_path: Path) -> None:
    """Five balanced classes: chance is 0.2."""
    measured = _metrics(trained_path)["humanitarian.test"]
    assert measured["rationale_only"]["n"] == 5 * N_ROWS["test"]
    assert measured["rationale_only"]["macro_f1"] > 0.5
    assert 0 < measured["selected"]["word_share"] <= 0.55
    assert measured["selected"]["patch_share"] == 0.25


def test_the_classifier_agrees_with_the_numbers_of_its_training(
    trained: JointClassifier, trained_path: Path, archive_folder: Path
) -> None:
    """The test rows through the public face score what metrics.json says."""
    from PIL import Image

    posts = load_archive(archive_folder, [HUMANITARIAN], drop_copies=False).test(HUMANITARIAN)
    hits = 0
    for post in posts:
        assert post.image is not None
        with Image.open(post.image) as image:
            pixels = torch.tensor(list(image.convert("RGB").tobytes()), dtype=torch.uint8)
            array = pixels.view(image.height, image.width, 3).numpy()
        (prediction,) = trained.predict([Example(text=post.text, image=array)])
        hits += CLASSES.index(prediction.label) == post.labels[HUMANITARIAN]
    accuracy = _metrics(trained_path)["humanitarian.test"]["rationale_only"]["accuracy"]
    assert hits / len(posts) == pytest.approx(accuracy)


def test_a_finished_run_is_not_made_again_and_not_overwritten(
    trained_path: Path, archive_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = _sha256(trained_path)
    arguments = ("train", "--recipe", "tiny", "--data", str(archive_folder), "--out", str(trained_path))
    assert sitrep(*arguments) == 0
    assert "is finished already" in capsys.readouterr().err
    marks = tmp_path / "marks.csv"
    marks.write_text(
        "tweet_id,tweet_text,corrected_label,informative_content\n"
        "1,bridge down,infrastructure_and_utilities_damage,bridge down\n"
    )
    weights = tmp_path / "weights"
    weights.mkdir()
    others = [("--seed", "1"), ("--rationales", str(marks)), ("--weights", "elsewhere"), ("--weights", str(weights))]
    for other in others:
        assert sitrep(*arguments, *other) == 1
        assert "another --out" in capsys.readouterr().err
    assert _sha256(trained_path) == before


def test_weights_are_told_apart_by_what_is_in_their_folder(tmp_path: Path) -> None:
    """Other files under the same path would otherwise be trained on from where the former left off."""
    recipe = load_recipe("tiny")
    assert isinstance(recipe, Recipe)
    request = train.Request(recipe=recipe, data=tmp_path, out=tmp_path, weights=str(tmp_path))
    file = tmp_path / "text" / "model.safetensors"
    file.parent.mkdir()
    keys = []
    for content in (b"one", b"two", b"one"):
        file.write_bytes(content)
        keys.append(train._weights_digest(request))
    assert keys[0] == keys[2] != keys[1]


def test_marked_tweets_of_held_out_posts_are_not_trained_on(
    archive_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever `drop_copies` says; how many is told, and the data's digest covers the file."""
    archive = load_archive(archive_folder, [HUMANITARIAN], drop_copies=False)
    marks = tmp_path / "marks.csv"
    marks.write_text(
        "tweet_id,tweet_text,corrected_label,informative_content\n"
        f"{archive.dev(HUMANITARIAN)[0].row_id.split('_')[0]},bridge down,infrastructure_and_utilities_damage,bridge\n"
        f"1,rt @a {archive.test(HUMANITARIAN)[0].text.upper()},caution_and_advice,rt @a\n"
        "2,bridge down,infrastructure_and_utilities_damage,bridge down\n",
        encoding="utf-8-sig",
    )
    out = tmp_path / "out"
    arguments = ("train", "--recipe", "tiny", "--data", str(archive_folder), "--out", str(out), *SHORT)
    assert sitrep(*arguments, "--rationales", str(marks)) == 0
    assert "2 of 3 rows of --rationales are left out" in capsys.readouterr().err
    run = _metrics(out)["run"]
    assert (run["human_rationales"], run["n_train"]) == (1, len(archive.train) + 1)
    assert json.loads((out / "config.json").read_text())["data_digest"] not in ("", archive.digest)


def test_folder_of_somebody_elses_work_is_left_alone(archive_folder: Path, tmp_path: Path) -> None:
    """As with `--out .` in a project; and a picture that is broken costs its post the picture, not the run."""
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "thesis.txt").write_text("mine")
    broken = tmp_path / "broken"
    shutil.copytree(archive_folder, broken)
    some = sorted(broken.glob("CrisisMMD_v2.0/data_image/*/*/*.jpg"))[:3]
    for path in some:
        path.write_bytes(path.read_bytes()[:200])
    assert sitrep("train", "--recipe", "tiny", "--data", str(broken), "--out", str(tmp_path), *SHORT) == 0
    assert (tmp_path / "work" / "thesis.txt").read_text() == "mine"


def test_prior_is_of_labelled_rows_alone() -> None:
    """Rows of another task are no class of this one."""
    assert class_prior(torch.tensor([2, -1, 2, 1, -1, 4])) == (0.0, 0.25, 0.5, 0.0, 0.25)


@pytest.mark.timeout(400)
def test_killed_it_ends_with_the_weights_of_an_uninterrupted_run(
    archive_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The kill falls in stage 2; `test_fit` stops the loop at every single step."""
    arguments = ("train", "--recipe", "tiny", "--data", str(archive_folder), *SHORT, "--set", "training.save_every_s=0")
    out = tmp_path / "killed"
    with subprocess.Popen(
        [sys.executable, "-m", "deploy.cli", *arguments, "--out", str(out)], cwd=ROOT, stderr=subprocess.DEVNULL
    ) as process:
        deadline = time.monotonic() + 300
        try:
            while not (out / ".sitrep-train" / "stage-2.state").exists():
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.02)
        finally:
            process.send_signal(signal.SIGKILL)
    assert not (out / "config.json").exists(), "it had finished: nothing is tested"
    assert sitrep(*arguments, "--out", str(out)) == 0
    assert "class evidence" not in capsys.readouterr().err, "found before the kill"
    assert sitrep(*arguments, "--out", str(tmp_path / "whole")) == 0
    assert "class evidence" in capsys.readouterr().err
    assert _sha256(out) == _sha256(tmp_path / "whole")


@pytest.mark.timeout(240)
def test_vilt_learns_three_tasks_from_marked_words_with_a_soft_heatmap(archive_folder: Path, tmp_path: Path) -> None:
    """The paper's kind at toy size, from a local folder of weights, with images of several shapes."""
    texts = [post.text for post in load_archive(archive_folder, [HUMANITARIAN], drop_copies=False).train]
    tokenizer_json = tokenizer_from_texts(texts, 300)
    weights = tmp_path / "weights"
    n_pieces = len(json.loads(tokenizer_json)["model"]["vocab"])
    ViltModel(ViltConfig(**(VILT | {"vocab_size": n_pieces, "image_size": 96}))).save_pretrained(weights)
    (weights / "tokenizer.json").write_text(tokenizer_json, encoding="utf-8")
    marks = tmp_path / "marks.csv"
    marks.write_text(
        "tweet_id,tweet_text,corrected_label,informative_content\n"
        "1,old bridge collapsed near the mill,infrastructure_and_utilities_damage,bridge collapsed\n"
        "2,please donate blankets after the storm,rescue_volunteering_and_donation_effort,donate blankets\n"
    )
    arguments = ("train", "--recipe", "vilt", "--data", str(archive_folder), "--out", str(tmp_path / "out"), *SHORT)
    changed = (
        *("encoder.size_px=96", "encoder.max_edge_px=160", "transfer.heatmap=soft", "transfer.beta=0.1"),
        *("tasks.informative=0.5", "tasks.damage=0.5", "training.learning_rate=1e-3", "training.batch_size=16"),
    )
    settings = [part for change in changed for part in ("--set", change)]
    assert sitrep(*arguments, *settings, "--weights", str(weights), "--rationales", str(marks)) == 0
    metrics = _metrics(tmp_path / "out")
    assert {"humanitarian.test", "informative.test", "damage.test"} <= set(metrics)
    assert metrics["run"]["human_rationales"] == 2 and "stage_1_evidence" not in metrics["run"]["history"]
    calibration = json.loads((tmp_path / "out" / "calibration.json").read_text("utf-8"))
    classifier = load_classifier(tmp_path / "out")
    assert isinstance(classifier, JointClassifier)
    for task in ("informative", "damage"):
        fitted = calibration["further"][task]
        assert fitted["temperature"] == classifier.config.temperatures[task] != 1.0
        assert fitted["n_dev"] == metrics[f"{task}.dev"]["rationale_only"]["n"]
        assert fitted["ece_after"] == pytest.approx(metrics[f"{task}.dev"]["rationale_only"]["ece"])
    post = Example(text="bridge collapsed near the old mill", image=noise(80, 130))
    (prediction,) = classifier.predict([post])
    assert prediction.image is not None and (prediction.image.rows, prediction.image.cols) == (3, 4)
    (tasks,) = classifier.predict_tasks([post])
    assert set(tasks) == {"humanitarian", "informative", "damage"}
    assert all(sum(probs.values()) == pytest.approx(1.0) for probs in tasks.values())
    classifier.config = msgspec.structs.replace(classifier.config, temperatures={})
    (plain,) = classifier.predict_tasks([post])
    scaled, unscaled = (
        math.log(probs["damage"]["severe_damage"] / probs["damage"]["mild_damage"]) for probs in (tasks, plain)
    )
    assert scaled * calibration["further"]["damage"]["temperature"] == pytest.approx(unscaled)


@pytest.mark.timeout(240)
def test_a_frozen_tower_is_seen_once_and_stays_as_it_was(archive_folder: Path, tmp_path: Path) -> None:
    """`dual` from a folder of towers; its vision tower frozen, what it sees cached."""
    weights = tmp_path / "weights"
    texts = [post.text for post in load_archive(archive_folder, [HUMANITARIAN], drop_copies=False).train]
    tokenizer_json = tokenizer_from_texts(texts, 300)
    n_pieces = len(json.loads(tokenizer_json)["model"]["vocab"])
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
    BertModel(BertConfig(**small, vocab_size=n_pieces)).save_pretrained(weights / "text")
    vision = CLIPVisionModel(CLIPVisionConfig(**small, image_size=64, patch_size=16))
    vision.save_pretrained(weights / "vision")
    (weights / "text" / "tokenizer.json").write_text(tokenizer_json, encoding="utf-8")
    arguments = ("train", "--recipe", "dual", "--data", str(archive_folder), "--out", str(tmp_path / "out"), *SHORT)
    changed = ("encoder.size_px=64", "encoder.shape.width=32", "training.freeze_vision=true", "training.batch_size=16")
    settings = [part for change in changed for part in ("--set", change)]
    assert sitrep(*arguments, *settings, "--weights", str(weights)) == 0
    classifier = JointClassifier.load(tmp_path / "out")
    for stage in (classifier.network.selector, classifier.network.decider):
        kept = stage.encoder.seeing().state_dict()
        assert all(torch.equal(kept[name], value) for name, value in vision.state_dict().items())
    assert classifier.predict([Example(text="bridge collapsed", image=noise(70, 90))])[0].spans


def test_pretrained_vilt_weights_arrive_unchanged(tmp_path: Path) -> None:
    torch.manual_seed(1)
    original = ViltModel(ViltConfig(**VILT)).eval()
    original.save_pretrained(tmp_path / "vilt")
    made = pretrained_encoder(encoder_config("vilt", shape={}), str(tmp_path / "vilt"))
    assert made.config.shape["hidden_size"] == VILT["hidden_size"]
    states = random_posts("vilt").states(made.encoder.eval())
    assert all(torch.equal(a, b) for a, b in zip(made.encoder.parameters(), original.parameters(), strict=True))
    assert torch.isfinite(states.pooled).all()


def test_weights_that_are_not_there_are_named(archive_folder: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "config.json").write_text("{}")
    with pytest.raises(WeightsError, match="vision"):
        pretrained_encoder(encoder_config("dual"), str(tmp_path))
    with pytest.raises(WeightsError, match="nothing-here"):
        pretrained_encoder(encoder_config("vilt"), str(tmp_path / "nothing-here"))
    out = str(tmp_path / "out")
    assert sitrep("train", "--recipe", "dual", "--data", str(archive_folder), "--out", out) == 1
    assert "--weights DIR" in capsys.readouterr().err
    assert sitrep("train", "--recipe", "compact", "--data", str(archive_folder), "--out", out) == 1
    assert "--weights DIR" in capsys.readouterr().err


def test_more_threads_than_a_machine_can_start_are_refused(archive_folder: Path, tmp_path: Path, capsys) -> None:
    arguments = ("train", "--recipe", "tiny", "--data", str(archive_folder), "--out", str(tmp_path / "out"))
    assert sitrep(*arguments, "--threads", "100000") == 2
    assert "--threads" in capsys.readouterr().err


def test_a_device_that_is_not_there_is_named(archive_folder: Path, tmp_path: Path, capsys) -> None:
    arguments = ("train", "--recipe", "tiny", "--data", str(archive_folder), "--out", str(tmp_path / "out"))
    assert sitrep(*arguments, "--device", "abacus") == 1
    assert "device 'abacus' cannot be used" in capsys.readouterr().err
