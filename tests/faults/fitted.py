"""Faults of fitted packages, whose weights are not those of a fresh conversion.

They leave the program as it is, and move what fitting may move: tables, indices and biases.
"""

from __future__ import annotations

import numpy as np
from faults.editor import PackageEditor


def bias_permuted(package: PackageEditor) -> None:
    """Put the biases of a pointwise convolution in another order."""
    package.change(package.convs(kernel=1)[3], "bias", lambda bias: bias[::-1])


def classifier_bias_flipped(package: PackageEditor) -> None:
    """Change the sign of the classifier's biases."""
    package.change(_classifier(package), "bias", np.negative)


def classifier_bias_raised(package: PackageEditor) -> None:
    """Raise one of the classifier's biases by 3."""
    package.change(
        _classifier(package), "bias", lambda bias: bias + 3 * (np.arange(len(bias)) == 0)
    )


def tables_exchanged(package: PackageEditor) -> None:
    """Exchange the tables of two weights."""
    one, other = (package.value(package.palettes()[place], "lut") for place in (3, 5))
    tables = package.array(one), package.array(other)
    package.store(one, tables[1])
    package.store(other, tables[0])


def table_scaled(package: PackageEditor) -> None:
    """Multiply the table of a weight by 1.05."""
    lut = package.value(package.palettes()[4], "lut")
    package.store(lut, package.array(lut) * 1.05)


def table_negated(package: PackageEditor) -> None:
    """Change the sign of all of a weight."""
    lut = package.value(package.palettes()[-1], "lut")
    package.store(lut, -package.array(lut))


def index_bit(package: PackageEditor) -> None:
    """Flip one bit of one index."""
    palette = package.palettes()[4]
    indices = package.indices(palette)
    indices[7] ^= 1
    package.store_indices(palette, indices)


def _classifier(package: PackageEditor) -> object:
    return (package.ops("linear") or package.convs(kernel=1))[-1]


FAULTS = (
    bias_permuted,
    classifier_bias_flipped,
    classifier_bias_raised,
    tables_exchanged,
    table_scaled,
    table_negated,
    index_bit,
)
# Smaller than what tells one processor's sums from another's.
TINY = (index_bit,)
