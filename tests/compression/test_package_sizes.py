"""Predicted sizes are those of really saved packages."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from packages import converted
from programs import program, program_of, save, saved, tiny

from mvit_coreml.compression.allocation.package_sizes import PackageSizes
from mvit_coreml.compression.apply_plan import apply_plan, uniform_choices
from mvit_coreml.compression.palettizable_weights import palettizable_weights, program_weights
from mvit_coreml.compression.palettized_weight import UNCOMPRESSED, Choice, bit_widths
from mvit_coreml.compression.plan import make_plan
from mvit_coreml.errors import InputError

# What the order of blobs changes in the lengths of numbers that refer to them.
ROUNDING = 24


def random_choices(built: Any, ios: int, seed: int) -> dict[str, Choice]:
    rng = random.Random(seed)
    choices = {}
    for info in palettizable_weights(built):
        bits = rng.choice([None, *bit_widths(ios)])
        divisors = [n for n in range(1, info.channels + 1) if info.channels % n == 0]
        grouped = bits is not None and ios >= 18 and rng.random() < 0.5
        choices[info.name] = Choice(bits, rng.choice(divisors) if grouped else 0)
    return choices


def sizes_after(built: Any, choices: dict[str, Choice], package: Path, ios: int) -> tuple[int, int]:
    """Return the bytes of the package and of its weight file."""
    weights = [(info, op.outputs[0].val) for info, op in program_weights(built)]
    apply_plan(built, make_plan(weights, choices, ios=ios, source_sha256=""))
    files = save(built, package, ios)
    (weight_file,) = [name for name in files if name.endswith("weight.bin")]
    return sum(map(len, files.values())), len(files[weight_file])


@pytest.mark.parametrize(
    ("ios", "precision"), [(16, "fp16"), (17, "fp32"), (18, "fp16"), (26, "fp32")]
)
def test_random_plans_of_a_tiny_program_are_predicted(
    ios: int, precision: str, tmp_path: Path
) -> None:
    save(tiny(ios, precision), tmp_path / "plain.mlpackage", ios)
    sizes = PackageSizes(tmp_path / "plain.mlpackage")
    assert sizes.ios == ios
    for seed in range(2):
        built = tiny(ios, precision)
        choices = random_choices(built, ios, seed)
        real, _ = sizes_after(built, choices, tmp_path / f"{seed}.mlpackage", ios)
        assert abs(sizes.package_bytes(choices) - real) <= ROUNDING


@pytest.mark.parametrize(("family", "ios"), [("mobilevitv2", 17)])
def test_plans_of_converted_models_are_predicted(family: str, ios: int, tmp_path: Path) -> None:
    # As they are saved here, without the metadata of a conversion.
    save(program(family, ios), tmp_path / "plain.mlpackage", ios)
    sizes = PackageSizes(tmp_path / "plain.mlpackage")
    for seed in (0, None):
        built = program(family, ios)
        choices = uniform_choices(palettizable_weights(built), 6)
        if seed is not None:
            choices = random_choices(built, ios, seed)
        real, _ = sizes_after(built, choices, tmp_path / f"{seed}.mlpackage", ios)
        predicted = sizes.package_bytes(choices)
        assert abs(predicted - real) <= ROUNDING
        assert predicted < sizes.size
        # Summing up over weights is as good, to choose by.
        summed = sizes.size + sum(
            sizes.weight_bytes(name, choice) - sizes.weight_bytes(name, UNCOMPRESSED)
            for name, choice in choices.items()
        )
        assert abs(summed - real) < 0.001 * real


def test_a_conversion_with_palettes_is_predicted_from_one_without(tmp_path: Path) -> None:
    sizes = PackageSizes(saved("mobilevitv2"))
    palettized, _ = converted("mobilevitv2", output="logits", ios=17, bits=6)
    choices = uniform_choices(list(sizes.weights), 6)
    predicted = sizes.package_bytes(choices)
    assert abs(predicted - palettized.size) < min(0.002 * palettized.size, 2000)


def test_weights_that_functions_share_are_counted_once(tmp_path: Path) -> None:
    options: dict[str, Any] = {"ios": 18, "image_sizes": ((64, 64), (96, 64))}
    plain, _ = converted("mobilenet_v2", **options)
    palettized, _ = converted("mobilenet_v2", bits=6, **options)
    sizes = PackageSizes(plain.path)
    predicted = sizes.package_bytes(uniform_choices(list(sizes.weights), 6))
    assert abs(predicted - palettized.size) < min(0.002 * palettized.size, 2000)


def test_no_choice_means_the_size_as_it_is(tmp_path: Path) -> None:
    save(tiny(), tmp_path / "plain.mlpackage")
    sizes = PackageSizes(tmp_path / "plain.mlpackage")
    real = sum(f.stat().st_size for f in (tmp_path / "plain.mlpackage").rglob("*") if f.is_file())
    assert sizes.size == sizes.package_bytes({}) == real
    assert sizes.package_bytes({"mix_weight": UNCOMPRESSED}) == real


def test_choices_that_save_nothing_are_not_offered(tmp_path: Path) -> None:
    save(tiny(18), tmp_path / "plain.mlpackage", 18)
    sizes = PackageSizes(tmp_path / "plain.mlpackage")
    offered = sizes.choices_for("depthwise_weight", group_sizes=(1, 5, 8, 24))
    # 216 elements: 8 bits need a table of 512 bytes, more than the 216 that the indices save.
    assert offered[0] == UNCOMPRESSED
    assert Choice(8) not in offered
    assert Choice(4) in offered
    assert Choice(1, 8) in offered
    assert all(choice.group_size in (0, 1, 8) for choice in offered)
    kept = sizes.weight_bytes("depthwise_weight", UNCOMPRESSED)
    assert all(sizes.weight_bytes("depthwise_weight", choice) < kept for choice in offered[1:])
    assert sizes.choices_for("mix_weight", bits=(4, 6)) == [UNCOMPRESSED, Choice(6), Choice(4)]


def test_the_file_grows_by_a_descriptor_and_whole_blocks(tmp_path: Path) -> None:
    built, choice = tiny(), {"mix_weight": Choice(4)}
    _, plain = sizes_after(tiny(), {}, tmp_path / "plain.mlpackage", 17)
    _, palettized = sizes_after(built, choice, tmp_path / "palettized.mlpackage", 17)
    # By hand: 4096 halves become 2048 bytes of indices and, behind 64 more, 32 (64) of a table.
    assert plain - palettized == 8192 - 2048 - (64 + 64)


def test_misuse_is_refused_in_one_line(tmp_path: Path) -> None:
    package = tmp_path / "plain.mlpackage"
    save(tiny(), package)
    sizes = PackageSizes(package)
    with pytest.raises(InputError, match="no palettizable weight 'tail'"):
        sizes.package_bytes({"tail": Choice(4)})
    with pytest.raises(InputError, match="3 bits need iOS 18"):
        sizes.package_bytes({"mix_weight": Choice(3)})
    built = program_of(package)
    sizes_after(built, {"mix_weight": Choice(4)}, tmp_path / "palettized.mlpackage", 17)
    with pytest.raises(InputError, match="compressed already"):
        PackageSizes(tmp_path / "palettized.mlpackage")


def test_predicting_is_quick_enough_for_a_search(tmp_path: Path) -> None:
    import time

    sizes = PackageSizes(saved("mobilevitv2"))
    start = time.process_time()
    rng = np.random.default_rng(0)
    for _ in range(20):
        widths = rng.choice([2, 4, 6, 8], len(sizes.weights))
        pairs = zip(sizes.weights, widths, strict=True)
        sizes.package_bytes({info.name: Choice(int(bits)) for info, bits in pairs})
    assert time.process_time() - start < 4
