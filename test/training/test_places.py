"""Places in a labelled street are where the labels say."""

from __future__ import annotations

import pytest
import torch

from training.data.places import curb, sidewalk_at_objects


def street(gap: int = 0) -> torch.Tensor:
    """(40, 60): road on the left, `gap` columns of nothing, sidewalk on the right from row 10 down; wall above."""
    labels = torch.full((40, 60), 2, dtype=torch.uint8)
    labels[10:, :30] = 0
    labels[10:, 30:] = 1
    labels[:, 30 : 30 + gap] = 255
    return labels


@pytest.mark.parametrize(("gap", "columns"), [(0, range(27, 33)), (2, range(29, 33)), (5, range(32, 33)), (6, ())])
def test_the_curb_is_within_reach_of_road_and_sidewalk(gap: int, columns: range) -> None:
    found = curb(street(gap), reach=3)
    assert found.shape == (40, 60) and found.dtype == bool
    assert found[20].nonzero()[0].tolist() == list(columns)
    assert not found[:7].any() and found[7:].any() == bool(columns)


def test_there_is_no_curb_without_sidewalk() -> None:
    assert not curb(street().masked_fill(street() == 1, 2)).any()


def test_sidewalk_at_objects_is_behind_and_beside_them() -> None:
    foreground = torch.zeros(40, 60, dtype=torch.uint8)
    foreground[20:25, 26:36] = 1
    found = sidewalk_at_objects(street(), foreground, reach=0.1)  # 4 of 40 pixels
    assert found.any(0).nonzero()[0].tolist() == list(range(30, 40))
    assert found.any(1).nonzero()[0].tolist() == list(range(16, 29))
    assert not sidewalk_at_objects(street(), torch.zeros_like(foreground)).any()
