"""The picture of a state: the same for the same state, another for another."""

import base64

import pytest
import torch

from falcon_mamba_app.engine.states import sketch as sketches
from falcon_mamba_app.engine.states.sketch import sketch


def drawn(picture: str) -> tuple[int, int, bytes]:
    size, _, cells = picture.partition(":")
    rows, _, columns = size.partition("x")
    return int(rows), int(columns), base64.b64decode(cells)


def state(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((12, 16, 1024), (12, 64)),
        ((64, 4, 128), (32, 64)),
        ((3, 2, 96), (3, 48)),
        ((1, 1, 1), (1, 1)),
    ],
)
def test_a_cell_is_a_group_of_channels_of_a_layer_or_two(shape, size):
    rows, columns, cells = drawn(sketch(state(*shape)))
    assert (rows, columns) == size and len(cells) == rows * columns


def test_the_same_state_has_the_same_picture_and_another_has_another():
    one, other = state(12, 16, 256), state(12, 16, 256, seed=1)
    assert sketch(one) == sketch(one.clone()) != sketch(other)


def test_a_view_into_the_pool_is_drawn_like_a_copy_of_it():
    pool = state(12, 3, 16, 256)
    assert sketch(pool[:, 1]) == sketch(pool[:, 1].clone())


def test_the_picture_does_not_change_with_the_unit_of_the_numbers():
    one = state(6, 16, 128)
    assert sketch(one) == sketch(one * 4)


def test_a_layer_that_holds_more_is_drawn_with_more():
    one = state(4, 16, 128)
    one[3] *= 30
    rows, columns, cells = drawn(sketch(one))
    amounts = [sum(cell >> 4 for cell in cells[r * columns : (r + 1) * columns]) for r in range(4)]
    assert amounts[3] > 4 * max(amounts[:3])


def test_an_empty_state_is_drawn_without_a_fault():
    assert drawn(sketch(torch.zeros(4, 16, 64)))[0] == 4


def test_of_a_large_state_a_bounded_number_of_values_is_read(monkeypatch):
    monkeypatch.setattr(sketches, "MAX_VALUES", 4 * 4 * 64)  # every fourth of a channel's
    one = state(4, 16, 64)
    picture = sketch(one)
    one[:, 1:4] *= 30
    assert sketch(one) == picture
    one[2, 4] *= 30
    assert sketch(one) != picture
