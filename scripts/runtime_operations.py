"""Writes docs/runtime.md's tables of operations, from the runtime's registry and coremltools'.

python scripts/runtime_operations.py
"""

from __future__ import annotations

import re
from pathlib import Path

from mvit_coreml.export.coremltools_import import load_coremltools
from mvit_coreml.mil.kernels import OPERATIONS, find_kernel
from mvit_coreml.mil.package_reader import OPSETS

PAGE = Path(__file__).resolve().parents[1] / "docs" / "runtime.md"
# Between these lines of the page.
TABLES = re.compile(r"(?<=<!-- operations -->\n).*?(?=<!-- end of operations -->)", re.DOTALL)
# A constant is no operation that runs; the other one stands in no saved program.
_NOT_RUN = {"const", "_const_symbolic"}


def operation_tables() -> str:
    """Return how much of each iOS version's op set runs, and what runs."""
    load_coremltools()
    from coremltools.converters.mil._deployment_compatibility import AvailableTarget
    from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

    lines = ["", "| op set | operations | run here | missing |", "|---|---|---|---|"]
    for ios in OPSETS.values():
        target = AvailableTarget[f"iOS{ios}"]
        names = {
            name
            for name, versions in SSAOpRegistry.core_ops.items()
            if min(versions) <= target and name not in _NOT_RUN
        }
        missing = sorted(name for name in names if find_kernel(name, ios) is None)
        listed = ", ".join(f"`{name}`" for name in missing) or "none"
        lines.append(f"| iOS {ios} | {len(names)} | {len(names) - len(missing)} | {listed} |")
    lines += ["", "| kind | operations, and the iOS that brought them if it is newer than 15 |"]
    lines.append("|---|---|")
    for module, names in sorted(OPERATIONS.items()):
        lines.append(f"| {module.replace('_', ' ')} | {', '.join(map(_since, names.split()))} |")
    return "\n".join([*lines, "", ""])


def _since(name: str) -> str:
    first = next(ios for ios in OPSETS.values() if find_kernel(name, ios))
    return f"`{name}`" if first == 15 else f"`{name}` ({first})"


if __name__ == "__main__":
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(TABLES.sub(lambda _: operation_tables(), page), encoding="utf-8")
