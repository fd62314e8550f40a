"""Every rule of the device lint finds what it is about, and nothing that only looks like it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign import compressed, edited, program_package, random_weight
from packages import converted

from mvit_coreml.inspection.lint_rules import RULES
from mvit_coreml.inspection.package_cost import estimate_cost

pytestmark = pytest.mark.fast

Build = Callable[[Any, Any], Any]


def found(package: Path) -> dict[str, list[tuple[str, str]]]:
    """Rule to the (operation, detail) of what it found."""
    return {
        one.rule.name: [(place.operation, place.detail) for place in one.findings]
        for one in estimate_cost(package).function().lint
    }


def conv(weight: np.ndarray, **options: Any) -> Build:
    return lambda mb, x: mb.conv(x=x, weight=weight, name="layer", **options)


W3, W1 = random_weight(8, 8, 3, 3), random_weight(8, 8, 1, 1)
SMALL, MAP = (1, 8, 4, 32), (1, 8, 32, 32)

# rule: (shape, a program that it is about, the detail), (shape, one that it is not about).
GRAPHS: dict[str, tuple[tuple[Any, Build, str], tuple[Any, Build]]] = {
    "last-axis-padding": (
        # 128 KiB, of 14 KiB: 2048 rows of 14 bytes each take 64.
        (
            (1, 32, 64, 7),
            lambda mb, x: mb.relu(x=x, name="layer"),
            "28,672 bytes become 131,072, x4.57",
        ),
        ((1, 7, 64, 32), lambda mb, x: mb.relu(x=x, name="layer")),
    ),
    "singleton-last-axis": (
        (
            SMALL,
            lambda mb, x: mb.reduce_sum(x=x, axes=[3], keep_dims=True, name="layer"),
            "64 bytes become 2,048",
        ),
        (SMALL, lambda mb, x: mb.reduce_sum(x=x, axes=[2, 3], keep_dims=True, name="layer")),
    ),
    "rank": (
        (SMALL, lambda mb, x: mb.reshape(x=x, shape=[1, 2, 4, 4, 32], name="layer"), "rank 5"),
        (SMALL, lambda mb, x: mb.reshape(x=x, shape=[2, 4, 4, 32], name="layer")),
    ),
    "gather": (
        (SMALL, lambda mb, x: mb.gather(x=x, indices=[0, 2], axis=1, name="layer"), "gather"),
        (SMALL, lambda mb, x: mb.slice_by_index(x=x, begin=[0] * 4, end=[1, 2, 4, 32])),
    ),
    "fp32": (
        (
            SMALL,
            lambda mb, x: mb.cast(
                x=mb.relu(x=mb.cast(x=mb.tanh(x=x), dtype="fp32"), name="layer"), dtype="fp16"
            ),
            "fp32 in an fp16 program",
        ),
        (SMALL, lambda mb, x: mb.cast(x=mb.cast(x=mb.relu(x=x), dtype="fp32"), dtype="fp16")),
    ),
    "dilated-conv": (
        (MAP, conv(W3, dilations=[2, 2]), "dilations 2x2"),
        (MAP, conv(W3, dilations=[1, 1], strides=[2, 2])),
    ),
    "upsampling": (
        (
            MAP,
            lambda mb, x: mb.upsample_bilinear(
                x=x, scale_factor_height=4.0, scale_factor_width=2.0, name="layer"
            ),
            "x4 from 1x8x32x32",
        ),
        (
            MAP,
            lambda mb, x: mb.upsample_bilinear(
                x=x, scale_factor_height=2.0, scale_factor_width=2.0, name="layer"
            ),
        ),
    ),
    "spatial-softmax": (
        (SMALL, lambda mb, x: mb.softmax(x=x, axis=-1, name="layer"), "over axis 3, 32 values"),
        (SMALL, lambda mb, x: mb.softmax(x=x, axis=1, name="layer")),
    ),
    "asymmetric-padding": (
        (
            MAP,
            conv(W3, pad_type="custom", pad=[0, 1, 0, 1], strides=[2, 2]),
            "pad [0, 1, 0, 1]",
        ),
        (MAP, conv(W3, pad_type="custom", pad=[1, 1, 1, 1], strides=[2, 2])),
    ),
    "int16": (
        (
            SMALL,
            lambda mb, x: mb.cast(x=mb.cast(x=x, dtype="int16", name="layer"), dtype="fp16"),
            "int16",
        ),
        (SMALL, lambda mb, x: mb.cast(x=mb.cast(x=x, dtype="int32"), dtype="fp16")),
    ),
}


@pytest.mark.parametrize("rule", GRAPHS)
def test_a_rule_about_operations_finds_them_and_no_others(rule: str) -> None:
    (shape, build, detail), (other_shape, other) = GRAPHS[rule]
    assert ("layer", detail) in found(program_package(build, shape))[rule]
    assert rule not in found(program_package(other, other_shape))


def palettized(weight: np.ndarray, kinds: str, **options: Any) -> dict[str, Any]:
    shape = (1, weight.shape[1], 32, 32)
    return found(
        program_package(conv(weight, **options), shape, ios=18, compress=compressed(kinds))
    )


def test_large_strides_are_found_on_palettized_weights_alone() -> None:
    wide = random_weight(8, 8, 4, 4)
    assert palettized(wide, "palette", strides=[4, 4])["palettized-stride"] == [
        ("layer", "strides 4x4, palettized")
    ]
    assert "palettized-stride" not in palettized(wide, "palette", strides=[2, 2])
    assert "palettized-stride" not in palettized(wide, "linear", strides=[4, 4])


def test_grouped_tables_are_found_with_the_channels_of_each() -> None:
    weight = random_weight(64, 32, 1, 1)
    assert palettized(weight, "grouped palette")["grouped-tables"] == [
        ("layer", "4 tables, 16 channels each")
    ]
    assert "grouped-tables" not in palettized(weight, "palette")


def test_compressed_weights_are_found_with_what_they_become() -> None:
    weight = random_weight(64, 32, 1, 1)
    stored = 3 * weight.size // 8 + 16
    assert palettized(weight, "palette")["load-time-decompression"] == [
        ("layer", f"3-bit palette: {stored:,} bytes become {weight.nbytes:,}")
    ]
    plain = program_package(conv(weight), (1, 32, 4, 32))
    assert "load-time-decompression" not in found(plain)


def test_outputs_of_whole_numbers_are_found() -> None:
    def build(mb: Any, x: Any) -> Any:
        return mb.reduce_argmax(x=x, axis=1, keep_dims=False)

    assert found(program_package(build, SMALL))["integer-output"] == [("y", "int32, 512 bytes")]
    scores = program_package(lambda mb, x: mb.cast(x=build(mb, x), dtype="fp16"), SMALL)
    assert "integer-output" not in found(scores)


def test_inputs_of_several_sizes_are_found() -> None:
    package = program_package(lambda mb, x: mb.relu(x=x), SMALL)

    def loosen(spec: Any) -> None:
        array = spec.description.input[0].type.multiArrayType
        for size in ((1, 8, 4, 32), (1, 8, 8, 32)):
            array.enumeratedShapes.shapes.add(shape=size)

    assert [name for name, _ in found(edited(package, loosen))["flexible-input"]] == ["x"]
    assert "flexible-input" not in found(package)


def test_a_program_in_fp32_throughout_is_one_finding() -> None:
    package = program_package(lambda mb, x: mb.relu(x=mb.tanh(x=x)), SMALL, dtype="fp32")
    ((_, detail),) = found(package)["fp32"]
    assert "3 operations, the whole program" in detail


@pytest.mark.parametrize("family", ["mobilevit", "mobilevitv2", "mobilenet_v2"])
def test_what_the_project_avoids_is_not_found_in_its_packages(family: str) -> None:
    rules = set(found(converted(family)[0].path))
    assert not rules & {"rank", "gather", "fp32", "int16", "flexible-input", "integer-output"}
    assert "asymmetric-padding" not in rules
    # MobileViTV2's scores of positions have one channel: no other axis is there to sum over.
    assert ("spatial-softmax" in rules) == (family == "mobilevitv2")


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.name)
def test_every_rule_says_what_it_costs_and_who_says_so(rule: Any) -> None:
    assert rule.looks_for
    assert rule.costs
    assert rule.way_out
    assert "https://" in rule.source


def test_every_rule_is_tested_here() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    assert all(f'"{name}"' in source for name in RULES)
