"""Plans survive the way to a file and back, and each mistake in one is named in one line."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest
from programs import tiny
from safetensors.numpy import load_file

from mvit_coreml.compression.palettizable_weights import program_weights
from mvit_coreml.compression.palettized_weight import UNCOMPRESSED, Choice, PalettizedWeight
from mvit_coreml.compression.plan import PalettizationPlan, PlanValues, make_plan
from mvit_coreml.compression.plan_file import plan_text, read_plan, read_values, write_plan
from mvit_coreml.errors import InputError, MvitCoremlError

pytestmark = pytest.mark.fast

SOURCE = "ab" * 32


def values() -> PlanValues:
    rng = np.random.default_rng(0)
    indices = rng.integers(0, 8, (64, 64, 1, 1)).astype(np.uint8)
    return PlanValues(
        palettes={
            "mix_weight": PalettizedWeight(rng.standard_normal((4, 8)).astype(np.float16), indices)
        },
        constants={"mix_bias": rng.standard_normal(64).astype(np.float16)},
    )


def plan(with_values: bool = True) -> PalettizationPlan:
    weights = [(info, op.outputs[0].val) for info, op in program_weights(tiny(18))]
    choices = {
        "expand_weight": Choice(4),
        "mix_weight": Choice(3, 16),
        "head_weight": Choice(6),
        "depthwise_weight": UNCOMPRESSED,
    }
    return make_plan(
        weights,
        choices,
        ios=18,
        source_sha256=SOURCE,
        asked={"target_size": 20000, "by": 'a "name"\n', "tuned": True},
        values=values() if with_values else None,
        reasons={"stem_weight": "first layer"},
    ).with_measured(size=19876, snr=31.5, tiny=1e-7)


@pytest.mark.parametrize("with_values", [False, True])
def test_a_plan_is_read_back_as_it_was_written(with_values: bool, tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    given = values() if with_values else None
    written = write_plan(plan(with_values), path, given)
    read = read_plan(path)
    assert read == written
    assert read.origin == str(path)
    assert {**vars(read), "values_sha256": "", "origin": "plan"} == vars(plan(with_values))
    stored = read_values(read)
    if given is None:
        assert (stored.palettes, stored.constants) == ({}, {})
        assert [file.name for file in tmp_path.iterdir()] == ["plan.toml"]
        return
    np.testing.assert_array_equal(stored.constants["mix_bias"], given.constants["mix_bias"])
    ours, theirs = stored.palettes["mix_weight"], given.palettes["mix_weight"]
    np.testing.assert_array_equal(ours.lut, theirs.lut)
    np.testing.assert_array_equal(ours.indices, theirs.indices)
    assert ours.lut.dtype == np.float16


def test_a_plan_says_for_each_weight_on_a_line_of_its_own_what_people_edit_first() -> None:
    text = plan_text(plan())
    content = tomllib.loads(text)
    assert content["format"] == 1
    assert content["source_sha256"] == SOURCE
    assert content["asked"] == {"target_size": 20000, "by": 'a "name"\n', "tuned": True}
    assert content["measured"] == {"size": 19876, "snr": 31.5, "tiny": 1e-7}
    rows = {row["name"]: row for row in content["weights"]}
    assert rows["stem_weight"]["bits"] == "none"
    assert rows["stem_weight"]["reason"] == "first layer"
    assert "reason" not in rows["expand_weight"]
    assert (rows["mix_weight"]["bits"], rows["mix_weight"]["group_size"]) == (3, 16)
    assert [rows[name]["values"] for name in ("mix_weight", "expand_weight")] == ["tuned", "kmeans"]
    lines = [line for line in text.splitlines() if line.startswith("  { ")]
    assert len(lines) == 5
    assert len({line.index("name =") for line in lines}) == 1, "columns are not aligned"
    assert all(line.startswith("  { bits = ") for line in lines)


def test_tuned_values_take_their_bits_on_disk(tmp_path: Path) -> None:
    write_plan(plan(), tmp_path / "plan.toml", values())
    arrays = load_file(tmp_path / "plan.safetensors")
    assert arrays["indices/mix_weight"].nbytes == 64 * 64 * 3 // 8
    assert "indices/head_weight" not in arrays


def test_the_same_plan_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_plan(plan(), tmp_path / f"{name}.toml", values())
    for suffix in (".toml", ".safetensors"):
        first, second = (tmp_path / f"{name}{suffix}" for name in ("a", "b"))
        assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("format = 1", "format = 2", "line 9: format 2 is unknown"),
        ("ios = 18", "ios = 'x'", "line 10: ios must be a whole number"),
        ("ios = 18", "iso = 18", "line 10: unknown key 'iso'"),
        ("ios = 18\n", "", "ios is missing"),
        ("weights = [", "weights = [[", "not valid TOML"),
        ("bits = 4,", "bits = 5,", "line 26: weight 'expand_weight': 5 bits"),
        ("bits = 4,", 'bits = "all",', "bits must be a whole number or \"none\", not 'all'"),
        ("bits = 4,", "bits = 4.0,", 'bits must be a whole number or "none", not 4.0'),
        ("bits = 4,", "bits = true,", 'bits must be a whole number or "none"'),
        ("bits = 4,", "bit = 4,", "weight 'expand_weight': unknown key 'bit'"),
        ("bits = 4,", "", "weight 'expand_weight': bits is missing"),
        ('name = "expand_weight",', "", "weight 3: name is missing"),
        ('"expand_weight"', '"mix_weight"', "line 27: weight 'mix_weight' is listed twice"),
        (
            'values = "tuned"',
            'values = "importance"',
            "weight 'mix_weight': values must be \"kmeans\" or \"tuned\", not 'importance'",
        ),
        (
            "shape = [64, 24, 1, 1]",
            "shape = [64, 0]",
            "shape must be the weight's sizes, as it had, not [64, 0]",
        ),
        ("group_size = 16", "group_size = -1", "group size -1"),
        (
            'constants = "tuned"',
            'constants = "new"',
            'constants must be "original" or "tuned", not \'new\'',
        ),
        ("asked.tuned = true", "asked.tuned = [1]", "asked.tuned must be a number"),
    ],
)
def test_a_mistake_is_named_with_its_place(
    old: str, new: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "plan.toml"
    write_plan(plan(), path, values())
    text = path.read_text()
    assert text.count(old) >= 1
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(InputError) as caught:
        read_plan(path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_missing_or_unreadable_plan_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.toml: cannot read the plan: No such file"):
        read_plan(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"binary\.toml: no plan"):
        read_plan(tmp_path / "binary.toml")


def test_values_that_are_missing_or_stale_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    write_plan(plan(), path, values())
    read, stored = read_plan(path), tmp_path / "plan.safetensors"
    content = stored.read_bytes()
    stored.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(InputError, match=r"plan\.safetensors: not the file.*sha256 differs"):
        read_values(read)
    stored.unlink()
    with pytest.raises(InputError, match=r"plan\.safetensors: missing; .*plan\.toml needs it"):
        read_values(read)


def test_damaged_values_are_refused_even_with_the_right_digest(tmp_path: Path) -> None:
    import hashlib
    from dataclasses import replace

    path, stored = tmp_path / "plan.toml", tmp_path / "plan.safetensors"
    read = write_plan(plan(), path, values())
    stored.write_bytes(stored.read_bytes()[:-8])
    digest = hashlib.sha256(stored.read_bytes()).hexdigest()
    with pytest.raises(InputError, match=r"plan\.safetensors: damaged"):
        read_values(replace(read, values_sha256=digest))


def edited(tmp_path: Path, *changes: tuple[str, str]) -> PalettizationPlan:
    path = tmp_path / "plan.toml"
    write_plan(plan(), path, values())
    text = path.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    path.write_text(text)
    return read_plan(path)


def test_the_bits_of_a_tuned_weight_cannot_be_edited_alone(tmp_path: Path) -> None:
    changed = edited(tmp_path, ("bits = 3,", "bits = 4,"))
    with pytest.raises(InputError) as caught:
        read_values(changed)
    assert str(caught.value) == (
        f"{tmp_path / 'plan.toml'}: weight 'mix_weight': its tuned values have 3 bits in groups of"
        ' 16, the plan says 4 bits in groups of 16; restore that, or set values = "kmeans"'
    )


def test_a_tuned_weight_can_be_edited_to_plain_k_means(tmp_path: Path) -> None:
    changed = edited(
        tmp_path, ('values = "tuned"', 'values = "kmeans"'), ("bits = 3,", "bits = 4,")
    )
    assert list(read_values(changed).palettes) == []
    assert changed.choices["mix_weight"] == Choice(4, 16)


def test_a_weight_cannot_become_tuned_by_editing(tmp_path: Path) -> None:
    changed = edited(
        tmp_path, ('values = "kmeans", name = "expand', 'values = "tuned", name = "expand')
    )
    with pytest.raises(InputError, match="'expand_weight': its tuned values are missing"):
        read_values(changed)


def test_a_failed_write_leaves_the_old_plan_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "plan.toml"
    write_plan(plan(with_values=False), path)
    before = path.read_bytes()

    def full(self: Path, content: bytes) -> int:
        with self.open("wb") as stream:
            stream.write(content[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(MvitCoremlError, match=r"cannot be written: No space left on device"):
        write_plan(plan(), path, values())
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["plan.toml"]


def test_a_plan_file_must_end_in_toml(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must end in \.toml"):
        write_plan(plan(with_values=False), tmp_path / "plan.txt")


def test_values_must_be_given_with_a_plan_that_needs_them(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="values are missing"):
        write_plan(plan(), tmp_path / "plan.toml")
    assert list(tmp_path.iterdir()) == []
