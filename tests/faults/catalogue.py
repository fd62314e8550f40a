"""All faults.

Each is a function without a name, registered with a base to plant it in, what has to notice it,
what is wrong, and by how much.
"""

from __future__ import annotations

import faults.operations
import faults.packaging
import faults.palettes
import faults.weights  # noqa: F401  (importing registers the faults)
from faults.planting import BASES, FAULTS, TRAINED, Fault

__all__ = ["BASES", "FAULTS", "TRAINED", "Fault"]
