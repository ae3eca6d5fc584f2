"""The tower reads the kept patches and nothing else, whatever shares its batch."""

import pytest
import torch

from model.vision import VisionTower, cells_to_patches

SIDE = 4


@pytest.fixture
def tower() -> VisionTower:
    torch.manual_seed(0)
    tower = VisionTower(size_px=SIDE * 8, patch_px=8, width=32, n_layers=2, n_heads=4)
    torch.nn.init.normal_(tower.positions)
    return tower.eval()


def _mask(*kept: int) -> torch.Tensor:
    mask = torch.zeros(1, SIDE * SIDE, dtype=torch.bool)
    mask[0, list(kept)] = True
    return mask


def test_pixels_of_other_patches_change_nothing(tower: VisionTower) -> None:
    pixels = torch.randn(1, 3, 32, 32)
    altered = torch.randn(1, 3, 32, 32)
    altered[:, :, 8:16, 16:24] = pixels[:, :, 8:16, 16:24]  # patch 6: row 1, column 2
    assert torch.equal(tower(pixels, _mask(6)), tower(altered, _mask(6)))


def test_a_kept_patch_counts(tower: VisionTower) -> None:
    pixels = torch.randn(1, 3, 32, 32)
    altered = pixels.clone()
    altered[:, :, 8:16, 16:24] += 1.0
    assert not torch.allclose(tower(pixels, _mask(6)), tower(altered, _mask(6)))


def test_all_patches_kept_is_the_whole_image(tower: VisionTower) -> None:
    pixels = torch.randn(2, 3, 32, 32)
    everything = torch.ones(2, SIDE * SIDE, dtype=torch.bool)
    assert torch.equal(tower(pixels, everything), tower(pixels))


def test_rows_that_keep_fewer_patches_are_untouched_by_longer_ones(tower: VisionTower) -> None:
    pixels = torch.randn(2, 3, 32, 32)
    together = tower(pixels, torch.cat([_mask(1, 2, 3, 9), _mask(5, 6)]))
    alone = tower(pixels[1:], _mask(5, 6))
    torch.testing.assert_close(together[1], alone[0], rtol=1e-5, atol=1e-5)


def test_cls_is_what_all_states_would_have_had(tower: VisionTower) -> None:
    """The last layer works out [CLS] alone; whole layers, one after the other, give the same."""
    pixels, keep = torch.randn(2, 3, 32, 32), torch.cat([_mask(1, 2, 3, 9), _mask(5, 6)])
    hidden, attend = tower.embedded(pixels, keep)
    for layer in tower.layers:
        hidden = layer(hidden, attend)
    torch.testing.assert_close(tower(pixels, keep), hidden[:, 0], rtol=1e-5, atol=1e-5)


def test_where_a_patch_lies_matters(tower: VisionTower) -> None:
    patch = torch.randn(1, 3, 8, 8)
    pixels = patch.repeat(1, 1, SIDE, SIDE)
    assert not torch.allclose(tower(pixels, _mask(0)), tower(pixels, _mask(15)))


def test_a_cell_covers_its_square_of_patches() -> None:
    cells = torch.zeros(1, 4, dtype=torch.bool)
    cells[0, 1] = True  # the upper right quarter
    assert cells_to_patches(cells, 2, 4)[0].nonzero()[:, 0].tolist() == [2, 3, 6, 7]
