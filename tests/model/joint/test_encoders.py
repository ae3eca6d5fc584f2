"""All joint encoders answer one interface, and patch k of the answer is patch k of the image."""

import pytest
import torch
from torch import Tensor

from model.checkpoint import load as load_compact
from model.joint.build import WeightsError, make_encoder
from model.joint.compact import CompactEncoder
from model.joint.config import TransferConfig
from model.joint.states import JointEncoder, JointStates
from model.joint.transfer import score_patches
from model.joint.vilt import ViltEncoder
from tests.model.conftest import COMPACT
from tests.model.joint.conftest import DUAL, Posts, encoder_config, random_encoder, random_posts

P = 16  # patches of the small images, four a side


def test_states_have_the_shapes_of_the_interface(kind: str, encoder: JointEncoder) -> None:
    states = random_posts(kind).states(encoder)
    assert states.token_states.shape == (3, 9, encoder.width)
    assert states.patch_states.shape == (3, P, encoder.width)
    assert states.pooled.shape == (3, encoder.width)
    assert states.grid == (4, 4)
    assert states.patch_mask.shape == (3, P) and states.patch_mask.all()
    assert states.token_space.shape[2] == states.patch_space.shape[2]


def test_padding_tokens_change_nothing(kind: str, encoder: JointEncoder) -> None:
    posts = random_posts(kind)
    padded = Posts(
        input_ids=torch.cat([posts.input_ids, torch.full((3, 5), 1)], dim=1),
        attention_mask=torch.cat([posts.attention_mask, torch.zeros(3, 5, dtype=torch.bool)], dim=1),
        pixel_values=posts.pixel_values,
        pixel_mask=posts.pixel_mask,
    )
    _assert_alike(posts.states(encoder), padded.states(encoder), n_tokens=9)


def test_a_post_without_an_image_is_the_same_alone_and_among_images(kind: str, encoder: JointEncoder) -> None:
    posts = random_posts(kind)
    posts.pixel_mask[1] = False
    posts.pixel_values[1] = 0.0
    together = posts.states(encoder)
    with torch.no_grad():
        alone = encoder(posts.input_ids[1:2], posts.attention_mask[1:2], None, None)
    assert alone.patch_states.shape[1] == 0 and alone.grid == (0, 0)
    assert not together.patch_mask[1].any()
    torch.testing.assert_close(together.token_states[1:2], alone.token_states, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(together.pooled[1:2], alone.pooled, atol=1e-5, rtol=1e-5)


def test_one_post_is_the_same_as_among_thirty_two(kind: str, encoder: JointEncoder) -> None:
    posts = random_posts(kind, n=32)
    together = posts.states(encoder)
    for row in (0, 17, 31):
        alone = posts.states(encoder, slice(row, row + 1))
        for name in ("token_states", "patch_states", "pooled", "token_space", "patch_space"):
            torch.testing.assert_close(
                getattr(together, name)[row : row + 1], getattr(alone, name), atol=1e-5, rtol=1e-4
            )


def test_the_same_posts_twice_give_the_same_bytes(kind: str, encoder: JointEncoder) -> None:
    posts = random_posts(kind)
    first, second = posts.states(encoder), posts.states(encoder)
    assert torch.equal(first.patch_states, second.patch_states) and torch.equal(first.pooled, second.pooled)


@pytest.mark.parametrize("kind", ["vilt", "dual"])
@pytest.mark.parametrize("patch", [0, 5, 11, 15])
def test_changing_one_patch_moves_mainly_its_own_state(kind: str, patch: int) -> None:
    encoder, posts = random_encoder(kind), random_posts(kind, n=1)
    before = posts.states(encoder)
    _paint(posts.pixel_values, patch, cols=4, patch_px=encoder.patch_px)
    moved = (posts.states(encoder).patch_space - before.patch_space)[0].norm(dim=1)
    assert moved.argmax() == patch


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0])
def test_changing_one_patch_of_the_shipped_kind_moves_it_or_a_neighbour_most(share: float) -> None:
    """Its convolutions look over a patch's border, by one patch and no further."""
    network, config, _ = load_compact(COMPACT)
    encoder, side, size = CompactEncoder.of_network(network).eval(), config.image.cols, config.image.size_px
    patch = round(share * (side * side - 1))
    pixels = 0.2 * torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = encoder.patch_space(encoder.see(pixels))
        _paint(pixels, patch, cols=side, patch_px=encoder.patch_px)
        moved = (encoder.patch_space(encoder.see(pixels)) - before)[0].norm(dim=1)
    assert len(moved) == side * side
    (row, col), (wanted_row, wanted_col) = divmod(int(moved.argmax()), side), divmod(patch, side)
    assert max(abs(row - wanted_row), abs(col - wanted_col)) <= 1


@pytest.mark.parametrize("kind", ["vilt", "dual"])
def test_a_heatmap_lands_on_the_patch_that_shows_what_the_word_says(kind: str) -> None:
    """Words are the states of patches of one image; in another image the same patches lie elsewhere, and are found."""
    encoder, generator = random_encoder(kind), torch.Generator().manual_seed(1)
    content = torch.randn(P, 3, encoder.patch_px, encoder.patch_px, generator=generator)
    places = torch.randperm(P, generator=generator)
    words = _show(content, encoder)
    patches = _show(content[places], encoder)
    every = torch.ones(1, P, dtype=torch.bool)
    for word in range(P):
        rationale = torch.zeros(1, P, dtype=torch.bool)
        rationale[0, word] = True
        scores = score_patches(words, patches, every, rationale, every, TransferConfig(beta=0.05, n_steps=100))
        assert places[scores.argmax()] == word


def test_bf16_agrees_with_float32_within_four_percent(kind: str, encoder: JointEncoder) -> None:
    posts = random_posts(kind, n=8)
    exact = posts.states(encoder)
    with torch.autocast("cpu", torch.bfloat16):
        half = posts.states(encoder)
    for name in ("token_states", "patch_states", "pooled", "token_space", "patch_space"):
        wanted, found = getattr(exact, name), getattr(half, name).float()
        assert (wanted - found).norm() <= 0.04 * wanted.norm(), name


def test_vilt_equals_hugging_face_once_its_random_order_is_undone() -> None:
    encoder = random_encoder("vilt")
    assert isinstance(encoder, ViltEncoder)
    posts = random_posts("vilt", n=2)
    ours = posts.states(encoder)
    with torch.no_grad():
        torch.manual_seed(0)
        _, _, (index, _) = encoder.vilt.embeddings.visual_embed(posts.pixel_values, posts.pixel_mask, -1)
        torch.manual_seed(0)
        theirs = encoder.vilt(
            input_ids=posts.input_ids,
            attention_mask=posts.attention_mask.long(),
            pixel_values=posts.pixel_values,
            pixel_mask=posts.pixel_mask.long(),
        )
    order = index[..., 0] * 4 + index[..., 1]  # (2, P): which patch stands where
    assert not torch.equal(order[0], torch.arange(P)), "the draw was the identity: nothing is tested"
    for row in range(2):
        torch.testing.assert_close(
            ours.patch_states[row, order[row]], theirs.last_hidden_state[row, 10:], atol=1e-5, rtol=1e-4
        )
    torch.testing.assert_close(ours.pooled, theirs.pooler_output, atol=1e-5, rtol=1e-4)


def test_vilt_pads_images_of_other_shapes_without_changing_them() -> None:
    """A wide image beside a tall one has the states it has alone, on its own rows and columns."""
    encoder = random_encoder("vilt")
    wide, tall = torch.randn(1, 3, 64, 128), torch.randn(1, 3, 128, 96)
    ids, mask = torch.randint(5, 100, (1, 6)), torch.ones(1, 6, dtype=torch.bool)
    pixels, pixel_mask = torch.zeros(2, 3, 128, 128), torch.zeros(2, 128, 128, dtype=torch.bool)
    pixels[0, :, :64, :], pixel_mask[0, :64, :] = wide[0], True
    pixels[1, :, :, :96], pixel_mask[1, :, :96] = tall[0], True
    with torch.no_grad():
        both = encoder(ids.expand(2, -1), mask.expand(2, -1), pixels, pixel_mask)
        alone = encoder(ids, mask, wide, torch.ones(1, 64, 128, dtype=torch.bool))
        other = encoder(ids, mask, tall, torch.ones(1, 128, 96, dtype=torch.bool))
    assert both.grid == (4, 4) and alone.grid == (2, 4) and other.grid == (4, 3)
    assert both.patch_mask.sum(1).tolist() == [8, 12]
    torch.testing.assert_close(both.patch_states[0, :8], alone.patch_states[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        both.patch_states[1].view(4, 4, -1)[:, :3].flatten(0, 1), other.patch_states[0], atol=1e-5, rtol=1e-4
    )


def test_a_shipped_kind_of_checkpoint_answers_the_joint_interface(tiny_path) -> None:
    network, config, _ = load_compact(tiny_path)
    encoder = CompactEncoder.of_network(network).eval()
    with torch.no_grad():
        states = encoder(
            torch.tensor([[2, 9, 3]]),
            torch.ones(1, 3, dtype=torch.bool),
            torch.randn(1, 3, 128, 128),
            torch.ones(1, 128, 128, dtype=torch.bool),
        )
    assert states.grid == (config.image.rows, config.image.cols)
    assert states.token_space.shape[2] == states.patch_space.shape[2] == config.selection.space_width


def test_words_and_patches_learn_one_space() -> None:
    """The alignment loss falls when each post's words are drawn to its own image."""
    encoder = random_encoder("dual").train()
    posts = random_posts("dual", n=6)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=3e-3)
    values = []
    for _ in range(25):
        states = encoder(posts.input_ids, posts.attention_mask, posts.pixel_values, posts.pixel_mask)
        value = encoder.alignment_loss(states, posts.attention_mask)
        assert value is not None
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(float(value.detach()))
    assert values[-1] < 0.5 * values[0]


def test_one_pair_alone_has_no_alignment_loss() -> None:
    encoder = random_encoder("dual")
    posts = random_posts("dual", n=1)
    assert encoder.alignment_loss(posts.states(encoder), posts.attention_mask) is None


def test_patches_of_another_size_than_configured_are_refused() -> None:
    with pytest.raises(WeightsError, match="16 px patches"):
        make_encoder(encoder_config("dual", patch_px=32))
    with pytest.raises(WeightsError, match="vision"):
        make_encoder(encoder_config("dual", shape={"text": DUAL["text"]}))


def _paint(pixels: Tensor, patch: int, *, cols: int, patch_px: int) -> None:
    row, col = divmod(patch, cols)
    window = pixels[0, :, row * patch_px : (row + 1) * patch_px, col * patch_px : (col + 1) * patch_px]
    window += torch.tensor([3.0, -3.0, 2.0])[:, None, None]


def _show(content: Tensor, encoder: JointEncoder) -> Tensor:
    """Patch states (1, P, E) of an image laid out of P pieces, four a side."""
    n, _, px, _ = content.shape
    pixels = content.view(4, 4, 3, px, px).permute(2, 0, 3, 1, 4).reshape(1, 3, 4 * px, 4 * px)
    ids, mask = torch.arange(5, 10)[None], torch.ones(1, 5, dtype=torch.bool)
    with torch.no_grad():
        states: JointStates = encoder(ids, mask, pixels, torch.ones(1, 4 * px, 4 * px, dtype=torch.bool))
    return states.patch_space


def _assert_alike(one: JointStates, other: JointStates, n_tokens: int) -> None:
    def check(a: Tensor, b: Tensor) -> None:
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)

    check(one.token_states, other.token_states[:, :n_tokens])
    check(one.patch_states, other.patch_states)
    check(one.pooled, other.pooled)
