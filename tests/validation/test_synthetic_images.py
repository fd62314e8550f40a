"""The synthetic pictures."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from mvit_coreml.validation.synthetic_images import calibration_pictures, synthetic_pictures

pytestmark = pytest.mark.fast

SIZE = (48, 64)


@pytest.fixture(scope="module")
def pictures():
    return synthetic_pictures(24, SIZE)


def test_they_are_rgb_images_of_the_size(pictures):
    assert {(picture.shape, picture.dtype.name) for picture in pictures} == {((*SIZE, 3), "uint8")}


def test_they_are_the_same_every_time_and_fewer_are_the_first_of_them(pictures):
    assert np.array_equal(synthetic_pictures(5, SIZE), pictures[:5])
    assert not np.array_equal(synthetic_pictures(5, SIZE, seed=1)[0], pictures[0])


def test_no_two_are_equal_and_channels_differ(pictures):
    assert len({picture.tobytes() for picture in pictures}) == len(pictures)
    # Black, white and checkerboards apart, a swap of red and blue has to show.
    swapped = [np.array_equal(picture, picture[..., ::-1]) for picture in pictures]
    assert sum(swapped) <= 3


def test_textures_have_their_energy_in_low_frequencies(pictures):
    plane = pictures[0][..., 0].astype(float)
    power = np.abs(np.fft.fft2(plane - plane.mean())) ** 2
    frequency = np.hypot(np.fft.fftfreq(SIZE[0])[:, None], np.fft.fftfreq(SIZE[1])[None])
    low, high = power[(frequency > 0) & (frequency < 0.1)], power[frequency > 0.3]
    assert low.mean() > 20 * high.mean()


def test_extremes_reach_black_white_and_full_colours(pictures):
    every = np.concatenate([picture.reshape(-1, 3) for picture in pictures[5::6]])
    found = {tuple(color) for color in np.unique(every, axis=0).tolist()}
    assert found == {(0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 0, 255)}


def test_pictures_to_fit_to_are_others_than_those_that_are_validated_on():
    fitted = calibration_pictures(12, SIZE)
    assert {(picture.shape, picture.dtype.name) for picture in fitted} == {((*SIZE, 3), "uint8")}
    assert np.array_equal(calibration_pictures(5, SIZE), fitted[:5])
    every = [*fitted, *synthetic_pictures(24, SIZE)]
    assert len({picture.tobytes() for picture in every}) == len(every)


def test_leaves_have_edges_and_flat_parts_as_photos_do():
    """Differences of neighbours in photos are heavy-tailed; those of noise are normal."""

    def kurtosis(picture):
        differences = np.diff(picture.mean(-1), axis=1)
        return scipy.stats.kurtosis(differences, axis=None, fisher=False)

    fitted = calibration_pictures(24, (96, 96))
    leaves, textures = fitted[1::2], fitted[2::4]
    # Three is the normal distribution's.
    assert np.median([kurtosis(picture) for picture in textures]) < 4
    assert np.median([kurtosis(picture) for picture in leaves]) > 6
