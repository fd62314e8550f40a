"""``validate`` on packages with one planted fault each: it must fail on every one of them.

``pytest -v`` lists the faults with what caught them.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from faults import fitted, numeric
from faults.catalogue import BASES, FAULTS, TRAINED
from faults.editor import PackageEditor
from faults.planting import checkpoint_of, promise_of, sound_package, store_digest
from fitting import fitted_checkpoint, write_images
from foreign import Wrapped, compressed_again, new_path, open_target, plain_conversion

from mvit_coreml import (
    ConvertOptions,
    MvitCoremlError,
    Promise,
    ValidateOptions,
    build_model,
    convert,
    validate,
)
from mvit_coreml.mil.digest import (
    DIGEST_KEY,
    VALUES_DIGEST_KEY,
    program_digest,
    values_digest,
)
from mvit_coreml.mil.package_reader import load_package
from mvit_coreml.validation.decoded_weights import check_decoded_weights
from mvit_coreml.validation.gates import GATES
from mvit_coreml.validation.synthetic_images import synthetic_pictures

PICTURES = 2

pytestmark = pytest.mark.usefixtures("conversions_shared")


@pytest.fixture(scope="module")
def findings(request):
    """What caught each fault, for the list at the end."""
    rows = []
    yield rows
    if request.config.option.verbose > 0:
        with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            print()
            for fault, found in rows:
                print(f"{fault.base}: {fault.name} ({fault.size}): {found}")


def judge(base, path):
    options = ValidateOptions(pictures=PICTURES, promise=promise_of(base))
    return validate(path, checkpoint_of(base), options=options)


def failed_gates(report):
    return [gate for gate in report.gates if not gate.passed]


@pytest.mark.parametrize("base", BASES)
def test_a_sound_package_passes(base):
    assert_sound(base)


def test_a_sound_package_of_a_trained_checkpoint_passes(real_data):
    assert_sound(TRAINED)


def assert_sound(base):
    report = judge(base, sound_package(base))
    assert report.answers_alike, [str(gate) for gate in failed_gates(report)]
    judged = {gate.name for gate in report.gates}
    assert judged >= {"decoded_weights", "consistency", "snr", "structure"}
    assert report.differences == ()
    assert DIGEST_KEY in load_package(sound_package(base)).metadata.user_defined


@pytest.mark.parametrize("fault", FAULTS, ids=[f"{f.base}: {f.name}" for f in FAULTS])
def test_a_fault_is_caught(fault, findings, request):
    if fault.base == TRAINED:
        request.getfixturevalue("real_data")
    path = fault.faulty_package()
    if fault.caught_by == "error":
        with pytest.raises(MvitCoremlError) as caught:
            judge(fault.base, path)
        assert "\n" not in str(caught.value)
        findings.append((fault, str(caught.value)))
        return
    report = judge(fault.base, path)
    assert not report.passed
    by_answers = {g.name: str(g) for g in failed_gates(report) if g.name != "structure"}
    found = {difference.aspect: difference for difference in report.differences}
    by_parts = str(next(iter(found.values()), ""))
    findings.append((fault, "; ".join([*by_answers.values(), by_parts])))
    assert fault.caught_by in (by_answers if fault.caught_by in GATES else found)
    # Faulty packages hold their own digest, so that it is not what catches the fault.
    assert "digest" not in found
    assert found
    if fault.program:
        assert program_digest(load_package(path)) != program_digest(
            load_package(sound_package(fault.base))
        )


# --- Fitted packages without their plan


def judge_fitted(editor):
    options = ValidateOptions(pictures=PICTURES, promise=Promise(min_snr=-100))
    return validate(editor.save(), palettized(FITTED)[1], options=options)


@pytest.mark.parametrize("plant", fitted.FAULTS, ids=lambda plant: plant.__name__)
@pytest.mark.parametrize("digests", ["removed", "one rewritten", "both rewritten"])
def test_a_fault_of_a_fitted_package_is_caught(plant, digests):
    editor = PackageEditor(palettized(FITTED)[0])
    plant(editor)
    written = load_package(editor.save())
    if digests == "removed":
        del editor.metadata[DIGEST_KEY], editor.metadata[VALUES_DIGEST_KEY]
    else:
        editor.metadata[DIGEST_KEY] = program_digest(written)
    if digests == "both rewritten":
        editor.metadata[VALUES_DIGEST_KEY] = values_digest(written)
    report = judge_fitted(editor)
    found = {difference.aspect for difference in report.differences}
    if plant not in fitted.TINY:
        assert "weight" in found
    if digests != "both rewritten":
        assert "digest" in found
        assert not report.sound


def test_a_fitted_package_without_a_fault_is_sound():
    report = judge_fitted(PackageEditor(palettized(FITTED)[0]))
    assert report.sound
    assert report.differences == ()


@pytest.mark.parametrize("stated", ["", "[]", "[30.0]", '["30.0"]', "{"])
def test_what_the_fitting_wrote_down_cannot_be_left_out(stated):
    editor = PackageEditor(palettized(FITTED)[0])
    editor.metadata["mvit_coreml.layer_snr"] = stated
    (found,) = judge_fitted(editor).differences
    assert (found.aspect, found.place) == ("metadata", "mvit_coreml.layer_snr")


def test_weights_that_are_said_to_be_fitted_must_be_so():
    editor = PackageEditor(sound_package("6-bit classifier"))
    editor.metadata["mvit_coreml.palette_values"] = "trained"
    report = judge("6-bit classifier", store_digest(editor.save()))
    assert {d.aspect for d in report.differences} == {"digest", "metadata"}


# --- Plain packages


def test_a_digest_that_was_left_alone_tells_of_a_change():
    editor = PackageEditor(sound_package("6-bit classifier"))
    palette = editor.palettes()[0]
    editor.store_indices(palette, np.roll(editor.indices(palette), 1))
    report = judge("6-bit classifier", editor.save())
    assert [d.aspect for d in report.differences] == ["weight", "digest"]
    assert report.differences[1].detail == "the package was changed after it was converted"


# --- Faults below the noise of palettes

OTHER_TOOL, FITTED = "another tool's 4-bit classifier", "fitted 4-bit classifier"
# The fault, its package, and whether comparing part by part finds it, which there is nothing to
# compare with for another tool's package.
NUMERIC = [
    ("4-bit classifier", numeric.pad_other_side, True),
    ("4-bit classifier", numeric.residual_from_elsewhere, True),
    ("4-bit classifier", numeric.brighter_input, True),
    ("4-bit classifier", numeric.biases_exchanged, True),
    ("6-bit transformer", numeric.query_for_key, True),
    ("6-bit segmenter", numeric.aligned_corners, True),
    (TRAINED, numeric.query_for_key, True),
    (TRAINED, numeric.coarse_epsilon, True),
    (OTHER_TOOL, numeric.residual_from_elsewhere, False),
    (OTHER_TOOL, numeric.brighter_input, False),
    (OTHER_TOOL, numeric.biases_exchanged, False),
    (FITTED, numeric.pad_other_side, True),
    (FITTED, numeric.residual_from_elsewhere, True),
    (FITTED, numeric.brighter_input, True),
    (FITTED, numeric.biases_exchanged, True),
]
# Half precision has 11 bits: 68 dB for one rounding, 46 for the 150 of a network one after the
# other; ten are left for rounding that lies worse.
ROUNDING = 36


@cache
def palettized(kind):
    """Return a sound package with palettes, and its checkpoint."""
    if kind == OTHER_TOOL:
        checkpoint, half = checkpoint_of("4-bit classifier"), [0.5] * 3
        plain = plain_conversion(Wrapped(build_model(checkpoint), half, half, softmax=True))

        def four_bits(options):
            return options.OpPalettizerConfig(nbits=4, weight_threshold=0)

        return compressed_again(plain, "palettize", four_bits), checkpoint
    if kind == FITTED:
        checkpoint, path = fitted_checkpoint(), new_path()
        images = write_images(path.parent / "images", 16)
        options = ConvertOptions(bits=4, tune_minutes=0.02)
        return convert(checkpoint, options, path, check=False, images=images).path, checkpoint
    return sound_package(kind), checkpoint_of(kind)


def decoded(path, checkpoint):
    target = open_target(path, checkpoint)
    pictures = synthetic_pictures(4, (target.image.height, target.image.width))
    return check_decoded_weights(target, checkpoint, pictures)


@cache
def sound_snr(kind):
    return decoded(*palettized(kind)).snr


@pytest.mark.parametrize(
    ("kind", "plant", "by_structure"), NUMERIC, ids=[f"{k}: {p.__name__}" for k, p, _ in NUMERIC]
)
def test_a_fault_below_the_noise_of_palettes_is_caught(kind, plant, by_structure, request):
    if kind == TRAINED:
        request.getfixturevalue("real_data")
    path, checkpoint = palettized(kind)
    editor = PackageEditor(path)
    plant(editor)
    faulty = store_digest(editor.save())
    assert sound_snr(kind) > ROUNDING
    assert decoded(faulty, checkpoint).snr < ROUNDING
    # However little is promised, what is not sound is refused.
    options = ValidateOptions(pictures=PICTURES, promise=Promise(min_snr=-100))
    report = validate(faulty, checkpoint, options=options)
    assert "decoded_weights" in [gate.name for gate in failed_gates(report)]
    assert (report.sound, report.passed) == (False, False)
    assert bool(report.differences) == by_structure
