"""Palettes fitted to images: what promises ask for, what is held out, what cannot be done."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fitting import SIZE, fitted_checkpoint, measure_once, write_images
from packages import image

from mvit_coreml import ConvertOptions, PaletteOptions, convert
from mvit_coreml.compression.promise import Promise
from mvit_coreml.errors import GateError, InputError
from mvit_coreml.export.atomic_package import package_size
from mvit_coreml.workflows.choose_palettes import fits_palettes
from mvit_coreml.workflows.fit_palettes import PaletteFitting

COUNT = 20


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fitting") / "plain.mlpackage"
    return convert(fitted_checkpoint(), ConvertOptions(bits=None), path, check=False).path


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_images(tmp_path_factory.mktemp("images"), COUNT)


@pytest.fixture(scope="module")
def fitting(package: Path, images: list[Path]) -> Iterator[PaletteFitting]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        measure_once(monkeypatch)
        yield PaletteFitting(package, images)


def auto(**promised: float) -> PaletteOptions:
    return PaletteOptions(bits="auto", promise=Promise(**promised))  # type: ignore[arg-type]


def test_held_out_images_are_not_among_those_fitted_to(
    fitting: PaletteFitting, images: list[Path]
) -> None:
    assert fitting.held_out is not None
    calibration = fitting.tuner.calibration
    assert len(calibration.pixels) + len(calibration.held_out) == COUNT
    everything = np.concatenate([calibration.pixels.numpy(), calibration.held_out.numpy()])
    # Images of noise are all different, so that none was taken twice.
    assert len(np.unique(everything.reshape(COUNT, -1), axis=0)) == COUNT
    assert len(fitting.held_out) == len(calibration.held_out)
    assert set(fitting.held_out) < set(images)


def test_fitting_beats_kmeans_at_equal_bits(fitting: PaletteFitting) -> None:
    found = fitting.fit(PaletteOptions(bits=4))
    assert found.quality.divergence < found.plain.divergence
    plan, values = found.palettes.plan, found.palettes.values
    assert plan.bit_widths == (4,)
    assert plan.asked == {"bits": 4}
    assert set(values.palettes) == {w.name for w in plan.weights if w.choice.bits is not None}
    assert str(found).startswith(f"the palettes were fitted to {COUNT - 4} images; on others ")


def test_an_impossible_size_names_the_smallest(fitting: PaletteFitting, package: Path) -> None:
    with pytest.raises(GateError) as caught:
        fitting.fit(auto(target_size=1000))
    text = str(caught.value)
    assert text.startswith("no plan is under 1.00 kB; the smallest, ")
    # 1 bit instead of 16, beside a program that stays.
    named = float(text.split("the smallest, ")[1].split(" kB")[0]) * 1000
    assert package_size(package) / 16 < named < package_size(package) / 3


def test_an_impossible_snr_names_the_best(fitting: PaletteFitting) -> None:
    with pytest.raises(
        GateError, match=r"^no plan has at least 99 dB: the best .* has \d+\.\d dB$"
    ):
        fitting.fit(auto(min_snr=99))


def test_a_size_is_met_by_the_prediction_and_nearly_used_up(
    fitting: PaletteFitting, package: Path
) -> None:
    options = fitting.weight_options()
    for part in (0.3, 0.5, 0.8):
        target = int(part * package_size(package))
        predicted = fitting.predicted_bytes(fitting.under(target, options))
        assert 0.97 * target < predicted <= target


def test_what_every_weight_would_do_is_kept_with_the_result(fitting: PaletteFitting) -> None:
    noise = {found.name: found.noise for found in fitting.sensitivities}
    assert set(noise) == {info.name for info in fitting.infos}
    # Of all weights together, fewer bits are noisier.
    by_bits: dict[int, float] = {}
    for found in noise.values():
        for choice, value in found.items():
            if choice.bits is not None and not choice.group_size:
                by_bits[choice.bits] = by_bits.get(choice.bits, 0.0) + value
    ordered = [by_bits[bits] for bits in sorted(by_bits)]
    assert ordered == sorted(ordered, reverse=True)


def test_too_few_images_are_refused(package: Path, images: list[Path]) -> None:
    with pytest.raises(InputError, match=r"5 images are too few .*; give 16 or more"):
        PaletteFitting(package, images[:5])


def test_an_unreadable_image_is_named(package: Path, images: list[Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    with pytest.raises(InputError, match=r"broken\.jpg"):
        PaletteFitting(package, [*images, broken])


@pytest.mark.parametrize(
    ("options", "count", "expected"),
    [
        (PaletteOptions(bits=4), None, False),
        (PaletteOptions(bits=4), 15, False),
        (PaletteOptions(bits=4), 16, True),
        (PaletteOptions(bits=None), 16, False),
        (PaletteOptions(bits=4, tune_minutes=1), None, True),
        (PaletteOptions(bits="auto", promise=Promise(min_snr=9)), None, True),
        (PaletteOptions(plan=Path("plan.toml")), 16, False),
    ],
)
def test_when_palettes_are_fitted(
    options: PaletteOptions, count: int | None, expected: bool
) -> None:
    pictures = None if count is None else [image((SIZE, SIZE))] * count
    assert fits_palettes(options, pictures) == expected
