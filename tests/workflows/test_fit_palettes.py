"""Palettes fitted to images: what promises ask for, what is held out, what cannot be done."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fitting import (
    SIZE,
    fit_to_few_pictures,
    fitted_checkpoint,
    measure_once,
    write_images,
)
from packages import image

from mvit_coreml import ConvertOptions, PaletteOptions, convert
from mvit_coreml.compression.promise import Promise
from mvit_coreml.errors import GateError, InputError
from mvit_coreml.export.atomic_package import package_size
from mvit_coreml.workflows.choose_palettes import choose_palettes, fits_palettes, grouped_choices
from mvit_coreml.workflows.fit_palettes import PaletteFitting, held_out_images

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


def test_images_are_fitted_to_or_searched_by_or_held_out(
    fitting: PaletteFitting, images: list[Path]
) -> None:
    assert fitting.held_out is not None
    held_out = [int(Path(file).stem) for file in fitting.held_out]
    assert len(held_out) >= 4
    assert held_out == [int(Path(file).stem) for file in held_out_images(images)]
    tuner = fitting.tuner
    used = np.concatenate([tuner.pixels.numpy(), tuner.held_out.numpy()])
    # Images of noise are all different, and so are the views that a search judges by.
    assert len(np.unique(used.reshape(len(used), -1), axis=0)) == len(used)
    kept = fitting._prepared([images[index] for index in held_out]).numpy()
    for image_held_out in kept:
        assert not (used == image_held_out).all(axis=(1, 2, 3)).any()
    views = len(tuner.held_out) // (COUNT - len(tuner.pixels) - len(held_out))
    assert len(tuner.pixels) + len(tuner.held_out) // views + len(held_out) == COUNT


@pytest.mark.parametrize(
    ("count", "fewest", "most"), [(16, 4, 4), (100, 25, 25), (1000, 128, 128), (40, 10, 10)]
)
def test_a_quarter_is_held_out_but_not_more_than_tells(count: int, fewest: int, most: int) -> None:
    kept = held_out_images(range(count))
    assert fewest <= len(kept) <= most
    assert set(kept) <= set(range(count))


def test_fitting_beats_kmeans_at_equal_bits(fitting: PaletteFitting) -> None:
    found = fitting.fit(PaletteOptions(bits=4))
    assert found.quality.divergence < found.plain.divergence
    plan, values = found.palettes.plan, found.palettes.values
    assert plan.bit_widths == (4,)
    assert plan.asked == {"bits": 4}
    assert set(values.palettes) == {w.name for w in plan.weights if w.choice.bits is not None}
    fitted_to = len(fitting.tuner.pixels)
    assert str(found).startswith(f"the palettes were fitted to {fitted_to} images; on others ")


def test_an_impossible_size_names_the_smallest(fitting: PaletteFitting, package: Path) -> None:
    with pytest.raises(GateError) as caught:
        fitting.fit(auto(target_size=1000))
    text = str(caught.value)
    assert text.startswith("no plan is under 1.00 kB; the smallest, ")
    # 1 bit instead of 16, beside a program that stays.
    named = float(text.split("the smallest, ")[1].split(" kB")[0]) * 1000
    assert package_size(package) / 16 < named < package_size(package) / 3


def test_what_promises_exclude_is_said(fitting: PaletteFitting) -> None:
    with pytest.raises(GateError) as caught:
        fitting.fit(auto(min_snr=20, target_size=150_000))
    text = str(caught.value)
    assert text.startswith("no plan has at most 150 kB, at least 20 dB: the smallest that answers")
    named = float(text.split("takes about ")[1].split(" kB")[0]) * 1000
    assert named > 150_000


def test_a_higher_promise_takes_more_bytes_and_less_noise(fitting: PaletteFitting) -> None:
    found = [fitting.fit(auto(min_snr=snr)) for snr in (5, 25)]
    sizes = [fitting.predicted_bytes(each.palettes.plan.choices) for each in found]
    noise = [each.noise for each in found]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]
    assert noise == sorted(noise, reverse=True)  # type: ignore[type-var]
    for snr, each in zip((5, 25), found, strict=True):
        assert each.quality.variation_snr > snr
        assert each.palettes.plan.asked == {"min_snr": snr}


def test_without_a_request_no_weight_has_fewer_than_four_bits(package: Path) -> None:
    """And all together take at least the bytes of six."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        measure_once(monkeypatch)
        fit_to_few_pictures(monkeypatch)
        fitting = PaletteFitting(package, None)
        found = fitting.fit(PaletteOptions())
        stricter = fitting.stricter(found, PaletteOptions())
    choices = found.palettes.plan.choices
    assert all(choice.bits is None or choice.bits >= 4 for choice in choices.values())
    six = fitting.predicted_bytes(grouped_choices(fitting.infos, 6))
    # What is shared out at six bits is all but used up.
    assert fitting.predicted_bytes(choices) > 0.98 * six
    assert found.palettes.plan.asked == {}
    assert found.held_out is None
    assert stricter is not None
    assert stricter.noise is not None
    assert found.noise is not None
    assert stricter.noise <= found.noise / 2
    assert fitting.predicted_bytes(stricter.palettes.plan.choices) > fitting.predicted_bytes(
        choices
    )


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


def test_too_few_images_are_judged_on_but_not_fitted_to(
    package: Path, images: list[Path], tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        measure_once(monkeypatch)
        (chosen,) = choose_palettes(
            package,
            PaletteOptions(bits=4),
            images[:15],
            source_sha256="",
            build=lambda palettes, folder: folder,
            accuracy=None,
            folder=tmp_path,
            progress=lambda stage, detail="": None,
        )
    assert chosen.images == images[:15]
    assert chosen.notes[0].startswith("15 images are too few to fit palettes to, so synthetic")
    assert chosen.notes[1].startswith("the palettes were fitted to 96 synthetic pictures")


def test_an_unreadable_image_is_named(package: Path, images: list[Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    with pytest.raises(InputError, match=r"broken\.jpg"):
        PaletteFitting(package, [*images, *[broken] * COUNT])


@pytest.mark.parametrize(
    ("options", "count", "expected"),
    [
        (PaletteOptions(bits=4), None, False),
        (PaletteOptions(), 16, True),
        (PaletteOptions(bits=4, kmeans_only=True), 16, False),
        (PaletteOptions(bits=4), 15, False),
        (PaletteOptions(bits=4), 16, True),
        (PaletteOptions(bits=None), 16, False),
        (PaletteOptions(bits=4, tune_minutes=1), 16, True),
        (PaletteOptions(bits="auto", promise=Promise(min_snr=9)), None, False),
        (PaletteOptions(plan=Path("plan.toml")), 16, False),
    ],
)
def test_when_images_are_fitted_to(
    options: PaletteOptions, count: int | None, expected: bool
) -> None:
    pictures = None if count is None else [image((SIZE, SIZE))] * count
    assert fits_palettes(options, pictures) == expected
