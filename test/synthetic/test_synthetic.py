"""The synthetic street: deterministic, consistent with itself, and true to a pinhole camera."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields

import numpy as np
import pytest

from sfi_ros.classes import BACKGROUND_LOOKUP, FOREGROUND_LOOKUP
from sfi_ros.synthetic import SyntheticStreet
from sfi_ros.synthetic.street import SyntheticFrame
from sfi_ros.synthetic.traffic import Moment

SMALL = {"width": 256, "height": 128}
SEEDS = range(5)
LABELS = {7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 33}
"""Every Cityscapes label id that a frame can show."""


@pytest.fixture(scope="module")
def streets() -> list[SyntheticStreet]:
    return [SyntheticStreet(seed, **SMALL) for seed in SEEDS]


@pytest.fixture(scope="module")
def frames(streets: list[SyntheticStreet]) -> list[SyntheticFrame]:
    return [street.frame(index) for street in streets for index in (0, 500)]


def _equal(a: SyntheticFrame, b: SyntheticFrame) -> bool:
    return all(np.array_equal(getattr(a, field.name), getattr(b, field.name)) for field in fields(a))


def _without_objects(street: SyntheticStreet, index: int) -> np.ndarray:
    """Visible labels of the same moment when nobody is on the street."""
    time = index / street.rate
    drive = street._drive
    moment = Moment(time, drive.travelled(time), drive.camera(time))
    return street._render(moment, []).paint[:, :, 3]


def test_frames_do_not_depend_on_object_or_call_order(streets: list[SyntheticStreet]) -> None:
    forwards = [streets[3].frame(index) for index in (0, 5, 60)]
    fresh = SyntheticStreet(3, **SMALL)
    backwards = [fresh.frame(index) for index in (60, 5, 0)][::-1]
    assert all(_equal(a, b) for a, b in zip(forwards, backwards, strict=True))
    assert all(_equal(a, fresh.frame(n)) for n, a in enumerate(streets[3].frames(2)))


def test_frames_of_one_street_do_not_share_memory(streets: list[SyntheticStreet]) -> None:
    before = streets[0].frame(1)
    kept = before.image.copy(), before.labels.copy()
    before.image[:], before.labels[:], before.background[:] = 0, 0, 0
    again = streets[0].frame(1)
    assert np.array_equal(again.image, kept[0]) and np.array_equal(again.labels, kept[1])
    with pytest.raises(FrozenInstanceError):
        before.image = again.image  # type: ignore[misc]


def test_seeds_differ_in_looks_layout_and_camera(streets: list[SyntheticStreet]) -> None:
    firsts = [street.frame(0) for street in streets]
    for n, a in enumerate(firsts):
        for m, b in enumerate(firsts[:n]):
            assert np.abs(a.image.astype(int) - b.image).mean() > 8
            assert (a.background != b.background).mean() > 0.01
            assert not np.array_equal(streets[n].camera_matrix, streets[m].camera_matrix)


@pytest.mark.parametrize(("width", "height"), [(256, 128), (321, 173), (97, 240), (16, 16)])
def test_shapes_types_and_ids(width: int, height: int) -> None:
    street = SyntheticStreet(5, width=width, height=height, rate=7.5)
    frame = next(street.frames(1))
    assert frame.image.shape == (height, width, 3)
    assert frame.labels.shape == frame.foreground.shape == frame.background.shape == (height, width)
    assert {getattr(frame, field.name).dtype for field in fields(frame)} == {np.dtype(np.uint8)}
    assert set(np.unique(frame.labels)) <= LABELS
    assert street.camera_matrix.shape == (3, 3) and street.camera_matrix.dtype == np.float64


def test_labels_foreground_and_background_agree(frames: list[SyntheticFrame]) -> None:
    for frame in frames:
        assert set(np.unique(frame.labels)) <= LABELS
        assert np.array_equal(frame.foreground, FOREGROUND_LOOKUP[frame.labels])
        assert set(np.unique(frame.background)) <= {0, 1, 2}
        free = frame.foreground == 0
        assert np.array_equal(BACKGROUND_LOOKUP[frame.labels][free], frame.background[free])


def test_background_is_what_is_seen_when_nobody_is_there(streets: list[SyntheticStreet]) -> None:
    for street in streets:
        for index in (0, 500):
            empty = _without_objects(street, index)
            assert not FOREGROUND_LOOKUP[empty].any()
            assert np.array_equal(BACKGROUND_LOOKUP[empty], street.frame(index).background)


def test_every_background_class_occurs_behind_objects(frames: list[SyntheticFrame]) -> None:
    hidden = np.concatenate([frame.background[frame.foreground == 1] for frame in frames])
    shares = np.bincount(hidden, minlength=3) / hidden.size
    assert (shares > 0.01).all()
    assert 0.05 < np.mean([frame.foreground.mean() for frame in frames]) < 0.4


def test_people_and_vehicles_both_occur_and_fixed_things_stand_before_some(frames: list[SyntheticFrame]) -> None:
    seen = np.unique(np.concatenate([frame.labels.ravel() for frame in frames]))
    assert {7, 8, 11, 17, 20, 21, 23, 24, 26} <= set(seen)


def test_objects_move_while_the_street_drives_by(streets: list[SyntheticStreet]) -> None:
    for street in streets:
        a, b = street.frame(10), street.frame(14)
        assert (a.foreground != b.foreground).any()
        assert (a.background != b.background).any()


def test_rate_only_sets_which_moments_are_shown() -> None:
    slow, fast = SyntheticStreet(2, **SMALL, rate=10.0), SyntheticStreet(2, **SMALL, rate=20.0)
    assert np.array_equal(slow.frame(6).labels, fast.frame(12).labels)
    assert not np.array_equal(slow.frame(6).labels, fast.frame(6).labels)


def test_ground_and_objects_share_one_projection(streets: list[SyntheticStreet]) -> None:
    """Points on the road, projected like any vertex, land on pixels that the ground view calls road, and points on the
    sidewalk (one kerb higher) on sidewalk: also where the street bends, climbs, or the camera rolls."""
    ahead, d = (x.ravel() for x in np.meshgrid(np.arange(6.0, 30.0, 0.8), np.arange(-9.0, 9.0, 0.3)))
    checked = {7: 0, 8: 0}
    for street in streets:
        ground = street._ground
        for time in (0.0, 11.0):
            camera = street._drive.camera(time)
            top, _, labels, _, seen = ground.view(camera)
            at = np.array([ground.label_at(camera.s + a, b) for a, b in zip(ahead, d, strict=True)])
            for label, height in ((7, 0.0), (8, ground._kerb_height)):
                chosen = at == label
                pixels = camera.pixels(camera.axes(ahead[chosen], d[chosen], np.full(chosen.sum(), height)))
                u, v = np.floor(pixels + 0.5).astype(int).T
                inside = (u >= 0) & (u < street.width) & (v >= top) & (v < street.height)
                found, there = labels[v[inside] - top, u[inside]], seen[v[inside] - top, u[inside]]
                assert there.all()
                checked[label] += found.size
                # The rest: points within a pixel of a border, and road hidden by a raised median or far kerb.
                assert found.size == 0 or (found == label).mean() > 0.93
    assert min(checked.values()) > 1000


def test_a_larger_picture_shows_the_same_street() -> None:
    small, large = SyntheticStreet(1, 256, 128), SyntheticStreet(1, 512, 256)
    assert np.allclose(small.camera_matrix[:2] * 2, large.camera_matrix[:2])
    shrunk = large.frame(20).background[::2, ::2]
    assert (small.frame(20).background == shrunk).mean() > 0.95


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"width": 0}, "width"),
        ({"height": -4}, "height"),
        ({"width": 10**6}, "width"),
        ({"height": 100.5}, "height"),
        ({"rate": 0.0}, "rate"),
        ({"rate": float("nan")}, "rate"),
        ({"rate": float("inf")}, "rate"),
        ({"seed": -1}, "seed"),
    ],
)
def test_nonsense_is_refused_by_name(arguments: dict, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        SyntheticStreet(**arguments)


def test_negative_frame_is_refused(streets: list[SyntheticStreet]) -> None:
    with pytest.raises(ValueError, match="index"):
        streets[0].frame(-1)
