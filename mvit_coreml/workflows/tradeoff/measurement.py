"""Making packages of many sizes, and measuring each as it lies on disk."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mvit_coreml.checkpoints.checkpoint import Checkpoint
from mvit_coreml.compression.apply_plan import uniform_reasons
from mvit_coreml.compression.choices import UNCOMPRESSED, Choice
from mvit_coreml.compression.coremltools_palettes import (
    missing_requirement,
    palettize_by_coremltools,
)
from mvit_coreml.compression.plan import PlanValues, Scalar, make_plan
from mvit_coreml.errors import GateError
from mvit_coreml.evaluation.labeled_datasets import LabeledImages, MaskedImages
from mvit_coreml.evaluation.preparation import read_preparation
from mvit_coreml.evaluation.targets import PackageTarget, ReferenceTarget
from mvit_coreml.export.atomic_package import SUFFIX, package_size
from mvit_coreml.mil.predictor import Predictor
from mvit_coreml.validation.judging import Judge, Judgement
from mvit_coreml.validation.synthetic_images import synthetic_pictures
from mvit_coreml.workflows.build_package import PackageBuilder
from mvit_coreml.workflows.fit_palettes import PaletteFitting
from mvit_coreml.workflows.options import ConvertOptions, fit_of
from mvit_coreml.workflows.palettization import Palettes, asked_for
from mvit_coreml.workflows.tradeoff.curve import (
    PaletteKind,
    PlanKind,
    Tradeoff,
    TradeoffPoint,
    WeightSensitivity,
)

# Synthetic pictures to judge on where there are no images; palettes are fitted to others.
_PICTURES = 24


class TradeoffProgress(Protocol):
    """Told of everything that is begun, and of how it gets on."""

    def __call__(self, stage: str, detail: str = "", /) -> None:
        """Take note of what is begun, or with a detail of how it gets on."""


@dataclass(frozen=True, kw_only=True)
class _Task:
    """A package to make and measure."""

    name: str
    title: str
    plan: PlanKind
    palettes: PaletteKind
    make: Callable[[Path], tuple[Path, Palettes | None]]
    bits: int | None = None


class TradeoffMeasurement:
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
        dataset: LabeledImages | MaskedImages | None,
        folder: Path,
        progress: TradeoffProgress,
    ) -> None:
        self.checkpoint, self.folder, self.progress = checkpoint, folder, progress
        self.stage = ""
        self._begin("prepare")
        self.builder = PackageBuilder(checkpoint, options, images=images, folder=folder)
        self.options = self.builder.options
        self.plain = self.builder.plain(folder / "plain").package
        self.fitting = PaletteFitting(
            self.plain, images, source_sha256=checkpoint.provenance.sha256, progress=self._detail
        )
        self.judge = self._judge(dataset)
        self.points: list[TradeoffPoint] = []
        self.notes: list[str] = [] if dataset is None else list(dataset.notes)
        if dataset is not None and images is not None:
            self._note_overlap(images, dataset.images)

    def _judge(self, dataset: LabeledImages | MaskedImages | None) -> Judge:
        target = self._target(self.plain)
        size = target.image.height, target.image.width
        images: Sequence[Any] | None = self.fitting.held_out
        if images is None:
            images = synthetic_pictures(_PICTURES, size)
        reference = ReferenceTarget(
            self.checkpoint,
            target.roles,
            fit=fit_of(self.options),
            size=size,
            color_order=self.options.color_order,
        )
        return Judge(reference, images, dataset)

    def _target(self, package: Path) -> PackageTarget:
        predictor = Predictor(package, engine="portable")
        default = self.fitting.loaded
        preparation = read_preparation(default, default.function())
        return PackageTarget(predictor, preparation, self.checkpoint.config.num_labels)

    def _note_overlap(self, images: Sequence[Any], judged: Sequence[Path]) -> None:
        seen = {Path(image).resolve() for image in images if isinstance(image, str | Path)}
        common = sum(path.resolve() in seen for path in judged)
        if common:
            self.notes.append(
                f"{common} of the {len(judged)} labelled images are among those that palettes were"
                " fitted to, so the figures flatter; fit to others"
            )

    def measure(
        self, bits: Sequence[int], steps: int | None, minutes: float | None, coremltools: bool
    ) -> Tradeoff:
        """Make all packages, and measure them."""
        complete = True
        accuracy = self.judge.reference_accuracy()
        kinds: list[PaletteKind] = ["fitted"] if minutes is None else ["fitted", "tuned"]
        count = len(bits) if steps is None else steps
        total = 1 + len(bits) * (1 + len(kinds)) + count * len(kinds)
        if coremltools:
            lacking = missing_requirement()
            if lacking is not None:
                self.notes.append(f"coremltools' own palettes need {lacking}, which is missing")
                coremltools = False
            total += len(bits) if coremltools else 0
        try:
            for task in self._tasks(bits, steps, kinds, minutes, coremltools):
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
            fitted_to=len(self.fitting.tuner.calibration.pixels),
            dataset=None if self.judge.dataset is None else self.judge.dataset.name,
            metric=None if accuracy is None else accuracy[0],
            reference_accuracy=None if accuracy is None else accuracy[1],
            points=tuple(self.points),
            sensitivities=self._sensitivities(),
            notes=tuple(self.notes),
            complete=complete,
        )

    def _sensitivities(self) -> tuple[WeightSensitivity, ...]:
        # An interruption may have come before they were measured.
        if not self.fitting.sensitivities:
            return ()
        elements = {info.name: info.elements for info in self.fitting.infos}
        found = []
        for one in self.fitting.sensitivities:
            noise = {c: value for c, value in one.noise.items() if c != UNCOMPRESSED}
            found.append(WeightSensitivity(name=one.name, elements=elements[one.name], noise=noise))
        return tuple(sorted(found, key=lambda weight: -weight.worst))

    def _tasks(
        self,
        bits: Sequence[int],
        steps: int | None,
        kinds: Sequence[PaletteKind],
        minutes: float | None,
        coremltools: bool,
    ) -> Iterator[_Task]:
        """Say what to make, the quick ones first; the sizes of the last depend on the others."""
        yield _Task(
            name=self.options.precision,
            title="no palettes",
            plan="none",
            palettes="none",
            make=lambda _: (self.plain, None),
        )
        for width in bits:
            yield self._uniform(width, "kmeans", None)
        sizes = [point.size for point in self.points if point.palettes == "kmeans"]
        if coremltools:
            for width in bits:
                yield self._coremltools(width)
        for kind in kinds:
            for width in bits:
                yield self._uniform(width, kind, minutes if kind == "tuned" else None)
        self._begin("sensitivity")
        weight_options = self.fitting.weight_options()
        for kind in kinds:
            for number, size in enumerate(_spaced(sizes, steps), 1):
                try:
                    choices = self.fitting.under(size, weight_options)
                except GateError as error:
                    self.notes.append(str(error))
                    continue
                asked: dict[str, Scalar] = {"target_size": size}
                yield self._fitted(
                    f"mixed-{number}-{kind}",
                    "mixed",
                    kind,
                    choices,
                    asked,
                    minutes if kind == "tuned" else None,
                )

    def _uniform(self, bits: int, kind: PaletteKind, minutes: float | None) -> _Task:
        choices, asked = self.fitting.uniform(bits), asked_for(bits, 0)
        name = f"uniform-{bits}-{kind}"
        if kind != "kmeans":
            return self._fitted(name, "uniform", kind, choices, asked, minutes, bits)

        def make(folder: Path) -> tuple[Path, Palettes | None]:
            plan = make_plan(
                self.fitting.weights,
                choices,
                ios=self.options.ios,
                source_sha256=self.checkpoint.provenance.sha256,
                asked=asked,
                reasons=uniform_reasons(self.fitting.infos),
            )
            palettes = plan, PlanValues()
            return self.builder.build(folder, palettes).package, palettes

        return _Task(
            name=name,
            title=f"{Choice(bits)}, k-means",
            plan="uniform",
            palettes=kind,
            make=make,
            bits=bits,
        )

    def _fitted(
        self,
        name: str,
        plan: PlanKind,
        kind: PaletteKind,
        choices: Mapping[str, Choice],
        asked: Mapping[str, Scalar],
        minutes: float | None,
        bits: int | None = None,
    ) -> _Task:
        def make(folder: Path) -> tuple[Path, Palettes | None]:
            tuner = self.fitting.tuner
            tuned = tuner.tune(choices, minutes, lambda detail: self._detail("tune", detail))
            tuning: dict[str, Scalar] = {} if minutes is None else {"tune_minutes": minutes}
            palettes = self.fitting.palettes(choices, tuned, {**asked, **tuning})
            return self.builder.build(folder, palettes).package, palettes

        title = f"{Choice(bits) if bits else 'mixed bits'}, {kind}"
        return _Task(name=name, title=title, plan=plan, palettes=kind, make=make, bits=bits)

    def _coremltools(self, bits: int) -> _Task:
        def make(folder: Path) -> tuple[Path, None]:
            package = folder / f"coremltools{SUFFIX}"
            palettize_by_coremltools(self.plain, bits, package)
            return package, None

        return _Task(
            name=f"uniform-{bits}-coremltools",
            title=f"{Choice(bits)}, coremltools",
            plan="uniform",
            palettes="coremltools",
            make=make,
            bits=bits,
        )

    def _measure(self, task: _Task) -> None:
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            started = time.perf_counter()
            package, palettes = task.make(Path(folder))
            seconds = time.perf_counter() - started
            self._detail("validate", "running it")
            judgement = self.judge.judge(self._target(package))
            size = package_size(package)
        if palettes is not None:
            plan = palettes[0].with_measured(**_measured(size, judgement, len(self.judge.images)))
            palettes = plan, palettes[1]
        self.points.append(
            TradeoffPoint(
                name=task.name,
                plan=task.plan,
                palettes=task.palettes,
                bits=task.bits,
                average_bits=None if task.palettes == "coremltools" else self._average(palettes),
                size=size,
                snr=judgement.snr,
                agreement=judgement.agreement,
                kl=judgement.kl,
                accuracy=judgement.accuracy,
                seconds=seconds if task.palettes != "none" else 0.0,
                found=palettes,
            )
        )

    def _average(self, palettes: Palettes | None) -> float:
        choices = {} if palettes is None else palettes[0].choices
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
    found: dict[str, Scalar] = {"size": size, "snr": round(judgement.snr, 2), "images": images}
    if judgement.agreement is not None:
        found["agreement"] = round(judgement.agreement, 4)
    if judgement.accuracy is not None:
        found["accuracy"] = round(judgement.accuracy.value, 4)
    return found


def _spaced(sizes: Sequence[int], steps: int | None) -> list[int]:
    """Return sizes in bytes, descending: those given, or others by equal factors between them."""
    if steps is None:
        return sorted(sizes, reverse=True)
    if steps < 2:
        return [max(sizes)] * steps
    factor = min(sizes) / max(sizes)
    return [round(max(sizes) * factor ** (index / (steps - 1))) for index in range(steps)]
