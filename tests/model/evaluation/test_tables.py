"""The tables of figures: goals with a verdict, the F1 of each class where a training measured it."""

from model.evaluation import summary
from model.evaluation.tables import goals_table, model_table

PROTOCOL = "5 grouped folds, 5 seeds"


def test_goal_is_said_to_be_reached_or_missed() -> None:
    """By the measured mean, not by its rounded digits; a limit the other way round; no goal, no verdict."""
    figures = {
        "rationale_only.macro_f1": summary.entry([0.7996], 698, PROTOCOL),
        "rationale_only.accuracy": summary.entry([0.87], 698, PROTOCOL),
        "comprehensiveness": summary.entry([0.24], 698, PROTOCOL),
        "sufficiency": summary.entry([0.051], 698, PROTOCOL),
        "compact.ms_text": summary.entry([14.04], 100, PROTOCOL),
    }

    table = goals_table(figures).splitlines()

    assert model_table(figures, {}, []).splitlines() == table
    assert table[1].count("---") == table[0].count("|") - 1
    macro_f1 = "Macro-F1, decided from rationales alone (the system)"
    assert f"| {macro_f1} | 0.800 | ≥ 0.80 | **missed** | 1 | 698 | (1) |" in table
    assert "| accuracy, decided from rationales alone | 0.870 | ≥ 0.87 | reached | 1 | 698 | (1) |" in table
    assert "| comprehensiveness (ERASER) | 0.240 |  |  | 1 | 698 | (1) |" in table
    assert "| sufficiency (ERASER) | 0.051 | ≤ 0.03 | **missed** | 1 | 698 | (1) |" in table
    assert "| one post without image, one thread | 14.0 ms | ≤ 15 ms | reached | 1 | 100 | (1) |" in table


def test_f1_of_each_class_beside_the_trainings_that_have_it() -> None:
    """A file without them does not count; the larger tower stands beside the shipped one as with other figures."""
    key = "rationale_only.f1.affected_individuals"
    has = {
        key: summary.entry([0.2, 0.4], 698, PROTOCOL),
        "rationale_only.f1.not_humanitarian": summary.entry([0.9, 0.9], 698, PROTOCOL),
        f"{key}.dual": summary.entry([0.5, 0.5], 698, PROTOCOL),
    }

    page = model_table(has, {}, [{}, has, has])
    alone = model_table(has, {}, [])  # a checkpoint's own card

    header = "| F1 of the class, decided from rationales alone | measured | {}runs | rows | how |"
    assert header.format("mean of 2 trainings by the recipe before | ") in page
    assert "| `affected_individuals` | 0.300 ± 0.141 | 0.300 | 2 | 698 | (1) |" in page
    assert alone.startswith(header.format(""))
    assert "| `affected_individuals` | 0.300 ± 0.141 | 2 | 698 | (1) |" in alone
    assert f"| `{key}` | 0.300 ± 0.141 | 0.500 ± 0.000 | 2 | 698 | (1) |" in page
    assert f"| `{key}` | 0.300 ± 0.141 | 2 |" not in page  # not once more among the others
