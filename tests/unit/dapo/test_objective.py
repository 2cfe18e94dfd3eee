from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from dapo.head import patch_states, upsample
from dapo.objective import brought_down, local_losses, type_masks


def by_definition(states: Tensor, types: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Method section 2 on maps of all states at full size."""
    maps = upsample(states, types.shape[-1])
    kinds = maps.shape[1] - 1
    target = F.one_hot(types, kinds + 1).permute(0, 3, 1, 2).float().clamp(1e-5 / kinds, 1 - 1e-5)
    p = (target * maps).sum(1) + 1e-5
    defect = (types > 0).float()

    def dice(found: Tensor, wanted: Tensor) -> Tensor:
        overlap = 2 * (found * wanted).sum((1, 2)) + 1
        return 1 - (overlap / (found.sum((1, 2)) + wanted.sum((1, 2)) + 1)).mean()

    return (-((1 - p) ** 2) * p.log()).mean(), dice(maps[:, 0], 1 - defect), dice(maps[:, 1:].sum(1), defect)


def drawn(kinds: int, size: int, seed: int) -> tuple[list[Tensor], Tensor, Tensor]:
    """Features of two taps, text rows, and masks with good, one-type and several-type frames among them."""
    draw = torch.Generator().manual_seed(seed)
    taps = [F.normalize(torch.randn(3, 25, 8, generator=draw), dim=-1) for _ in range(2)]
    text = F.normalize(torch.randn(kinds + 1, 8, generator=draw), dim=-1)
    types = torch.randint(0, kinds + 1, (3, size, size), generator=draw)
    types[0] = 0
    types[1] = torch.where(types[1] > 1, 0, types[1])
    return taps, text, types


@pytest.mark.parametrize(("kinds", "size"), [(1, 20), (4, 20), (4, 5), (7, 33)])
def test_local_losses_are_those_of_maps_at_full_size(kinds: int, size: int) -> None:
    taps, text, types = drawn(kinds, size, seed=kinds)
    found = torch.stack(local_losses(taps, text, types, 0.07), 1)
    wanted = [torch.stack(by_definition(states, types)) for states in patch_states(taps, text, 0.07)]
    torch.testing.assert_close(found, torch.stack(wanted), atol=1e-5, rtol=1e-5)


def test_so_are_their_gradients() -> None:
    taps, text, types = drawn(4, 20, seed=3)
    gradients = []
    for loss in (
        lambda rows: torch.stack(local_losses(taps, rows, types, 0.2)).sum(),
        lambda rows: torch.stack([sum(by_definition(s, types)) for s in patch_states(taps, rows, 0.2)]).sum(),
    ):
        rows = text.clone().requires_grad_(True)
        torch.autograd.backward(loss(rows))
        assert rows.grad is not None
        gradients.append(rows.grad)
    torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-4)


def test_a_perfect_map_loses_nothing_and_a_wrong_one_all() -> None:
    text = torch.eye(2)
    types = torch.zeros(1, 40, 40, dtype=torch.int64)
    types[:, :20] = 1
    right = F.one_hot(types[0, ::10, ::10].flatten(), 2).float()[None]
    _, normal, abnormal = (float(one) for one in local_losses([right], text, types, 0.01))
    assert normal < 0.2 > abnormal
    _, normal, abnormal = (float(one) for one in local_losses([1 - right], text, types, 0.01))
    assert normal > 0.8 < abnormal


def test_masks_are_brought_down_by_the_transpose_of_the_enlargement() -> None:
    draw = torch.Generator().manual_seed(2)
    cells, masks = torch.rand(2, 36, 1, generator=draw), torch.rand(2, 31, 31, generator=draw)
    enlarged = upsample(cells, 31)[:, 0]
    torch.testing.assert_close(
        (cells[..., 0] * brought_down(masks, 36)).sum(1), (enlarged * masks).sum((1, 2)), rtol=1e-5, atol=1e-4
    )


def test_masks_count_what_is_covered_by_half() -> None:
    masks = torch.tensor([[[0.0, 0.49, 0.5, 1.0]], [[1.0, 1.0, 1.0, 1.0]]])
    rows = torch.tensor([3, 0])
    assert type_masks(masks, rows).tolist() == [[[0, 0, 3, 3]], [[0, 0, 0, 0]]]
    assert type_masks(masks, rows, exact=True).tolist() == [[[0, 0, 0, 3]], [[0, 0, 0, 0]]]
