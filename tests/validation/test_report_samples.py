"""What is kept of a validation to be shown, with images and answers made up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mvit_coreml.evaluation.targets import Answer
from mvit_coreml.preprocessing.geometry import Placement
from mvit_coreml.preprocessing.image_processor import FittedImage
from mvit_coreml.validation.pytorch_comparison import ComparedImage
from mvit_coreml.validation.report_samples import SampleRecorder

pytestmark = pytest.mark.fast

PLACE = Placement(image_size=(4, 8), resized_size=(4, 8), input_size=(8, 8))


class Target:
    """Prepares an image, given as a number, as a 4x8 image of that number between rows of 99."""

    def preparation(self, image: int) -> FittedImage:
        pixels = np.full((8, 8, 3), 99, np.uint8)
        pixels[2:6] = image
        return FittedImage(pixels, PLACE)


def recorder(samples: int, images: int) -> SampleRecorder:
    target: Any = Target()
    return SampleRecorder(target, samples, images)


def classified(scores: Any, role: str = "logits") -> Answer:
    return Answer(outputs={role: np.asarray(scores, np.float32)}, placement=PLACE)


def segmented(class_map: Any) -> Answer:
    return Answer(outputs={"classes": np.asarray(class_map, np.int32)[None]}, placement=PLACE)


def compared(answers: Any, scores: Any, agrees: float, snr: float) -> ComparedImage:
    answer, expected = answers
    return ComparedImage(answer=answer, expected=expected, scores=scores, snr=snr, agrees=agrees)


def run(agreements: Any, samples: int, snrs: Any = None) -> list[str]:
    chosen = recorder(samples, len(agreements))
    answers = classified([0.0, 1.0]), classified([1.0, 0.0])
    for index, agrees in enumerate(agreements):
        ratio = 20.0 if snrs is None else snrs[index]
        scores = np.zeros(2), np.zeros(2)
        chosen.add(str(index), index, compared(answers, scores, agrees, ratio))
    return [sample.image for sample in chosen.result().samples]


def test_images_that_agree_are_spread_evenly():
    assert run([1.0] * 12, 4) == ["0", "3", "6", "9"]


def test_two_thirds_are_the_worst_and_come_first():
    agreements = [1.0] * 12
    for index in (5, 7, 8, 10, 11):
        agreements[index] = 0.0
    snrs = [20.0] * 12
    snrs[10], snrs[7] = 3.0, 4.0
    assert run(agreements, 3, snrs) == ["10", "7", "0"]


def test_without_images_that_agree_the_worst_fill_up():
    assert run([0.9, 0.5, 0.7, 0.8], 4) == ["1", "2", "3", "0"]


def test_there_are_no_more_samples_than_images():
    assert run([1.0, 0.0], 12) == ["1", "0"]


def test_the_three_likeliest_classes_are_kept_with_their_probabilities():
    chosen = recorder(1, 1)
    logits = np.log([0.1, 0.2, 0.3, 0.4])
    answers = classified([0.4, 0.3, 0.2, 0.1], "probabilities"), classified(logits)
    chosen.add("a", 7, compared(answers, (logits, logits), 0.0, 1.0))
    (sample,) = chosen.result().samples
    assert [index for index, _ in sample.package] == [0, 1, 2]
    assert [share for _, share in sample.package] == pytest.approx([0.4, 0.3, 0.2])
    assert [index for index, _ in sample.reference] == [3, 2, 1]
    assert [share for _, share in sample.reference] == pytest.approx([0.4, 0.3, 0.2])


def test_logits_that_add_up_to_one_are_no_probabilities():
    chosen = recorder(1, 1)
    logits = [1.5, -0.25, -0.25], [0.5, 0.25, 0.25]
    answers = classified(logits[0]), classified(logits[1])
    chosen.add("a", 7, compared(answers, (np.zeros(2), np.zeros(2)), 0.0, 1.0))
    (sample,) = chosen.result().samples
    shares = [share for _, share in sample.reference]
    # exp(0.25) of the others
    assert shares == pytest.approx([0.390991, 0.304505, 0.304505], abs=1e-6)


def test_padding_is_cut_off_pictures_and_maps_of_any_resolution():
    chosen = recorder(1, 1)
    package_map, reference_map = np.full((4, 4), 9), np.full((4, 4), 9)
    package_map[1:3], reference_map[1:3] = 2, 3
    scores = np.zeros(2), np.zeros(2)
    chosen.add(
        "a", 7, compared((segmented(package_map), segmented(reference_map)), scores, 0.5, 1.0)
    )
    (sample,) = chosen.result().samples
    assert sample.pixels.shape == (4, 8, 3)
    assert np.unique(sample.pixels).tolist() == [7]
    assert sample.maps is not None
    reference, package = sample.maps
    assert (reference.shape, package.shape) == ((2, 4), (2, 4))
    assert (reference == 3).all()
    assert (package == 2).all()


@pytest.mark.parametrize(("images", "size", "expected"), [(4, 7, 28), (10, 5000, 1000)])
def test_pairs_are_scores_of_the_same_class_from_every_image(images, size, expected):
    def pairs() -> tuple[tuple[float, float], ...]:
        chosen = recorder(1, images)
        answers = classified([0.0, 1.0]), classified([1.0, 0.0])
        for index in range(images):
            wanted = np.arange(size) + 10_000 * index
            scores = (wanted + 0.5).astype(np.float32), wanted.astype(np.float32)
            chosen.add(str(index), index, compared(answers, scores, 1.0, 9.0))
        return chosen.result().score_pairs

    found = pairs()
    assert len(set(found)) == expected
    assert {second - first for first, second in found} == {0.5}
    assert {int(first) // 10_000 for first, _ in found} == set(range(images))
    assert found == pairs()


def test_more_images_than_pairs_are_drawn_from_evenly():
    chosen = recorder(1, 4000)
    answers = classified([0.0, 1.0]), classified([1.0, 0.0])
    for index in range(4000):
        scores = np.array([index, index]) + 0.25, np.array([index, index]) + 0.0
        chosen.add(str(index), index, compared(answers, scores, 1.0, 9.0))
    firsts = [first for first, _ in chosen.result().score_pairs]
    assert np.diff(firsts).tolist() == [4.0] * 999


def test_class_indices_and_infinite_scores_are_no_pairs():
    chosen = recorder(1, 2)
    answers = classified([0.0, 1.0]), classified([1.0, 0.0])
    chosen.add("0", 0, compared(answers, (np.array([1, 2]), np.array([1, 2])), 1.0, 9.0))
    chosen.add("1", 1, compared(answers, (np.array([np.inf, 2.0]), np.array([1.0, 2.0])), 1.0, 9.0))
    assert chosen.result().score_pairs == ((2.0, 2.0),)
