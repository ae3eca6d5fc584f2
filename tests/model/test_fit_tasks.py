"""Further tasks get heads of their own, from rows that have their label and are not held out."""

import numpy as np
import torch

from model import fit_tasks
from model.crossval import View, Views
from model.data import TextRow


def _views(n: int) -> Views:
    generator = torch.Generator().manual_seed(0)
    view = View(
        text=torch.zeros(n, 5),
        features=torch.randn(n, 8, generator=generator),
        other_features=torch.randn(4, 8, generator=generator),
    )
    return Views(
        rationale=view,
        full=view,
        removed=view,
        ids=[f"{k}_0" for k in range(n)],
        texts=[f"post {k}" for k in range(n)],
        labels=torch.zeros(n, dtype=torch.long),
        groups=np.array([str(k) for k in range(n)]),
        pixels=["original"] * n,
        other_ids=[f"other/{k}" for k in range(4)],
        other_labels=torch.zeros(4, dtype=torch.long),
        text_dev=torch.zeros(1, 5),
        text_dev_full=torch.zeros(1, 5),
        dev_labels=torch.zeros(1, dtype=torch.long),
        baseline=torch.zeros(n, 5),
    )


def test_only_rows_with_a_label_of_the_task_are_looked_at() -> None:
    views = _views(5)
    seen: list[str] = []

    def read(rows: list[TextRow]) -> torch.Tensor:
        seen.extend(row.text for row in rows)
        return torch.zeros(len(rows), 3)

    own = fit_tasks.task_views(views, {"1_0": 2, "4_0": 0, "other/3": 1}, read)  # type: ignore[arg-type]
    assert own.ids == ["1_0", "4_0"] and own.labels.tolist() == [2, 0] and own.groups.tolist() == ["1", "4"]
    assert own.other_ids == ["other/3"] and own.other_labels.tolist() == [1]
    assert seen == ["post 1", "post 4"]
    assert torch.equal(own.rationale.features, views.rationale.features[[1, 4]])
    assert torch.equal(own.rationale.other_features, views.rationale.other_features[[3]])
