"""``validate`` on packages with one planted fault each: it must fail on every one of them.

``pytest -v`` lists the faults with what caught them.
"""

from __future__ import annotations

import numpy as np
import pytest
from faults.catalogue import BASES, FAULTS, TRAINED
from faults.editor import PackageEditor
from faults.planting import checkpoint_of, sound_package

from mvit_coreml import MvitCoremlError, ValidateOptions, validate
from mvit_coreml.mil.digest import DIGEST_KEY, program_digest
from mvit_coreml.mil.package_reader import load_package

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
    return validate(path, checkpoint_of(base), options=ValidateOptions(pictures=PICTURES))


def failed_gates(report):
    return [gate for gate in report.gates if not gate.passed]


@pytest.mark.parametrize("base", BASES)
def test_a_sound_package_passes(base):
    assert_sound(base)


def test_a_sound_package_of_a_trained_checkpoint_passes(real_data):
    assert_sound(TRAINED)


def assert_sound(base):
    report = judge(base, sound_package(base))
    assert report.passed, [str(gate) for gate in failed_gates(report)]
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
    by_outputs = [str(gate) for gate in failed_gates(report) if gate.name != "structure"]
    found = {difference.aspect: difference for difference in report.differences}
    findings.append((fault, "; ".join([*by_outputs, str(next(iter(found.values()), ""))])))
    if fault.caught_by == "outputs":
        assert by_outputs
    else:
        assert fault.caught_by in found
    # Faulty packages hold their own digest, so that it is not what catches the fault.
    assert "digest" not in found
    assert found
    if fault.program:
        assert program_digest(load_package(path)) != program_digest(
            load_package(sound_package(fault.base))
        )


def test_a_digest_that_was_left_alone_tells_of_a_change():
    editor = PackageEditor(sound_package("6-bit classifier"))
    palette = editor.palettes()[0]
    editor.store_indices(palette, np.roll(editor.indices(palette), 1))
    report = judge("6-bit classifier", editor.save())
    assert [d.aspect for d in report.differences] == ["weight", "digest"]
    assert report.differences[1].detail == "the package was changed after it was converted"
