"""Faults of palettes."""

from __future__ import annotations

import numpy as np
from faults.planting import TRAINED, Plant, fault
from faults.weights import changed


def _palette(package, place=4):
    palette = package.palettes()[place]
    return palette, package.value(palette, "lut")


def _entry_moved(bits: int, gaps: float) -> Plant:
    def plant(package):
        _, lut = _palette(package)
        table = package.array(lut)
        place = 2**bits // 4
        table[place] += np.float16(gaps * (table[place + 1] - table[place]))
        package.store(lut, table)

    return plant


for base, bits in (
    ("4-bit classifier", 4),
    ("6-bit classifier", 6),
    ("8-bit classifier", 8),
    (TRAINED, 6),
):
    fault(
        base,
        "weight",
        f"an entry of a {bits}-bit palette moved",
        f"a quarter of the gap to the next, 1 of {2**bits} entries",
    )(_entry_moved(bits, 0.25))


@fault("6-bit classifier", "weight", "an entry of a palette moved a little", "2 % of the gap")
def _(package):
    _, lut = _palette(package)
    table = package.array(lut)
    # Towards zero, where half precision resolves a fiftieth of a gap.
    place = int(np.argmin(np.abs(table))) + 2
    table[place] += np.float16(0.02 * (table[place + 1] - table[place]))
    package.store(lut, table)


@fault("6-bit classifier", "weight", "an entry of a palette replaced", "the last by the first")
def _(package):
    _, lut = _palette(package)
    table = package.array(lut)
    table[-1] = table[0]
    package.store(lut, table)


@fault("6-bit classifier", "weight", "an entry of a palette is NaN", "1 of 64")
def _(package):
    _, lut = _palette(package)
    package.store(lut, changed(package.array(lut), 20, np.nan))


@fault("6-bit classifier", "weight", "a palette reversed", "1 of 18")
def _(package):
    _, lut = _palette(package, -2)
    package.store(lut, package.array(lut)[::-1])


@fault("6-bit classifier", "weight", "two palettes exchanged", "2 of 18")
def _(package):
    (_, one), (_, other) = _palette(package, 3), _palette(package, 5)
    tables = package.array(one), package.array(other)
    package.store(one, tables[1])
    package.store(other, tables[0])


@fault("6-bit classifier", "weight", "indices of two palettes exchanged", "2 of 18, equal shapes")
def _(package):
    one, other = package.palettes()[3], package.palettes()[5]
    indices = package.indices(one), package.indices(other)
    assert indices[0].size == indices[1].size
    package.store_indices(one, indices[1])
    package.store_indices(other, indices[0])


def _index_moved(steps: int) -> Plant:
    def plant(package):
        palette, _ = _palette(package)
        indices = package.indices(palette)
        place = int(np.argmax((indices > 20) & (indices < 40)))
        indices[place] += steps
        package.store_indices(palette, indices)

    return plant


fault("6-bit classifier", "weight", "an index moved", "to the next entry, 1 of 3456 weights")(
    _index_moved(1)
)
fault("6-bit classifier", "weight", "an index moved far", "by 20 entries, 1 of 3456 weights")(
    _index_moved(20)
)


@fault(
    "6-bit segmenter", "weight", "an index of a segmenter moved", "to the entry before, 1 weight"
)
def _(package):
    _index_moved(-1)(package)


fault(TRAINED, "weight", "an index moved", "to the next entry, 1 weight")(_index_moved(1))


@fault("6-bit classifier", "weight", "indices shifted", "by one weight, 1 of 18 tensors")
def _(package):
    palette, _ = _palette(package)
    package.store_indices(palette, np.roll(package.indices(palette), 1))


@fault("4-bit classifier", "metadata", "metadata states other bits", "6 for 4", program=False)
def _(package):
    package.metadata["mvit_coreml.bits"] = "6"


@fault("6-bit classifier", "metadata", "metadata states no palettes", "none for 6", program=False)
def _(package):
    package.metadata["mvit_coreml.bits"] = ""
