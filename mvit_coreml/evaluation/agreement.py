"""What share of a checkpoint's answers a package keeps, judged on few photos.

Counting equal answers on ten photos says little: none lost of ten still allows a quarter lost. The
scores say more. An answer is lost when a competitor's error beats its margin, the distance between
the reference's best score and the competitor's; and the errors of palettized weights are much the
same on every photo, close to normal, of one size for small and large margins, and close to
independent from class to class. So every photo's errors, by rank of the competitor, are put to
every photo's margins: the flips among all these pairs estimate the flips on other photos, with the
errors' bias, tails and correlation as they are, and without assuming a distribution. Few photos
have a margin near zero, so each photo also stands for its neighbours, whose best score is a little
lower or higher (a kernel density estimate of the margins, reflected at a tie).

The lower bound comes from a Bayesian bootstrap over photos (Rubin, 1981, Annals of Statistics 9,
130-134), made more careful for few photos, with one unseen photo as fragile as the most fragile
seen. The counted flips correct the predicted ones as a Poisson count with a gamma prior; where the
count is far from what margins predict, the binomial limits of the count take over (Clopper and
Pearson, 1934, Biometrika 26, 404-413), and no bound is above what the count alone makes plausible.

Measured with MobileNetV2 on 400 ImageNet photos (seven packages that keep 84 to 98 %) and
MobileViT-XXS on 500 CIFAR-10 photos (four, 48 to 98 %), drawing photos again and again, which also
set the constants below: margins alone miss the share counted on all photos by up to 2.4 points
where 94 % or more are kept (4.4 where less), and by up to 0.5 once its own count corrects them;
the bound is below the share on the other photos in 93 to 95 % of draws of 10 or 16 photos and in
95 % or more of 40, 64 and 200. Where 98 % are kept, the bound is typically 92 % on 10 photos, 95 %
on 40, and 96 % on 200.

Of several labels an answer is the set of those above the threshold. It is lost when any label's
error beats the distance of its score from the threshold, which then is its margin.

A segmenter's pixels are no independent answers: only the photos' shares of equal pixels are drawn.
Where two photos of 40 hold nearly half of the loss (DeepLabV3), draws of 10 to 32 that miss them
are too hopeful: the bound then holds in 78 to 85 % of draws, one of Student's t in 60 to 80 %.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvit_coreml.evaluation.metrics import Floats, wilson_interval

# Competitors of the best class that may take over: lower ones hardly ever do.
COMPETITORS = 5
# Of several labels, those nearest to the threshold: any of them may cross it.
LABELS = 20
# Fewer photos than this tell no distribution of margins: only the count is used.
FEWEST_IMAGES = 5
# Photos whose errors are put to the margins: more make no difference.
MOST_ERRORS = 100
# Neighbours that each photo stands for, and the width of their spread as a multiple of
# Silverman's rule (1986, Density Estimation, section 3.4.2) without its factor 0.9.
NEIGHBOURS, BANDWIDTH = 24, 0.9
# Bootstrap weights are Gamma(n / (n + CAUTION)): Gamma(1) at large n, more uneven at small n.
CAUTION = 12.0
# Weight of the unseen photo, where a seen one has about 1.
UNSEEN_WEIGHT = 1.0
# The prediction counts like this many flips, and with this prior probability it is no guide at all.
PRIOR_FLIPS, PRIOR_MISFIT = 5.0, 0.05
DRAWS = 4000
# The normal quantile of a one-sided 95 % bound.
Z95 = NormalDist().inv_cdf(0.95)


@dataclass(frozen=True, kw_only=True)
class AgreementEstimate:
    """How many of the reference's answers are kept; all shares are between 0 and 1.

    Attributes:
        images: independent photos.
        agreement: counted share of equal answers; of a segmenter the mean share of equal pixels
            over the photos.
        low: lower end of the counted share's two-sided 95 % interval.
        high: its upper end.
        expected: share expected on other photos of the kind.
        lower_bound: one-sided 95 % lower bound of the share on other photos.
    """

    images: int
    agreement: float
    low: float
    high: float
    expected: float
    lower_bound: float


@dataclass(frozen=True)
class _View:
    """What is kept of one answer.

    Attributes:
        lost: 1 where the class differs; of a segmenter the share of pixels where it does.
        leaders: (k,) the reference's best scores, descending; none of a segmenter. Of several
            labels the threshold, 0, and how far the nearest ones are from it, as negative numbers.
        errors: (k - 1,) errors of the competitors' scores less the error of the best class's; of
            several labels the errors towards the threshold.
    """

    lost: float
    leaders: Floats
    errors: Floats


class AgreementMeter:
    """Accumulates raw scores of a package and its reference into an :class:`AgreementEstimate`.

    Args:
        several_labels: a classifier's labels are those with scores above 0, rather than the one
            with the highest.
    """

    def __init__(self, *, several_labels: bool = False) -> None:
        self._several_labels = several_labels
        self._photos: dict[Hashable, list[_View]] = {}
        self._of_pixels = False

    def add(
        self,
        scores: Floats,
        reference: Floats,
        *,
        image: int | None = None,
        mask: NDArray[Any] | None = None,
    ) -> None:
        """Take in one answer.

        Args:
            scores: the package's raw scores, (C,) of a classifier or (C, h, w) of a segmenter. A
                score that is not a number makes a lost answer.
            reference: the reference's, of the same shape.
            image: number of the photo, for several views of one (mirrored, cropped), which are no
                independent photos; without it the answer is of a photo of its own.
            mask: (h, w), true where a segmenter's position counts; a photo without such a position
                is left out.

        Raises:
            ValueError: the shapes don't fit each other or earlier answers.
        """
        scores, reference = np.asarray(scores, np.float64), np.asarray(reference, np.float64)
        if scores.shape != reference.shape or scores.ndim not in (1, 3):
            raise ValueError(f"scores {scores.shape} cannot be compared with {reference.shape}")
        of_pixels = scores.ndim == 3
        if self._photos and of_pixels != self._of_pixels:
            raise ValueError("scores of a classifier and of a segmenter cannot be mixed")
        different = (scores.argmax(0) != reference.argmax(0)) | np.isnan(scores).any(0)
        if self._several_labels:
            view = _view_of_labels(scores, reference)
        elif of_pixels:
            counted = np.ones(scores.shape[1:], bool) if mask is None else np.asarray(mask, bool)
            if not counted.any():
                return
            view = _View(float(different[counted].mean()), np.empty(0), np.empty(0))
        else:
            ranks = np.argsort(-reference, kind="stable")[: COMPETITORS + 1]
            errors = (scores - reference)[ranks]
            relative = np.nan_to_num(errors[1:] - errors[0], nan=np.inf, posinf=np.inf)
            view = _View(float(different), reference[ranks], relative)
        self._of_pixels = of_pixels
        key = ("answer", len(self._photos)) if image is None else ("photo", image)
        self._photos.setdefault(key, []).append(view)

    def add_share(self, share: float) -> None:
        """Take in a segmenter's photo by the share, 0 to 1, of its pixels that have equal classes.

        Raises:
            ValueError: earlier answers were a classifier's.
        """
        if self._photos and not self._of_pixels:
            raise ValueError("scores of a classifier and of a segmenter cannot be mixed")
        self._of_pixels = True
        view = _View(1 - share, np.empty(0), np.empty(0))
        self._photos["answer", len(self._photos)] = [view]

    def result(self) -> AgreementEstimate:
        """Return the estimate over everything taken in so far: the same every time.

        Raises:
            ValueError: nothing was taken in.
        """
        if not self._photos:
            raise ValueError("no photos to estimate an agreement from")
        lost = np.array([np.mean([view.lost for view in views]) for views in self._photos.values()])
        generator = np.random.default_rng(0)
        return self._of_photos(lost, generator) if self._of_pixels else self._of(lost, generator)

    def _of_photos(self, lost: Floats, generator: np.random.Generator) -> AgreementEstimate:
        """Estimate from every photo's lost share: its pixels are not independent."""
        mean = float(lost.mean())
        if len(lost) < FEWEST_IMAGES:
            draws = _count_draws(mean * len(lost), len(lost), generator)
            high = float(1 - mean)
        else:
            # Their means may leave the range by a rounding error.
            draws = np.clip(_bootstrap(lost[:, None], np.ones((DRAWS, 1)), generator), 0, 1)
            high = float(1 - np.quantile(draws, 0.025))
        return AgreementEstimate(
            images=len(lost),
            agreement=1 - mean,
            low=min(1 - mean, float(1 - np.quantile(draws, 0.975))),
            high=max(1 - mean, high),
            expected=1 - mean,
            lower_bound=min(1 - mean, float(1 - np.quantile(draws, 0.95))),
        )

    def _of(self, lost: Floats, generator: np.random.Generator) -> AgreementEstimate:
        """Estimate from a classifier's lost answers, margins and errors."""
        images, flips = len(lost), float(lost.sum())
        low, high = wilson_interval(images - flips, images)
        counted = _count_draws(flips, images, generator)
        if images < FEWEST_IMAGES:
            expected = float(1 - lost.mean())
            draws = counted
        else:
            own, near = self._predicted_flips()
            predicted = float(own.mean(1).sum())
            misfit = _misfit_probability(flips, predicted, images)
            rates = _bootstrap(near, _weights(near.shape[1], generator), generator)
            factors = generator.gamma(PRIOR_FLIPS + flips, 1 / (PRIOR_FLIPS + predicted), DRAWS)
            draws = np.minimum(1.0, rates * factors)
            draws = np.where(generator.random(DRAWS) < misfit, counted, draws)
            corrected = near.mean() * (PRIOR_FLIPS + flips) / (PRIOR_FLIPS + predicted)
            expected = 1 - min(1.0, (1 - misfit) * corrected + misfit * flips / images)
        bound = float(1 - np.quantile(draws, 0.95))
        if flips:
            fewest = generator.beta(flips, images - flips + 1, DRAWS)
            bound = min(bound, float(1 - np.quantile(fewest, 0.05)))
        return AgreementEstimate(
            images=images,
            agreement=float(1 - lost.mean()),
            low=low,
            high=high,
            expected=float(expected),
            lower_bound=min(bound, float(expected)),
        )

    def _predicted_flips(self) -> tuple[Floats, Floats]:
        """Put photos' errors to photos' margins.

        Returns:
            Shares of flips, (photos, photos with errors), both averaged over views: at the
            photos' own margins, and at those of their neighbours.
        """
        photos = list(self._photos.values())
        sources = photos[:: math.ceil(len(photos) / MOST_ERRORS)]
        errors = np.concatenate([_stacked(views, "errors") for views in sources])
        leaders = [_stacked(views, "leaders") for views in photos]
        width = _bandwidth(np.concatenate(leaders), len(photos))
        steps = [NormalDist().inv_cdf((i + 0.5) / NEIGHBOURS) for i in range(NEIGHBOURS)]
        starts = np.cumsum([0, *(len(views) for views in sources[:-1])])
        sizes = np.array([len(views) for views in sources])
        own: list[Floats] = []
        near: list[Floats] = []
        for views in leaders:
            for shifts, rows in ((np.zeros(1), own), (width * np.array(steps), near)):
                flips = _flips(_margins(views, shifts), errors)
                rows.append(np.add.reduceat(flips, starts) / sizes)
        return np.stack(own), np.stack(near)


def images_needed(estimate: AgreementEstimate, share: float) -> int | None:
    """About how many photos would decide that ``share`` of the answers is kept.

    The bound's relative distance from the expected loss has two parts: one shrinks with the number
    of photos, the other as counted flips replace the prior.

    Args:
        estimate: what the photos at hand say.
        share: wanted share of equal answers, between 0 and 1.

    Returns:
        Photos in all; no more than those at hand where they decide it already. None where more
        would not help, because the expected share is not above the wanted one.
    """
    allowed, expected = 1 - share, 1 - estimate.expected
    if estimate.lower_bound >= share:
        return estimate.images
    if expected >= allowed:
        return None
    bound = 1 - estimate.lower_bound
    # An expected loss of nothing has no logarithm.
    loss = max(expected, allowed / 10)

    def counting(images: float) -> float:
        return 1 / (PRIOR_FLIPS + loss * images)

    variance = (math.log(bound / loss) / Z95) ** 2
    shrinking = max(0.0, variance - counting(estimate.images)) * estimate.images
    goal = (math.log(allowed / loss) / Z95) ** 2
    # shrinking / n + 1 / (prior + loss n) = goal, as a quadratic equation in n.
    linear = goal * PRIOR_FLIPS - shrinking * loss - 1
    root = math.sqrt(linear * linear + 4 * goal * loss * shrinking * PRIOR_FLIPS)
    return max(estimate.images + 1, math.ceil((root - linear) / (2 * goal * loss)))


def _view_of_labels(scores: Floats, reference: Floats) -> _View:
    """Return what is kept of (C,) scores of labels."""
    present = reference > 0
    lost = ((scores > 0) != present).any() or np.isnan(scores).any()
    nearest = np.argsort(np.abs(reference), kind="stable")[:LABELS]
    errors = np.where(present, reference - scores, scores - reference)[nearest]
    leaders = np.concatenate([[0.0], -np.abs(reference)[nearest]])
    return _View(float(lost), leaders, np.nan_to_num(errors, nan=np.inf, posinf=np.inf))


def _stacked(views: list[_View], name: str) -> Floats:
    return np.stack([getattr(view, name) for view in views])


def _bandwidth(leaders: Floats, photos: int) -> float:
    """Spread of the neighbours of (views, k) best scores, in the scores' unit."""
    if leaders.shape[1] < 2:
        return 0.0
    margins = leaders[:, 0] - leaders[:, 1]
    quarter, three_quarters = np.quantile(margins, [0.25, 0.75])
    spread = min(float(margins.std()), float(three_quarters - quarter) / 1.34)
    return float(BANDWIDTH * spread * photos**-0.2)


def _margins(leaders: Floats, shifts: Floats) -> Floats:
    """Margins (views, shifts, k - 1) of (views, k) best scores with the first of them shifted."""
    shifted = np.repeat(leaders[:, None], len(shifts), axis=1)
    shifted[:, :, 0] += shifts
    # A best score that falls below its competitors becomes one itself.
    shifted = -np.sort(-shifted, axis=-1)
    return shifted[..., :1] - shifted[..., 1:]


def _flips(margins: Floats, errors: Floats) -> Floats:
    """Share of (views, shifts, k) margins that each of (errors, k) beats: (errors,)."""
    flat = margins.reshape(-1, 1, margins.shape[-1])
    return (errors[None] > flat).any(-1).mean(0)


def _misfit_probability(flips: float, predicted: float, images: int) -> float:
    """Probability that margins are no guide: of two models of the count, by Bayes' rule.

    With the prediction as a guide, the count is Poisson with a gamma prior on its rate; without,
    every count is as likely.
    """
    prior, rate = PRIOR_FLIPS, max(predicted, 1e-9)
    guided = math.lgamma(prior + flips) - math.lgamma(prior) - math.lgamma(flips + 1)
    guided += prior * math.log(prior / (prior + rate)) + flips * math.log(rate / (prior + rate))
    unguided = -math.log(images + 1)
    odds = math.log(1 / PRIOR_MISFIT - 1) + guided - unguided
    return 1 / (1 + math.exp(min(odds, 700.0)))


def _weights(count: int, generator: np.random.Generator) -> Floats:
    """Random weights (DRAWS, count) of photos, each about 1."""
    shape = count / (count + CAUTION)
    return generator.gamma(shape, 1 / shape, (DRAWS, count))


def _bootstrap(rates: Floats, columns: Floats, generator: np.random.Generator) -> Floats:
    """Draw mean flip rates (DRAWS,) of (photos, errors) rates, over photos and weighted errors.

    The most fragile photo comes a second time, for those unseen.
    """
    fragile = rates[rates.mean(1).argmax()]
    unseen = generator.gamma(UNSEEN_WEIGHT, 1.0, (DRAWS, 1))
    rows = np.concatenate([_weights(len(rates), generator), unseen], axis=1)
    sums = ((rows @ np.concatenate([rates, fragile[None]])) * columns).sum(1)
    return sums / (rows.sum(1) * columns.sum(1))


def _count_draws(flips: float, images: int, generator: np.random.Generator) -> Floats:
    """Draw lost shares (DRAWS,) whose quantiles are the count's upper binomial limits."""
    if flips >= images:
        return np.ones(DRAWS)
    return generator.beta(flips + 1, images - flips, DRAWS)
