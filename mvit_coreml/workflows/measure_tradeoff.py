"""Measuring what packages of many sizes keep of a checkpoint's answers: ``mvit-coreml tradeoff``.

Each package is made, saved, and judged as it lies on disk.
"""

from __future__ import annotations

import importlib.util
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

from mvit_coreml.checkpoints.checkpoint import Checkpoint
from mvit_coreml.compression.palettized_weight import BLOCKWISE_IOS, UNCOMPRESSED, Choice
from mvit_coreml.compression.plan import Scalar
from mvit_coreml.errors import GateError, InputError
from mvit_coreml.evaluation.accuracy import Data, Metric, Share, read_dataset
from mvit_coreml.evaluation.read_metadata import read_preparation
from mvit_coreml.evaluation.targets import PackageTarget, ReferenceTarget
from mvit_coreml.export.atomic_package import SUFFIX, package_size
from mvit_coreml.export.coremltools_import import load_coremltools, quiet
from mvit_coreml.mil.predictor import Predictor
from mvit_coreml.validation.pytorch_comparison import Judge, Judgement
from mvit_coreml.validation.synthetic_images import synthetic_pictures
from mvit_coreml.workflows.build_package import build_plain_package, compress_plain, no_progress
from mvit_coreml.workflows.choose_palettes import (
    FEWEST_IMAGES,
    Palettes,
    asked_for,
    grouped_choices,
    uniform_palettes,
)
from mvit_coreml.workflows.fit_palettes import PaletteFitting
from mvit_coreml.workflows.package_options import ConvertOptions, fill_in

PlanKind = Literal["none", "uniform", "mixed"]
PaletteKind = Literal["none", "kmeans", "fitted", "tuned", "coremltools"]


@dataclass(frozen=True, kw_only=True)
class TradeoffPoint:
    """One saved package, and what it was found to do.

    Attributes:
        name: different from all others, and good for a file: ``uniform-4-fitted``.
        plan: the same bits for all weights, bits shared out by sensitivity, or no palettes.
        palettes: found by k-means alone, fitted to images, tuned on top of that, or by
            coremltools' ``palettize_weights``.
        bits: of a uniform plan.
        average_bits: of an element of all palettizable weights, 16 or 32 where they stay as they
            are; ``None`` for coremltools.
        size: sum of the sizes of the package's files, in bytes.
        snr: signal-to-noise ratio of the scores in dB.
        agreement: share of the images, or of a segmenter's pixels, with the reference's class;
            ``None`` without classes.
        kl: mean Kullback-Leibler divergence of a classifier's probabilities in nats, else ``None``.
        accuracy: main figure on the labelled images, ``None`` without them.
        seconds: that making the package took, from the traced model on; coremltools begins with
            the saved package without palettes.
        applied: the plan and its values, ``None`` where there is none.
    """

    name: str
    plan: PlanKind
    palettes: PaletteKind
    bits: int | None
    average_bits: float | None
    size: int
    snr: float
    agreement: float | None
    kl: float | None
    accuracy: Share | None
    seconds: float
    applied: Palettes | None = field(repr=False, compare=False)

    @property
    def series(self) -> str:
        """The curve that it belongs to, in words."""
        if self.palettes == "none":
            return "no palettes"
        if self.palettes == "coremltools":
            return "coremltools"
        if self.palettes == "kmeans":
            return "k-means"
        return f"{'mixed bits, ' if self.plan == 'mixed' else ''}{self.palettes}"


@dataclass(frozen=True, kw_only=True)
class WeightSensitivity:
    """What a weight's palettes do to the answers while all others stay as they are.

    Attributes:
        name: of the weight.
        elements: number of its elements.
        noise: choice to the divergence of the answers: in nats for classes, for features the
            squared error relative to the signal.
    """

    name: str
    elements: int
    noise: Mapping[Choice, float]

    @property
    def worst(self) -> float:
        """The largest of the divergences."""
        return max(self.noise.values(), default=0.0)


@dataclass(frozen=True, kw_only=True)
class Tradeoff:
    """The size-quality curve of a checkpoint.

    Attributes:
        source: name of the checkpoint.
        ios: deployment target.
        images: number of images that the packages were judged on.
        synthetic: whether they were synthetic pictures.
        fitted_to: number of other images that palettes were fitted to.
        dataset: name of the labelled images, ``None`` without; it is what was judged on.
        metric: name of the main figure on them.
        reference_accuracy: the PyTorch reference's, in fp32.
        points: the packages, curve by curve.
        sensitivities: of all weights, the most sensitive first.
        notes: what whoever reads this should know.
        complete: whether everything was measured; an interruption leaves the rest out.
    """

    source: str
    ios: int
    images: int
    synthetic: bool
    fitted_to: int
    dataset: str | None
    metric: Metric | None
    reference_accuracy: Share | None
    points: tuple[TradeoffPoint, ...]
    sensitivities: tuple[WeightSensitivity, ...] = field(repr=False)
    notes: tuple[str, ...] = ()
    complete: bool = True


_BITS = (8, 6, 4, 2)
_BITS_WITH_3 = (8, 6, 4, 3, 2)
# Synthetic pictures to judge on where there are no images; palettes are fitted to others.
_PICTURES = 24


class TradeoffProgress(Protocol):
    """Told of everything that is begun, and of how it gets on."""

    def __call__(self, stage: str, detail: str = "", /) -> None:
        """Take note of what is begun, or with a detail of how it gets on."""


def measure_tradeoff(
    checkpoint: Checkpoint,
    options: ConvertOptions | None = None,
    images: Sequence[Any] | None = None,
    *,
    bits: Sequence[int] | None = None,
    steps: int | None = None,
    tune_minutes: float | None = None,
    dataset: str | Path | None = None,
    coremltools: bool = True,
    progress: TradeoffProgress = no_progress,
) -> Tradeoff:
    """Make packages of many sizes and measure each as it lies on disk.

    These are the package without palettes; for each of ``bits`` that of k-means alone, that of
    palettes fitted to images and that of coremltools' ``palettize_weights``; and packages of mixed
    bits. The portable runtime runs them on images that no palette was fitted to.

    An interruption (Ctrl-C) ends it early, with what was measured by then; one during tuning ends
    the tuning of that plan.

    Args:
        checkpoint: from :func:`~mvit_coreml.load_checkpoint`.
        options: what kind of packages; of those that say how weights are palettized none counts.
        images: to fit palettes to, and without ``dataset`` to judge on some of them; synthetic
            pictures by default.
        bits: of the uniform plans; by default 8, 6, 4, from iOS 18 also 3, and 2.
        steps: number of mixed plans, at sizes from the smallest to the largest of the uniform
            plans; by default one at the size of each of those.
        tune_minutes: also tune every plan, each for this long at most.
        dataset: folder or CSV of labelled images to judge on.
        coremltools: make coremltools' packages too.
        progress: told of everything that is begun.

    Raises:
        InputError: options, bits, images or labels that cannot be used.
    """
    chosen = options or ConvertOptions()
    chosen = replace(chosen, bits=None, group_size=0, promise=None, dataset=None, plan=None)
    chosen = fill_in(replace(chosen, tune_minutes=None), checkpoint)
    _check(chosen, images, steps, tune_minutes, dataset)
    if bits is None:
        bits = _BITS_WITH_3 if chosen.ios >= BLOCKWISE_IOS else _BITS
    if not bits:
        raise InputError("there are no bits to make packages with; give some, such as 8,6,4")
    for width in bits:
        Choice(width).check_target(chosen.ios)
    with tempfile.TemporaryDirectory() as folder:
        measurement = _Measurement(
            checkpoint,
            chosen,
            images,
            None if dataset is None else read_dataset(checkpoint, Path(dataset), chosen.activation),
            Path(folder),
            progress,
        )
        return measurement.run(sorted(set(bits), reverse=True), steps, tune_minutes, coremltools)


def _check(
    options: ConvertOptions,
    images: Sequence[Any] | None,
    steps: int | None,
    tune_minutes: float | None,
    dataset: str | Path | None,
) -> None:
    """Refuse what cannot be measured, before any work is done."""
    if len(options.image_sizes) > 1:
        raise InputError("several image sizes: a trade-off is measured at one; give one")
    if images is not None and len(images) < FEWEST_IMAGES:
        raise InputError(
            f"{len(images)} images are too few to fit palettes to; give {FEWEST_IMAGES} or more"
        )
    if steps is not None and steps < 0:
        raise InputError(f"{steps} mixed plans: give 0 or more")
    if tune_minutes is not None and tune_minutes <= 0:
        raise InputError(f"{tune_minutes:g} minutes of tuning: give more than 0")
    if dataset is not None and options.output in ("features", "embedding", "values"):
        raise InputError(f"{options.output} have no accuracy; leave out the labelled images")


_Make = Callable[[Path], tuple[Path, Palettes | None]]
"""Makes a package in a folder; returns it, and what its palettes are."""


@dataclass(frozen=True)
class _Task:
    """A package to make and measure."""

    name: str
    plan: PlanKind
    palettes: PaletteKind
    make: _Make
    bits: int | None = None

    @property
    def title(self) -> str:
        if self.plan == "none":
            return "no palettes"
        kind = "k-means" if self.palettes == "kmeans" else self.palettes
        return f"{Choice(self.bits) if self.bits else 'mixed bits'}, {kind}"


class _Measurement:
    """Packages of one checkpoint, made and measured one after another.

    Args:
        checkpoint: what to convert.
        options: with every default filled in, and without palettes.
        images: to fit palettes to; synthetic pictures by default.
        dataset: labelled images to judge on.
        folder: for the packages while they are measured.
        progress: told of everything that is begun.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        options: ConvertOptions,
        images: Sequence[Any] | None,
        dataset: Data | None,
        folder: Path,
        progress: TradeoffProgress,
    ) -> None:
        self.checkpoint, self.folder, self.progress = checkpoint, folder, progress
        self.stage = ""
        self._begin("prepare")
        self.built = build_plain_package(checkpoint, options, folder / "plain", images=images)
        self.options, self.plain = self.built.options, self.built.path
        self.fitting = PaletteFitting(
            self.plain, images, source_sha256=checkpoint.provenance.sha256, progress=self._detail
        )
        target = self._target(self.plain)
        judged: Sequence[Any] | None = self.fitting.held_out
        if judged is None:
            judged = synthetic_pictures(_PICTURES, target.image.size)
        reference = ReferenceTarget.matching(target, checkpoint, self.options.color_order)
        self.judge = Judge(reference, judged, dataset)
        self.points: list[TradeoffPoint] = []
        self.notes: list[str] = [] if dataset is None else list(dataset.notes)
        if dataset is not None and images is not None:
            self._note_overlap(images, dataset.images)

    def _target(self, package: Path) -> PackageTarget:
        predictor = Predictor(package, engine="portable")
        default = self.fitting.loaded
        preparation = read_preparation(default, default.function())
        return PackageTarget(predictor, preparation, self.checkpoint.config.num_labels)

    def _note_overlap(self, images: Sequence[Any], judged: Sequence[Path]) -> None:
        fitted = {Path(image).resolve() for image in images if isinstance(image, str | Path)}
        common = sum(path.resolve() in fitted for path in judged)
        if common:
            self.notes.append(
                f"{common} of the {len(judged)} labelled images are among those that palettes were"
                " fitted to, so the figures flatter; fit to others"
            )

    def run(
        self, bits: Sequence[int], steps: int | None, minutes: float | None, coremltools: bool
    ) -> Tradeoff:
        """Make all packages, and measure them."""
        complete = True
        accuracy = self.judge.reference_accuracy()
        kinds: dict[PaletteKind, float | None] = {"fitted": None}
        if minutes is not None:
            kinds["tuned"] = minutes
        if coremltools:
            lacking = missing_requirement()
            if lacking is not None:
                self.notes.append(f"coremltools' own palettes need {lacking}, which is missing")
                coremltools = False
        mixed = len(bits) if steps is None else steps
        total = 1 + len(bits) * (1 + coremltools) + (len(bits) + mixed) * len(kinds)
        try:
            for task in self._tasks(bits, steps, kinds, coremltools):
                self._begin(f"{task.title} ({len(self.points) + 1} of {total})")
                self._measure(task)
        except KeyboardInterrupt:
            if not self.points:
                raise
            complete = False
        return Tradeoff(
            source=self.checkpoint.provenance.name,
            ios=self.options.ios,
            images=len(self.judge.images),
            synthetic=self.fitting.held_out is None and self.judge.dataset is None,
            fitted_to=len(self.fitting.tuner.pixels),
            dataset=None if self.judge.dataset is None else self.judge.dataset.name,
            metric=None if accuracy is None else accuracy[0],
            reference_accuracy=None if accuracy is None else accuracy[1],
            points=tuple(self.points),
            sensitivities=self._sensitivities(),
            notes=tuple(self.notes),
            complete=complete,
        )

    def _sensitivities(self) -> tuple[WeightSensitivity, ...]:
        # None are there where an interruption came before they were measured.
        elements = {info.name: info.elements for info in self.fitting.infos}
        weights = [
            WeightSensitivity(
                name=measured.name,
                elements=elements[measured.name],
                noise={c: value for c, value in measured.noise.items() if c != UNCOMPRESSED},
            )
            for measured in self.fitting.sensitivities
        ]
        return tuple(sorted(weights, key=lambda weight: -weight.worst))

    def _tasks(
        self,
        bits: Sequence[int],
        steps: int | None,
        kinds: Mapping[PaletteKind, float | None],
        coremltools: bool,
    ) -> Iterator[_Task]:
        """Yield what to make, the quick ones first; the sizes of the last depend on the others.

        Args:
            bits: of the uniform plans.
            steps: number of mixed plans.
            kinds: of palettes that are fitted, with the minutes that they are tuned for.
            coremltools: make coremltools' packages too.
        """
        make: _Make
        yield _Task(self.options.precision, "none", "none", lambda _: (self.plain, None))
        for width in bits:
            make = partial(self._make_kmeans, width)
            yield _Task(f"uniform-{width}-kmeans", "uniform", "kmeans", make, width)
        sizes = [point.size for point in self.points if point.palettes == "kmeans"]
        for width in bits if coremltools else ():
            make = partial(self._make_coremltools, width)
            yield _Task(f"uniform-{width}-coremltools", "uniform", "coremltools", make, width)
        for kind, minutes in kinds.items():
            for width in bits:
                choices, asked = grouped_choices(self.fitting.infos, width), asked_for(width)
                make = partial(self._make_fitted, choices, asked, minutes)
                yield _Task(f"uniform-{width}-{kind}", "uniform", kind, make, width)
        self._begin("sensitivity")
        weight_options = self.fitting.weight_options()
        for kind, minutes in kinds.items():
            for number, size in enumerate(_spaced(sizes, steps), 1):
                try:
                    choices = self.fitting.under(size, weight_options)
                except GateError as error:
                    self.notes.append(str(error))
                    continue
                make = partial(self._make_fitted, choices, {"target_size": size}, minutes)
                yield _Task(f"mixed-{number}-{kind}", "mixed", kind, make)

    def _make_kmeans(self, bits: int, folder: Path) -> tuple[Path, Palettes]:
        palettes = uniform_palettes(
            self.fitting.weights,
            bits,
            ios=self.options.ios,
            source_sha256=self.checkpoint.provenance.sha256,
        )
        return compress_plain(self.built, palettes, folder), palettes

    def _make_coremltools(self, bits: int, folder: Path) -> tuple[Path, None]:
        package = folder / f"coremltools{SUFFIX}"
        palettize_by_coremltools(self.plain, bits, package)
        return package, None

    def _make_fitted(
        self,
        choices: Mapping[str, Choice],
        asked: Mapping[str, Scalar],
        minutes: float | None,
        folder: Path,
    ) -> tuple[Path, Palettes]:
        tuner = self.fitting.tuner
        tuned = tuner.tune(choices, minutes, lambda detail: self._detail("tune", detail))
        tuning: dict[str, Scalar] = {} if minutes is None else {"tune_minutes": minutes}
        palettes = self.fitting.palettes(choices, tuned, {**asked, **tuning})
        return compress_plain(self.built, palettes, folder), palettes

    def _measure(self, task: _Task) -> None:
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            started = time.perf_counter()
            package, palettes = task.make(Path(folder))
            seconds = time.perf_counter() - started
            self._detail("validate", "running it")
            judgement = self.judge.judge(self._target(package))
            size = package_size(package)
        if palettes is not None:
            measured = _measured(size, judgement, len(self.judge.images))
            palettes = replace(palettes, plan=palettes.plan.with_measured(**measured))
        self.points.append(
            TradeoffPoint(
                name=task.name,
                plan=task.plan,
                palettes=task.palettes,
                bits=task.bits,
                average_bits=None if task.palettes == "coremltools" else self._average(palettes),
                size=size,
                seconds=seconds if task.palettes != "none" else 0.0,
                applied=palettes,
                **vars(judgement),
            )
        )

    def _average(self, palettes: Palettes | None) -> float:
        choices = {} if palettes is None else palettes.plan.choices
        infos = self.fitting.infos
        stored = sum(
            info.elements * (choices.get(info.name, UNCOMPRESSED).bits or info.element_bits)
            for info in infos
        )
        return stored / sum(info.elements for info in infos)

    def _begin(self, title: str) -> None:
        self.stage = title
        self.progress(title)

    def _detail(self, _: str, detail: str = "", /) -> None:
        if detail:
            self.progress(self.stage, detail)


def _measured(size: int, judgement: Judgement, images: int) -> dict[str, Scalar]:
    """Return what a plan says about its package."""
    measured: dict[str, Scalar] = {"size": size, "snr": round(judgement.snr, 2), "images": images}
    if judgement.agreement is not None:
        measured["agreement"] = round(judgement.agreement, 4)
    if judgement.accuracy is not None:
        measured["accuracy"] = round(judgement.accuracy.value, 4)
    return measured


def _spaced(sizes: Sequence[int], steps: int | None) -> list[int]:
    """Return sizes in bytes, descending: those given, or others by equal factors between them."""
    if steps is None:
        return sorted(sizes, reverse=True)
    if steps < 2:
        return [max(sizes)] * steps
    factor = min(sizes) / max(sizes)
    return [round(max(sizes) * factor ** (index / (steps - 1))) for index in range(steps)]


def missing_requirement() -> str | None:
    """Return the package that coremltools' k-means lacks here, ``None`` if it lacks nothing.

    It is called for small tensors, but coremltools does not depend on it.
    """
    return "scikit-learn" if importlib.util.find_spec("sklearn") is None else None


def palettize_by_coremltools(source: Path, bits: int, destination: Path) -> None:
    """Write the package that ``coremltools.optimize.coreml.palettize_weights`` makes of another.

    Args:
        source: a package without palettes.
        bits: of an index, for every weight that coremltools palettizes, by plain k-means.
        destination: the package to write.
    """
    coremltools = load_coremltools()
    from coremltools.optimize import coreml as optimize

    with quiet():
        model = coremltools.models.MLModel(str(source), skip_model_load=True)
        palettizer = optimize.OpPalettizerConfig(mode="kmeans", nbits=bits)
        config = optimize.OptimizationConfig(global_config=palettizer)
        optimize.palettize_weights(model, config).save(str(destination))
