"""A recipe says what a run does; what it gets wrong is named in one line."""

from pathlib import Path

import pytest

from model.joint.recipe import CompactRecipe, Recipe, RecipeError, load_recipe, recipe_names
from model.records import HUMANITARIAN
from tests.model.joint.conftest import sitrep


def test_the_shipped_recipes_are_readable() -> None:
    assert recipe_names() == ["compact", "dual", "tiny", "vilt"]
    for name in recipe_names():
        assert load_recipe(name).name == name


def test_the_papers_recipe_has_the_papers_settings() -> None:
    recipe = load_recipe("vilt")
    assert isinstance(recipe, Recipe)
    training = recipe.training
    assert (recipe.encoder.kind, recipe.pretrained) == ("vilt", "dandelin/vilt-b32-mlm")
    assert (recipe.encoder.max_tokens, recipe.encoder.size_px, recipe.encoder.patch_px) == (40, 384, 32)
    assert (training.n_epochs, training.batch_size, training.patience, training.clip_norm) == (10, 8, 3, 1.0)
    assert (training.learning_rate, training.weight_decay, training.warmup_share) == (2e-5, 1e-4, 0.0)
    assert (recipe.selector.alpha, recipe.selector.gru_width) == (0.09, 128)
    assert (recipe.words.word_threshold, recipe.words.max_word_share, recipe.words.stars) == (0.5, 1.0, "each")
    assert (recipe.transfer.method, recipe.transfer.top_share) == ("ipot", 0.25)
    assert recipe.tasks == {HUMANITARIAN: 1.0}


def test_compact_hands_over_to_its_own_trainer() -> None:
    assert isinstance(load_recipe("compact"), CompactRecipe)


def test_settings_can_be_changed_one_by_one() -> None:
    recipe = load_recipe("vilt", ["transfer.method=cosine", "selector.alpha=0.17", "tasks.damage=0.5", "seed=4"])
    assert isinstance(recipe, Recipe)
    assert (recipe.transfer.method, recipe.selector.alpha, recipe.seed) == ("cosine", 0.17, 4)
    assert recipe.digest() != load_recipe("vilt").digest()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("transfer.method=magic", r"'magic'.*transfer.method"),
        ("transfer.mehtod=ipot", "mehtod"),
        ("training.n_epochs=0", "n_epochs"),
        ("training.n_epochs=many", "training.n_epochs"),
        ("transfer.top_share=2.0", "top_share"),
        ("transfer.beta=0.01", r"^recipe vilt: beta 0\.01 must be at least 0\.05"),
        ("tasks.mood=1.0", "mood"),
        ("encoder.size_px=100", "patch_px"),
        ("nonsense", "KEY=VALUE"),
        ("name.x=1", "name is not a section"),
    ],
)
def test_a_wrong_setting_is_named(override: str, named: str) -> None:
    with pytest.raises(RecipeError, match=named):
        load_recipe("vilt", [override])


def test_an_unknown_recipe_lists_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert sitrep("train", "--recipe", "villt", "--data", "x", "--out", "y") == 1
    error = capsys.readouterr().err
    assert "'villt'" in error and "compact, dual, tiny, vilt" in error and error.count("\n") == 1


def test_a_file_that_is_not_toml_is_named(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("name = ")
    with pytest.raises(RecipeError, match=r"mine\.toml"):
        load_recipe(str(tmp_path / "mine.toml"))
