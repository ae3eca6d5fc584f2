"""Parts taken out of the method really are out, and only measured rows get into the file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from msgspec import structs

from model import Example, RationaleClassifier
from model.classifier import Selection
from model.data.labelled_posts import LabelledPost
from model.evaluation import ablations, speed, summary
from model.evaluation.ablated import WAYS, Case, ways_of
from model.evaluation.ablations import UnknownAblation, decide_all, record, run
from model.evaluation.insides import NoInsides, _written_out, insides_of
from model.evaluation.mask_probe import TooFewPosts, mask_features, probe_masks
from model.evaluation.tables import model_table
from model.int8 import Int8Linear
from tests.model.conftest import noise

POST = Example(text="bridge collapsed after flood in the city people need help", image=noise(64, 64))


def case(tiny: RationaleClassifier, example: Example = POST, seed: int = 0) -> Case:
    return Case(
        classifier=tiny,
        insides=insides_of(tiny),
        example=example,
        selection=tiny.select(example),
        dice=np.random.default_rng(seed),
    )


def posts(n: int) -> list[LabelledPost]:
    texts = ("bridge down in the storm", "love music", "people need help")
    return [
        LabelledPost(row_id=str(k), text=texts[k % 3], image=None, label=k % 3, spans=None, pixels="") for k in range(n)
    ]


@pytest.mark.parametrize("name", list(WAYS))
def test_every_way_decides_with_and_without_an_image(name: str, tiny: RationaleClassifier) -> None:
    """Five probabilities that sum to one, and the same ones again."""
    for example in (POST, structs.replace(POST, image=None), structs.replace(POST, text="")):
        probs = WAYS[name](case(tiny, example))

        assert probs.shape == (5,)
        assert probs.sum() == pytest.approx(1.0)
        assert np.array_equal(probs, WAYS[name](case(tiny, example)))


def test_full_method_is_what_the_classifier_predicts(tiny: RationaleClassifier) -> None:
    assert WAYS["full_method_hard_masks"](case(tiny)).tolist() == list(tiny.predict([POST])[0].probs.values())


def test_random_masks_keep_the_sizes(tiny: RationaleClassifier, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many words and patches, other ones for another seed."""
    drawn: list[Selection] = []
    decide = Case.decide
    monkeypatch.setattr(Case, "decide", lambda self, selection: drawn.append(selection) or decide(self, selection))

    for seed in (0, 1):
        WAYS["random_masks_of_equal_size"](case(tiny, seed=seed))

    own = tiny.select(POST)
    assert [(len(one.words), len(one.patches)) for one in drawn] == [(len(own.words), len(own.patches))] * 2
    assert drawn[0].patches != drawn[1].patches


def test_mask_alone_reads_no_content(tiny: RationaleClassifier) -> None:
    """Other words of as many pieces at the same places, and other pixels, change nothing."""
    one = case(tiny)
    other = replace(one, example=Example(text=POST.text.replace("flood", "storm"), image=noise(64, 64, seed=5)))

    assert np.array_equal(WAYS["mask_alone"](one), WAYS["mask_alone"](other))
    assert not np.array_equal(one.decide(one.selection), other.decide(one.selection))


def test_no_stage_2_never_asks_the_deciders(tiny: RationaleClassifier, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stage 1's own guess."""
    one = case(tiny)
    monkeypatch.setattr(tiny, "decide", lambda evidence: pytest.fail("stage 2 was asked"))

    assert WAYS["no_stage_2"](one).sum() == pytest.approx(1.0)


def test_soft_heatmap_fades_with_the_score(tiny: RationaleClassifier, monkeypatch: pytest.MonkeyPatch) -> None:
    """The best patch as it is, one of half its score half way to grey, one of none grey."""
    one = case(tiny)
    scores = tuple(1.0 if k == 0 else 0.5 if k == 1 else 0.0 for k in range(16))
    shown = []
    monkeypatch.setattr(tiny, "decide", lambda evidence: shown.append(evidence) or np.full(5, 0.2))

    WAYS["soft_heatmap"](replace(one, selection=replace(one.selection, patch_scores=scores, patches=(0,))))

    whole = tiny.mask(POST, replace(one.selection, patches=tuple(range(16)))).pixel_values
    assert whole is not None
    assert torch.equal(shown[0].pixel_values[..., :32, :32], whole[..., :32, :32])
    assert torch.allclose(shown[0].pixel_values[..., :32, 32:64], whole[..., :32, 32:64] / 2)
    assert not shown[0].pixel_values[..., 32:, :].any()


@pytest.mark.parametrize(
    ("name", "n"),
    [
        ("top_10_percent_patches", 2), ("top_25_percent_patches", 4), ("top_50_percent_patches", 8),
        ("transfer_off_all_patches", 16), ("cosine_instead_of_ipot", 4), ("transfer_off_class_prototypes", 4),
        ("attention_instead_of_ipot", 4), ("activation_norm_instead_of_ipot", 4),
    ],
)  # fmt: skip
def test_ways_show_as_many_patches_as_they_say(
    name: str, n: int, tiny: RationaleClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 16 patches, of which the method selects 4; the words stay the same."""
    one, shown = case(tiny), []
    monkeypatch.setattr(Case, "decide", lambda self, selection: shown.append(selection) or np.full(5, 0.2))

    WAYS[name](one)

    assert [(len(s.patches), s.words) for s in shown] == [(n, one.selection.words)]


def selection(words: tuple[int, ...]) -> Selection:
    return Selection(word_scores=(0.5,) * 10, words=words, patch_scores=(), patches=(), fallbacks=())


def test_probe_finds_masks_that_give_the_label_away() -> None:
    """Rationales at the start for one class and at the end for the other: every label is guessed."""
    labels = np.array([0, 2] * 20)
    told = [selection((0, 1)) if label == 0 else selection((8, 9)) for label in labels]

    probs = probe_masks(told, labels, seed=0)

    assert (probs.argmax(1) == labels).all()
    assert probs.sum(1) == pytest.approx(np.ones(40))
    assert probs[:, [1, 3, 4]].max() == 0.0


def test_probe_learns_nothing_from_masks_that_are_alike() -> None:
    """The same mask for all: every post gets the same guess."""
    labels = np.array([0, 0, 2] * 20)

    probs = probe_masks([selection((0, 1))] * 60, labels, seed=0)

    assert (probs.argmax(1) == 0).all()


def test_probe_guesses_a_class_of_a_single_post_as_well() -> None:
    """It cannot learn that class, and says something of the post all the same."""
    labels = np.array([0, 2] * 20 + [4])
    told = [selection((0, 1)) if label == 0 else selection((8, 9)) for label in labels]

    probs = probe_masks(told, labels, seed=0)

    assert (probs.argmax(1)[:-1] == labels[:-1]).all()
    assert probs[-1].argmax() == 2


def test_mask_features_are_counts_and_places() -> None:
    """Ten words, the first and last selected, two of three patches."""
    one = replace(selection((0, 9)), patch_scores=(0.1, 0.2, 0.3), patches=(0, 2))

    assert mask_features([one])[0].tolist() == [10, 2, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 0, 1]


def test_probe_needs_two_posts_of_two_classes() -> None:
    with pytest.raises(TooFewPosts, match="two labelled posts"):
        probe_masks([selection((0,))] * 3, np.array([0, 0, 1]), seed=0)


def test_run_writes_one_row_each(tiny: RationaleClassifier, tmp_path: Path) -> None:
    """Seeded ways of one checkpoint are five runs, the others one; the table shows them; rows of trainers stay."""
    path = tmp_path / "ablations.json"
    record(path, "class_loss_off", [{"macro_f1": 0.5, "accuracy": 0.6}], 12, "retrained")

    run([tiny], posts(12), path, "made-up posts")

    figures = summary.load(path)
    assert {key.rpartition(".")[0] for key in figures} == {
        *ways_of(insides_of(tiny)),
        ablations.PROBE,
        "class_loss_off",
    }
    assert len(figures["random_masks_of_equal_size.macro_f1"]["runs"]) == 5
    assert len(figures["full_method_hard_masks.macro_f1"]["runs"]) == 1
    assert next(iter(figures)) == "full_method_hard_masks.macro_f1"
    assert "| class loss off | 0.500 | 0.600 | 1 | 12 | (2) |" in model_table({}, figures, [])


def test_several_checkpoints_are_runs(tiny: RationaleClassifier, tmp_path: Path) -> None:
    run([tiny, tiny], posts(6), tmp_path / "ablations.json", "made-up posts")

    figures = summary.load(tmp_path / "ablations.json")
    assert {len(figure["runs"]) for figure in figures.values()} == {2}


def test_cross_validation_collects_probabilities(tiny: RationaleClassifier) -> None:
    """In the order of the posts, for the ways that are asked for."""
    made = decide_all(tiny, posts(3), seed=0, names=("full_method_hard_masks", "no_stage_2"))

    assert {name: probs.shape for name, probs in made.items()} == {
        "full_method_hard_masks": (3, 5),
        "no_stage_2": (3, 5),
    }
    own = [list(one.probs.values()) for one in tiny.predict([Example(text=post.text) for post in posts(3)])]
    assert made["full_method_hard_masks"].tolist() == own


def test_ways_that_a_kind_lacks_are_left_out(tiny: RationaleClassifier) -> None:
    """A checkpoint without attention has every other row."""
    insides = insides_of(tiny)
    assert ways_of(insides) == tuple(WAYS)

    insides.ways = ("cosine",)

    assert set(WAYS) - set(ways_of(insides)) == {"attention_instead_of_ipot", "activation_norm_instead_of_ipot"}


def test_attention_finds_the_patch_that_is_looked_at(tiny: RationaleClassifier) -> None:
    """Shares of one look at the whole image, more where the last layer's keys are pushed to point at."""
    one = case(tiny)

    found = insides_of(tiny).other_scores(one.example, one.selection)["attention"]

    assert found.shape == (16,)
    assert found.min() > 0.0 and found.sum() < 1.0  # the rest is on [CLS] itself


def test_gradients_pass_through_int8_layers(tiny: RationaleClassifier) -> None:
    """Rounding has no gradient; written out, a layer gives nearly the same and has one."""
    torch.manual_seed(0)
    linear = torch.nn.Linear(300, 300)
    decider = torch.nn.Sequential(Int8Linear(linear))

    written = _written_out(decider)

    x = torch.randn(2, 300)
    assert not isinstance(written[0], Int8Linear)
    assert torch.allclose(written(x), linear(x), atol=0.05)
    x.requires_grad_(True)
    written(x).sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0


def test_classifier_without_known_insides_is_refused() -> None:
    with pytest.raises(NoInsides, match="object"):
        insides_of(object())  # type: ignore[arg-type]


def test_unknown_ablation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownAblation, match="alpha_9"):
        record(tmp_path / "a.json", "alpha_9", [{"macro_f1": 0.5, "accuracy": 0.6}], 12, "x")


def test_speed_is_measured_once_per_repeat(tiny: RationaleClassifier) -> None:
    """Posts of a tweet's length, half of them with pixels; milliseconds are positive."""
    assert all(post.image is not None for post in speed.made_posts(image=True))
    assert all(0 < ms < 10_000 for ms in speed.median_ms(tiny, speed.made_posts(image=False)[:2]))
    assert len(speed.median_ms(tiny, speed.made_posts(image=False)[:1])) == 5
