"""Agreement from margins, against simulated scores whose true share is counted on many photos."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mvit_coreml.evaluation.agreement import AgreementEstimate, AgreementMeter, images_needed
from mvit_coreml.evaluation.metrics import wilson_interval

pytestmark = pytest.mark.fast

CLASSES = 12


def answers(count, noise, seed, heavy=False):
    """Reference scores with one class ahead by a gamma-distributed lead, and noisy copies."""
    generator = np.random.default_rng(seed)
    reference = generator.normal(size=(count, CLASSES)) * 1.5
    reference[:, 0] += generator.gamma(2.0, 1.5, count)
    errors = generator.normal(size=reference.shape)
    if heavy:
        scale = np.exp(0.4 * generator.normal(size=(count, 1)))
        errors = scale * generator.standard_t(4, reference.shape) / math.sqrt(2)
    return reference + noise * errors, reference


def kept(scores, reference):
    return float((scores.argmax(1) == reference.argmax(1)).mean())


def estimate(scores, reference, **keywords):
    meter = AgreementMeter()
    for one, other in zip(scores, reference, strict=True):
        meter.add(one, other, **keywords)
    return meter.result()


@pytest.mark.parametrize("heavy", [False, True], ids=["normal", "heavy tails"])
@pytest.mark.parametrize("images", [10, 32])
def test_the_bound_is_below_the_share_on_other_photos_as_often_as_it_says(images, heavy):
    share = kept(*answers(50_000, 0.15, 1, heavy))
    estimates = [estimate(*answers(images, 0.15, seed, heavy)) for seed in range(2, 32)]
    # 95 % of 30 draws are 28.5; more than five above is rarer than one in 300.
    assert sum(one.lower_bound > share for one in estimates) <= 5
    assert np.mean([one.expected for one in estimates]) == pytest.approx(share, abs=0.015)


def test_few_photos_with_wide_margins_promise_more_than_the_count():
    scores, reference = answers(40, 0.03, 5)
    share = kept(*answers(50_000, 0.03, 1))
    result = estimate(scores, reference)
    assert share > 0.98
    assert 0.95 < result.lower_bound < share
    # What the binomial limit of none lost of 40 would be.
    assert result.lower_bound > 0.05 ** (1 / 40)


def test_counts_and_interval_are_those_of_the_answers():
    scores, reference = answers(200, 0.5, 3)
    result = estimate(scores, reference)
    assert result.images == 200
    assert result.agreement == pytest.approx(kept(scores, reference))
    hits = round(200 * result.agreement)
    assert (result.low, result.high) == pytest.approx(wilson_interval(hits, 200))
    assert 0 <= result.lower_bound <= result.expected <= 1


def test_flips_that_margins_do_not_explain_win_over_the_margins():
    _, reference = answers(20, 0.0, 4)
    scores = reference.copy()
    # Five photos answered with a class far behind, beyond the competitors that are looked at.
    for photo in range(5):
        scores[photo, reference[photo].argmin()] += 100
    result = estimate(scores, reference)
    # The binomial limits of 5 of 20 lost: 10.4 % and 45.6 % (Clopper and Pearson's tables).
    assert result.lower_bound == pytest.approx(1 - 0.456, abs=0.02)
    assert result.expected == pytest.approx(0.75, abs=0.02)


def test_scores_that_are_no_numbers_are_lost_answers():
    scores, reference = answers(20, 0.0, 4)
    scores[:10] = np.nan
    result = estimate(scores, reference)
    assert result.agreement == 0.5
    assert result.lower_bound < 0.5


def test_equal_scores_lose_nothing():
    _, reference = answers(12, 0.0, 6)
    result = estimate(reference, reference)
    assert (result.agreement, result.expected, result.lower_bound) == (1, 1, 1)


def test_fewer_than_five_photos_are_only_counted():
    _, reference = answers(3, 0.0, 6)
    result = estimate(reference, reference)
    assert result.lower_bound == pytest.approx(0.05 ** (1 / 3), abs=0.02)


def test_views_of_a_photo_are_no_independent_photos():
    scores, reference = answers(16, 0.2, 7)
    once, thrice = AgreementMeter(), AgreementMeter()
    for image, (one, other) in enumerate(zip(scores, reference, strict=True)):
        once.add(one, other, image=image)
        for _ in range(3):
            thrice.add(one, other, image=image)
    assert thrice.result().images == 16
    assert thrice.result() == once.result()


def test_an_estimate_is_the_same_every_time():
    pair = answers(16, 0.2, 8)
    assert estimate(*pair) == estimate(*pair)


def photos_of_pixels(count, seed):
    """Two-class maps of 8 x 8 whose lost share differs from photo to photo."""
    generator = np.random.default_rng(seed)
    reference = np.stack([np.ones((count, 8, 8)), np.zeros((count, 8, 8))], axis=1)
    lost = generator.random((count, 8, 8)) < generator.beta(1, 19, (count, 1, 1))
    return np.where(lost[:, None], reference[:, ::-1], reference), reference


def test_a_segmenters_bound_covers_the_mean_over_photos():
    bounds = [estimate(*photos_of_pixels(16, seed)) for seed in range(60)]
    # The beta distribution's mean is 1 / 20; more than eight above of 60 is rarer than one in 100.
    assert sum(one.lower_bound > 0.95 for one in bounds) <= 8
    assert np.median([one.lower_bound for one in bounds]) > 0.88
    assert all(one.low <= one.agreement <= one.high for one in bounds)


def test_masked_positions_do_not_count():
    scores, reference = photos_of_pixels(6, 1)
    mask = np.zeros((8, 8), bool)
    mask[:4] = True
    scores[:, :, 4:] = reference[:, ::-1, 4:]
    expected = (scores.argmax(1) == reference.argmax(1))[:, :4].mean()
    assert estimate(scores, reference, mask=mask).agreement == pytest.approx(expected)
    meter = AgreementMeter()
    meter.add(scores[0], reference[0], mask=np.zeros((8, 8)))
    with pytest.raises(ValueError, match="no photos"):
        meter.result()


def test_shapes_that_do_not_fit_are_refused():
    meter = AgreementMeter()
    with pytest.raises(ValueError, match="cannot be compared"):
        meter.add(np.zeros(3), np.zeros(4))
    meter.add(np.zeros(3), np.zeros(3))
    with pytest.raises(ValueError, match="mixed"):
        meter.add(np.zeros((3, 2, 2)), np.zeros((3, 2, 2)))


def test_photos_needed_grow_with_the_share_and_end_where_it_is_out_of_reach():
    result = AgreementEstimate(
        images=32, agreement=1.0, low=0.9, high=1.0, expected=0.98, lower_bound=0.955
    )
    assert images_needed(result, 0.95) == 32
    some, more = images_needed(result, 0.96), images_needed(result, 0.97)
    assert 32 < some < more
    assert images_needed(result, 0.98) is None
    assert images_needed(result, 0.99) is None


def test_as_many_photos_as_said_to_be_needed_decide_in_most_draws():
    first = estimate(*answers(16, 0.1, 11))
    share = first.lower_bound + 0.01
    count = images_needed(first, share)
    assert 16 < count < 400
    bounds = [estimate(*answers(4 * count, 0.1, seed)).lower_bound for seed in range(12, 18)]
    assert np.median(bounds) > share
