"""Applied plans: the saved package holds, and computes with, exactly what the plan says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from programs import constants, decompressed, logits, program, save, tiny

from mvit_coreml.compression.apply_plan import apply_plan, program_ios, uniform_choices
from mvit_coreml.compression.cache import Cache
from mvit_coreml.compression.kmeans import optimal_palette
from mvit_coreml.compression.palettizable_weights import program_weights
from mvit_coreml.compression.palettized_weight import Choice, PalettizedWeight
from mvit_coreml.compression.plan import PalettizationPlan, PlanValues, make_plan
from mvit_coreml.compression.plan_file import read_plan, read_values, write_plan
from mvit_coreml.errors import InputError
from mvit_coreml.export.coremltools_import import load_coremltools, quiet

TARGETS = [(16, "fp16"), (17, "fp32"), (18, "fp16"), (26, "fp32")]


def make(
    built: Any, choices: dict[str, Choice], values: PlanValues | None = None
) -> PalettizationPlan:
    weights = [(info, op.outputs[0].val) for info, op in program_weights(built)]
    return make_plan(
        weights, choices, ios=program_ios(built), source_sha256="0" * 64, values=values
    )


def mixed_choices(ios: int) -> dict[str, Choice]:
    """Return every width, and groups where the target has them."""
    if ios < 18:
        bits = {"stem": 8, "depthwise": 1, "expand": 2, "mix": 4, "head": 6}
        return {f"{name}_weight": Choice(width) for name, width in bits.items()}
    return {
        "stem_weight": Choice(8),
        "depthwise_weight": Choice(1, 6),
        "expand_weight": Choice(3),
        "mix_weight": Choice(4, 8),
        "head_weight": Choice(2, 1),
    }


def palettize_uniformly(built: Any, bits: int) -> None:
    infos = [info for info, _ in program_weights(built)]
    apply_plan(built, make(built, uniform_choices(infos, bits)))


def coremltools_palettes(built: Any, bits: int) -> None:
    """Palettize with coremltools' own pass, given our tables."""
    load_coremltools()
    from coremltools.converters.mil.mil.passes.graph_pass import PassOption
    from coremltools.converters.mil.mil.passes.pass_registry import PASS_REGISTRY
    from coremltools.optimize.coreml import OpPalettizerConfig, OptimizationConfig

    def look_up_table(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        palette = optimal_palette(weights, 2**bits, dtype=weights.dtype)
        return palette.lut, palette.indices.ravel()

    config = OpPalettizerConfig(mode="custom", lut_function=look_up_table, weight_threshold=2048)
    palettize = PASS_REGISTRY["compression::palettize_weights"]
    palettize.set_options([PassOption("config", OptimizationConfig(config))])
    with quiet():
        palettize(built)


@pytest.mark.parametrize(("ios", "precision"), TARGETS)
def test_uniform_bits_give_the_bytes_of_coremltools_own_pass(
    ios: int, precision: str, tmp_path: Path
) -> None:
    for bits in (4, 6, 8):
        ours, theirs = tiny(ios, precision), tiny(ios, precision)
        palettize_uniformly(ours, bits)
        coremltools_palettes(theirs, bits)
        mine = save(ours, tmp_path / f"ours{bits}.mlpackage", ios)
        assert mine == save(theirs, tmp_path / f"theirs{bits}.mlpackage", ios)


def test_uniform_bits_of_a_converted_model_too(tmp_path: Path) -> None:
    ours, theirs = program("mobilevitv2"), program("mobilevitv2")
    palettize_uniformly(ours, 6)
    coremltools_palettes(theirs, 6)
    mine = save(ours, tmp_path / "ours.mlpackage")
    assert mine == save(theirs, tmp_path / "theirs.mlpackage")


@pytest.mark.parametrize(("ios", "precision"), TARGETS)
def test_the_saved_package_decompresses_to_what_was_applied(
    ios: int, precision: str, tmp_path: Path
) -> None:
    built = tiny(ios, precision)
    original = constants(built)
    choices = mixed_choices(ios)
    applied = apply_plan(built, make(tiny(ios, precision), choices))
    assert {
        name: Choice(w.bits, w.group_size if w.groups > 1 else 0) for name, w in applied.items()
    }
    assert [w.bits for w in applied.values()] == [c.bits for c in choices.values()]
    save(built, tmp_path / "saved.mlpackage", ios)
    read = decompressed(tmp_path / "saved.mlpackage")
    for name, weight in applied.items():
        stored = read[f"{name}_palettized"]
        np.testing.assert_array_equal(stored, weight.decode(), err_msg=name)
        assert stored.dtype == np.dtype(precision.replace("fp", "float"))
        assert not np.array_equal(stored, original[name.replace("_weight", ".weight")])
    for name in ("stem_bias", "head_bias"):
        np.testing.assert_array_equal(read[name], original[name.replace("_", ".")])


@pytest.mark.parametrize(("ios", "precision"), TARGETS)
def test_the_saved_package_computes_like_one_with_the_decoded_weights(
    ios: int, precision: str, tmp_path: Path
) -> None:
    palettized, plain = tiny(ios, precision), tiny(ios, precision)
    applied = apply_plan(palettized, make(plain, mixed_choices(ios)))
    save(palettized, tmp_path / "palettized.mlpackage", ios)
    decoded = PlanValues(constants={name: weight.decode() for name, weight in applied.items()})
    apply_plan(plain, make(plain, {}, decoded), decoded)
    save(plain, tmp_path / "plain.mlpackage", ios)
    answers = logits(tmp_path / "palettized.mlpackage")
    largest = np.abs(answers).max()
    # Equal weights elsewhere in memory may be added in another order: a last bit here and there.
    rounding = {"fp16": 2.0**-9, "fp32": 1e-6}[precision]
    assert np.abs(answers - logits(tmp_path / "plain.mlpackage")).max() <= rounding * largest
    untouched = tiny(ios, precision)
    save(untouched, tmp_path / "untouched.mlpackage", ios)
    assert np.abs(answers - logits(tmp_path / "untouched.mlpackage")).max() > 0.02 * largest


def tuned_values() -> tuple[dict[str, Choice], PlanValues]:
    """Return tuned palettes and a tuned bias for the tiny program, beside a k-means one."""
    rng = np.random.default_rng(1)
    head = PalettizedWeight(
        rng.standard_normal((1, 64)).astype(np.float16),
        rng.integers(0, 64, (32, 64)).astype(np.uint8),
    )
    values = PlanValues(
        palettes={"head_weight": head},
        constants={"head_bias": rng.standard_normal(32).astype(np.float16)},
    )
    choices = {
        "expand_weight": Choice(2),
        "head_weight": Choice(6),
    }
    return choices, values


def test_given_tables_and_constants_are_applied_from_the_files_alone(tmp_path: Path) -> None:
    choices, values = tuned_values()
    write_plan(make(tiny(), choices, values), tmp_path / "plan.toml", values)
    plan = read_plan(tmp_path / "plan.toml")
    built = tiny()
    applied = apply_plan(built, plan, read_values(plan))
    save(built, tmp_path / "saved.mlpackage")
    read = decompressed(tmp_path / "saved.mlpackage")
    np.testing.assert_array_equal(
        read["head_weight_palettized"], values.palettes["head_weight"].decode()
    )
    np.testing.assert_array_equal(read["head_bias"], values.constants["head_bias"])
    assert applied["expand_weight"].bits == 2
    logits(tmp_path / "saved.mlpackage")


def test_the_same_plan_gives_the_same_bytes_on_any_number_of_threads(tmp_path: Path) -> None:
    choices, values = tuned_values()
    plan = make(tiny(), choices, values)
    trees = []
    for index, options in enumerate(
        ({"workers": 1}, {"workers": 4}, {"cache": Cache(tmp_path)}, {"cache": Cache(tmp_path)})
    ):
        built = tiny()
        apply_plan(built, plan, values, **options)  # type: ignore[arg-type]
        trees.append(save(built, tmp_path / f"{index}.mlpackage"))
    assert all(tree == trees[0] for tree in trees)


def one_line(plan: PalettizationPlan, built: Any, values: PlanValues | None = None) -> str:
    before = sorted(constants(built))
    with pytest.raises(InputError) as caught:
        apply_plan(built, plan, values)
    assert sorted(name.replace(".", "_") for name in before) == sorted(constants(built))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_plan_for_a_newer_target_is_refused() -> None:
    plan = replace(make(tiny(18), {"mix_weight": Choice(3)}), origin="plan.toml")
    assert one_line(plan, tiny(17)) == (
        "plan.toml: weight 'mix_weight': 3 bits need iOS 18; this package is for iOS 17: --ios 18,"
        " or 2 or 4 bits"
    )


def test_a_plan_for_other_weights_is_refused() -> None:
    plan = make(tiny(), {"mix_weight": Choice(4)})
    weights = tuple(replace(weight, sha256="f" * 64) for weight in plan.weights)
    message = one_line(replace(plan, weights=weights), tiny())
    assert "weight 'stem_weight': the plan was made for other weights" in message


def test_unknown_weights_are_refused_with_a_suggestion() -> None:
    plan = make(tiny(), {"mix_weight": Choice(4)})
    weights = tuple(replace(weight, name=weight.name + "s") for weight in plan.weights)
    message = one_line(replace(plan, weights=weights), tiny())
    assert (
        message
        == "plan: weight 'stem_weights': the model has no such weight; did you mean 'stem_weight'?"
    )


def test_a_group_size_that_does_not_divide_the_channels_is_refused() -> None:
    plan = make(tiny(18), {"mix_weight": Choice(4, 16)})
    weights = tuple(
        replace(weight, choice=Choice(4, 10)) if weight.name == "mix_weight" else weight
        for weight in plan.weights
    )
    message = one_line(replace(plan, weights=weights), tiny(18))
    assert (
        "weight 'mix_weight': a group size of 10 does not divide its 64 output channels" in message
    )


def test_values_of_another_precision_are_refused() -> None:
    choices, values = tuned_values()
    plan = make(tiny(), choices, values)
    built = tiny(17, "fp32")
    fitting = make(built, choices)
    sources = {weight.name: weight.values for weight in plan.weights}
    weights = tuple(replace(weight, values=sources[weight.name]) for weight in fitting.weights)
    message = one_line(replace(fitting, weights=weights), built, values)
    assert "its tuned tables are float16 where float32 is needed" in message
    message = one_line(replace(fitting, constants="tuned"), built, values)
    assert "constant 'head_bias' is tuned as float16[32] but is float32[32] in the model" in message


def test_unknown_tuned_constants_are_refused() -> None:
    values = PlanValues(constants={"tail_bias": np.zeros(32, dtype=np.float16)})
    message = one_line(make(tiny(), {}, values), tiny(), values)
    assert "the model has no constant 'tail_bias'" in message


def test_unlisted_weights_stay_as_they_are(tmp_path: Path) -> None:
    plan = make(tiny(), {"mix_weight": Choice(4)})
    mix = tuple(weight for weight in plan.weights if weight.name == "mix_weight")
    built = tiny()
    assert list(apply_plan(built, replace(plan, weights=mix))) == ["mix_weight"]
    head = constants(tiny())["head.weight"]
    np.testing.assert_array_equal(constants(built)["head_weight"], head)
