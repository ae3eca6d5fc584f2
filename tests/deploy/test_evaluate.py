"""`sitrep evaluate` on tables of the test's own making, as somebody would call it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from sklearn.metrics import accuracy_score, f1_score

from deploy.cli import main
from model import CLASSES, Example, RationaleClassifier
from model.classifier import Selection
from model.data.image_file import read_image
from model.testing import tiny_checkpoint

TEXTS = (
    "Bridge collapsed on Main street", "love music", "people missing, please help", "donate water to the relief",
    "the storm is near the city", "dead and injured people after the flood",
)  # fmt: skip
LABELS = (
    "infrastructure_and_utility_damage", "not_humanitarian", "missing_or_found_people",
    "rescue_volunteering_or_donation_effort", "other_relevant_information", "injured_or_dead_people",
)  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_checkpoint(tmp_path_factory.mktemp("tiny")))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six labelled posts, CrisisMMD's columns, a picture each but one that is broken and one that is not there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures" / "irma").mkdir(parents=True)
    rows = ["event_name\tTweet_ID\tImage_ID\tTweet_Text\tImage\tLabel\tlabel_text"]
    for k, (text, label) in enumerate(zip(TEXTS, LABELS, strict=True)):
        rows.append(f"irma\t{k}\t{k}_0\t{text}\tirma/{k}.png\t{label}\tx")
        Image.new("RGB", (90, 60), (40 * k, 90, 200 - 30 * k)).save(tmp_path / "pictures" / "irma" / f"{k}.png")
    (tmp_path / "pictures" / "irma" / "3.png").write_bytes(b"broken")
    (tmp_path / "pictures" / "irma" / "4.png").unlink()
    (tmp_path / "posts.tsv").write_text("\ufeff" + "\r\n".join(rows) + "\r\n", "utf-8")
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as leaving:
        main(["evaluate", "--threads", "1", *arguments])
    captured = capsys.readouterr()
    assert isinstance(leaving.value.code, int)
    return leaving.value.code, captured.out, captured.err


def results(folder: Path) -> tuple[dict[str, Any], list[dict[str, str]]]:
    with (folder / "predictions.csv").open(encoding="utf-8", newline="") as file:
        return json.loads((folder / "metrics.json").read_text("utf-8")), list(csv.DictReader(file))


def test_metrics_are_those_of_the_predictions(
    folder: Path, checkpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every row is there, in order; the scores are scikit-learn's; broken images are counted, not dropped."""
    code, out, err = run(
        capsys, "--checkpoint", checkpoint, "--data", "posts.tsv", "--images", "pictures", "--out", "results"
    )

    assert (code, err) == (0, "")
    metrics, rows = results(folder / "results")
    assert [row["id"] for row in rows] == [f"{k}_0" for k in range(6)]
    labels, predicted = [row["label"] for row in rows], [row["predicted"] for row in rows]
    assert labels[2] == labels[5] == "affected_individuals"
    assert metrics["n"] == metrics["rows"] == 6
    assert metrics["accuracy"] == pytest.approx(accuracy_score(labels, predicted))
    assert metrics["macro_f1"] == pytest.approx(f1_score(labels, predicted, average="macro", zero_division=0))
    assert metrics["weighted_f1"] == pytest.approx(f1_score(labels, predicted, average="weighted", zero_division=0))
    assert metrics["predicted"] == {name: predicted.count(name) for name in CLASSES}
    assert set(metrics["per_class"]) == set(CLASSES)
    assert metrics["per_class"]["affected_individuals"]["n"] == 2
    assert 0.0 <= metrics["ece"] <= 1.0
    assert metrics["images"] == {"read": 4, "unreadable": 2}
    assert metrics["fallbacks"]["no_image"] == 2
    assert [row["image"] for row in rows] == ["read", "read", "read", "unreadable", "unreadable", "read"]
    assert metrics["checkpoint"]["version"] == "tiny-0.0.0"
    assert metrics["checkpoint"]["digest"].startswith("sha256:")
    assert metrics["data"]["digest"].startswith("sha256:")
    assert f"accuracy {metrics['accuracy']:.3f}" in out


def test_predictions_are_those_of_the_classifier(
    folder: Path, checkpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Probabilities, spans in characters of the original, and patches are what `predict` says."""
    run(capsys, "--checkpoint", checkpoint, "--data", "posts.tsv", "--images", "pictures", "--out", "results")

    _, rows = results(folder / "results")
    classifier = RationaleClassifier.load(Path(checkpoint))
    for k in (0, 3):
        image = read_image(folder / "pictures" / "irma" / f"{k}.png") if k == 0 else None
        (own,) = classifier.predict([Example(text=TEXTS[k], image=image)])
        assert rows[k]["predicted"] == own.label
        assert [float(rows[k][f"prob_{name}"]) for name in CLASSES] == pytest.approx(list(own.probs.values()), abs=1e-6)
        assert rows[k]["spans"] == " ".join(f"{span.start}-{span.end}" for span in own.spans)
        assert rows[k]["rationale"] == " [SEP] ".join(TEXTS[k][span.start : span.end] for span in own.spans)
        assert rows[k]["patches"] == " ".join(map(str, own.image.selected if own.image else ()))
        assert rows[k]["grid"] == (f"{own.image.rows}x{own.image.cols}" if own.image else "")
        boxes = [tuple(map(float, box.split(","))) for box in rows[k]["boxes"].split()]
        assert boxes == [pytest.approx(box, abs=1e-4) for box in (own.image.boxes if own.image else ())]


def test_pictures_are_read_as_large_as_the_classifier_was_taught(
    folder: Path, checkpoint: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Joint checkpoints say how large; they may have been taught on larger ones than the shipped one."""
    sizes: list[tuple[int, ...]] = []

    class Noting(RationaleClassifier):
        image_edge_px = 10

        def select(self, example: Example) -> Selection:
            if example.image is not None:
                sizes.append(example.image.shape)
            return super().select(example)

    monkeypatch.setattr("model.loading.RationaleClassifier", Noting)
    run(capsys, "--checkpoint", checkpoint, "--data", "posts.tsv", "--images", "pictures", "--out", "results")

    assert sizes and {max(shape) for shape in sizes} == {10}


def test_it_runs_on_one_thread_as_a_worker_does(folder: Path, checkpoint: str) -> None:
    """More threads give other last digits of probabilities than those that a worker publishes."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(SystemExit) as leaving:
            main(["evaluate", "--checkpoint", checkpoint, "--data", "posts.tsv", "--only", "text", "--out", "results"])
        assert (leaving.value.code, torch.get_num_threads()) == (0, 1)
    finally:
        torch.set_num_threads(before)


def test_report_and_plots(folder: Path, checkpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Three pictures that the report shows; no post's text outside the predictions."""
    run(
        capsys, "--checkpoint", checkpoint, "--data", "posts.tsv", "--images", "pictures", "--out", "results",
        "--explain", "--faithful", "1", "--masks", "8",
    )  # fmt: skip

    report = (folder / "results" / "report.md").read_text("utf-8")
    for name in ("confusion.png", "reliability.png", "budgets.png"):
        assert f"({name})" in report
        with Image.open(folder / "results" / name) as plot:
            assert min(plot.size) > 400
    assert "2 images could not be read" in report
    metrics, _ = results(folder / "results")
    assert set(metrics["views"]) == {
        "rationale_only", "full", "rationale_removed", "text_rationale_only", "image_rationale_only"
    }  # fmt: skip
    assert metrics["views"]["rationale_only"]["macro_f1"] == metrics["macro_f1"]
    assert {"comprehensiveness", "sufficiency", "aopc", "macro_f1_drop"} <= set(metrics["explanation"])
    assert "gain_over_rise" in metrics["image_faithfulness"]
    assert metrics["image_faithfulness"]["rise_masks"] == 8 and "RISE with 8 masks" in report
    assert [row["share"] for row in metrics["budgets"]][-1] == 1.0
    assert metrics["budgets"][-1]["accuracy"] == metrics["views"]["full"]["accuracy"]
    told = report + json.dumps(metrics)
    assert not [text for text in TEXTS if text in told or text.split()[0] + " " + text.split()[1] in told]


@pytest.mark.parametrize(
    ("task", "labels"), [("informative", ("informative", "not_informative")), ("damage", ("severe", "mild"))]
)
def test_report_of_another_task(
    task: str, labels: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A task without humanitarian classes has a whole report too, with what was selected of all posts."""
    several = str(tiny_checkpoint(tmp_path / "several", further=(task,)))
    data = tmp_path / "posts.tsv"
    data.write_text(f"id\ttext\tlabel\n1\tbridge down\t{labels[0]}\n2\tlove music\t{labels[1]}\n", "utf-8")

    code, _, err = run(capsys, "--checkpoint", several, "--data", str(data), "--out", str(tmp_path / "results"))

    assert (code, err) == (0, "")
    metrics, _ = results(tmp_path / "results")
    report = (tmp_path / "results" / "report.md").read_text("utf-8")
    assert metrics["task"] == task and set(metrics["selected"]) == {"words", "patches"}
    assert "| selected | of all posts |\n" in report
    assert f"| words | {metrics['selected']['words']:.1%} |" in report


def test_without_labels_there_are_predictions_only(
    folder: Path, checkpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Text only, no label column: no score is claimed, and an earlier evaluation's plots do not stay."""
    run(capsys, "--checkpoint", checkpoint, "--data", "posts.tsv", "--images", "pictures", "--out", "results")
    (folder / "bare.tsv").write_text("id\ttext\n1\tbridge down\n2\tnan\n", "utf-8")

    code, out, _ = run(capsys, "--checkpoint", checkpoint, "--data", "bare.tsv", "--out", "results")

    metrics, rows = results(folder / "results")
    assert code == 0
    assert "predictions only" in out
    assert "accuracy" not in metrics
    assert (metrics["n"], metrics["n_unlabelled"]) == (0, 2)
    assert (
        metrics["fallbacks"] == {"no_evidence": 1, "no_image": 2, "no_text": 1} or metrics["fallbacks"]["no_text"] == 1
    )
    assert [row["label"] for row in rows] == ["", ""]
    assert not (folder / "results" / "confusion.png").exists()


def test_rationale_table_and_summary(folder: Path, checkpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    """People's words against the selected ones; two checkpoints are two runs of a figure."""
    (folder / "people.csv").write_text(
        "tweet_id,tweet_text,label,corrected_label,informative_content\n"
        "1,bridge collapsed in the storm,x,infrastructure_and_utilities_damage,bridge collapsed\n"
        "2,people dead and injured,x,injured_or_dead_people,people dead[SEP]injured\n"
        "3,love music,x,not_related_or_irrelevant,love music\n",
        "utf-8",
    )
    given = ["--summary", "summary.json", "--as", "rationale_nepal_to_hagupit", "--protocol", "made-up posts"]

    code, out, err = run(
        capsys,
        "--checkpoint",
        checkpoint,
        "--checkpoint",
        checkpoint,
        "--data",
        "people.csv",
        "--out",
        "results",
        *given,
    )

    assert (code, err) == (0, "")
    metrics, _ = results(folder / "results" / "run-2")
    assert metrics["rationales"]["n"] == 2
    assert set(metrics["rationales"]["baselines"]) == {"all_words", "random_words", "first_words"}
    figures = json.loads((folder / "summary.json").read_text("utf-8"))
    assert figures["rationale_nepal_to_hagupit.token_f1"]["runs"] == [metrics["token_f1"]] * 2
    assert figures["rationale_nepal_to_hagupit.auprc"]["rows"] == 2
    assert "rationale_nepal_to_hagupit.token_f1" in out


def test_baselines_choose_among_words_that_can_be_marked(
    folder: Path, checkpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Links, user names and punctuation count for no selection: where all the rest is marked, any order is right."""
    (folder / "people.csv").write_text(
        "tweet_id,tweet_text,corrected_label,informative_content\n"
        "1,@user http://t.co/x ... bridge collapsed - - @user,infrastructure_and_utilities_damage,bridge collapsed\n"
        "2,https://t.co/y -- people dead @user,injured_or_dead_people,people dead\n",
        "utf-8",
    )
    given = ["--summary", "summary.json", "--as", "rationale_nepal_to_hagupit", "--protocol", "made-up posts"]

    code, _, err = run(capsys, "--checkpoint", checkpoint, "--data", "people.csv", "--out", "results", *given)

    assert (code, err) == (0, "")
    baselines = results(folder / "results")[0]["rationales"]["baselines"]
    assert baselines["all_words"] == {"token_f1": 1.0, "iou_f1": 1.0, "auprc": 1.0}
    assert baselines["random_words"]["auprc"] == baselines["first_words"]["auprc"] == 1.0
    figures = json.loads((folder / "summary.json").read_text("utf-8"))
    for name, scores in baselines.items():
        for measure in ("token_f1", "auprc"):
            figure = figures[f"rationale_nepal_to_hagupit.{measure}.{name}"]
            assert (figure["mean"], figure["rows"]) == (scores[measure], 2)


def test_summary_of_scores(folder: Path, checkpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Accuracy and Macro-F1 under the given key."""
    run(
        capsys, "--checkpoint", checkpoint, "--data", "posts.tsv", "--only", "text", "--out", "results",
        "--summary", "s.json", "--as", "zero_shot.dmd", "--protocol", "made-up posts",
    )  # fmt: skip

    metrics, _ = results(folder / "results")
    figures = json.loads((folder / "s.json").read_text("utf-8"))
    assert figures["zero_shot.dmd.accuracy"]["runs"] == [metrics["accuracy"]]
    assert figures["zero_shot.dmd.macro_f1"]["rows"] == 6
    assert metrics["images"] == {"read": 0, "unreadable": 0}


def test_summary_of_explanations(folder: Path, checkpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each key takes its own figure: everything shown is not the system, and shares are those of humanitarian posts."""
    keys = ("unconstrained", "rationale_only", "macro_f1_drop", "sufficiency", "selected", "calibration")

    code, _, err = run(
        capsys, "--checkpoint", checkpoint, "--data", "posts.tsv", "--images", "pictures", "--out", "results",
        "--explain", "--summary", "s.json", "--protocol", "made-up posts", *(f"--as={key}" for key in keys),
    )  # fmt: skip

    assert (code, err) == (0, "")
    metrics, _ = results(folder / "results")
    figures = json.loads((folder / "s.json").read_text("utf-8"))
    assert {key: figure["mean"] for key, figure in figures.items()} == pytest.approx(
        {
            "unconstrained.macro_f1": metrics["views"]["full"]["macro_f1"],
            "unconstrained.accuracy": metrics["views"]["full"]["accuracy"],
            "rationale_only.macro_f1": metrics["macro_f1"],
            "rationale_only.accuracy": metrics["accuracy"],
            "macro_f1_drop": metrics["explanation"]["macro_f1_drop"],
            "sufficiency": metrics["explanation"]["sufficiency"],
            "selected.words": metrics["selected"]["words_humanitarian"],
            "selected.patches": metrics["selected"]["patches_humanitarian"],
            "calibration.ece": metrics["ece"],
        }
    )


def test_pixels_are_reported_apart(folder: Path, checkpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A pairs table says which pixels are restored; rows without an agreed label are predicted only."""
    (folder / "pairs.tsv").write_text(
        "image_id\tlabel5_agreed\tsplit_agreed\ttweet_text\timage\tpixels\n"
        "1\tnot_humanitarian\ttest\tlove\tpictures/irma/0.png\trestored\n"
        "2\tother_relevant_information\ttest\tstorm\tpictures/irma/1.png\toriginal\n"
        "3\t\t\tfire\tpictures/irma/2.png\toriginal\n",
        "utf-8",
    )

    run(capsys, "--checkpoint", checkpoint, "--data", "pairs.tsv", "--out", "results")

    metrics, _ = results(folder / "results")
    assert (metrics["n"], metrics["n_unlabelled"]) == (2, 1)
    assert {kind: part["n"] for kind, part in metrics["by_pixels"].items()} == {"original": 1, "restored": 1}


@pytest.mark.parametrize(
    ("content", "arguments", "code", "told"),
    [
        (None, [], 1, "posts-x.tsv: No such file"),
        ("", [], 1, "posts-x.tsv is empty"),
        ("id\tbody\n1\ta\n", [], 1, "no column tweet_text or image"),
        ("id\ttext\tlabel\n1\ta\tsunny\n", [], 1, "'sunny'"),
        ("id\ttext\tlabel\n1\ta\tinformative\n", [], 1, "task 'informative'"),
        ("id\ttext\tlabel\n1\ta\tsevere\n", [], 1, "task 'damage'"),
        ("id\timage\n1\tnot-there.png\n", [], 1, "not-there.png"),
        ("id\timage\n1\tposts-x.tsv\n", [], 1, "can be read"),
        ("id\timage\n1\ta.png\n", ["--images", "no-folder"], 1, "no-folder"),
        ("id\ttext\n1\ta\n", ["--label-map", "no-map.toml"], 1, "no-map.toml"),
        ("id\ttext\n1\ta\n", ["--only", "sound"], 2, "sound"),
        ("id\ttext\n1\ta\n", ["--column", "text"], 2, "NAME=VALUE"),
        ("id\ttext\n1\ta\n", ["--column", "sound=text"], 2, "'sound'"),
        ("id\ttext\n1\ta\n", ["--out", "posts-x.tsv"], 1, "--out"),
        ("id\ttext\n1\ta\n", ["--ids", "latin.txt"], 2, "latin.txt"),
        ("id\ttext\n1\ta\n", ["--label-map", "latin.txt"], 1, "latin.txt"),
        ("id\ttext\n1\ta\n", ["--summary", "s.json", "--as", "a.b", "--protocol", "x"], 1, "'a.b.accuracy'"),
        ("id\ttext\n1\ta\n", ["--limit", "0"], 2, "--limit"),
        ("id\ttext\n1\ta\n", ["--threads", "100000"], 2, "--threads"),
        ("id\ttext\n1\ta\n", ["--summary", "s.json"], 2, "--as"),
        ("id\ttext\n1\ta\n", ["--faithful", "2"], 1, "--faithful"),
        (
            "id\ttext\n1\ta\n",
            ["--summary", "s.json", "--as", "zero_shot.dmd", "--protocol", "x"],
            1,
            "no accuracy",
        ),
        ("id\ttext\n1\ta\n", ["--checkpoint", "nowhere"], 1, "nowhere"),
    ],
)
def test_mistake_ends_in_one_line(
    content: str | None,
    arguments: list[str],
    code: int,
    told: str,
    folder: Path,
    checkpoint: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It names what was wrong; no traceback, no half-written metrics."""
    if content is not None:
        (folder / "posts-x.tsv").write_text(content, "utf-8")
        (folder / "latin.txt").write_bytes(b"caf\xe9")
    given = [] if "--checkpoint" in arguments else ["--checkpoint", checkpoint]

    actual, _, err = run(capsys, *given, "--data", "posts-x.tsv", "--out", "results", *arguments)

    assert actual == code
    assert told in err
    assert err.startswith("sitrep: ")
    assert err.count("\n") == 1
