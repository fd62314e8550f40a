"""The table of which module implements which operation, beside the modules themselves."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module, reload
from pkgutil import iter_modules

import pytest

from mvit_coreml.mil import kernels


def test_the_table_names_every_module() -> None:
    assert set(kernels.OPERATIONS) == {module.name for module in iter_modules(kernels.__path__)}


@pytest.mark.parametrize("module", kernels.OPERATIONS)
def test_the_table_names_what_a_module_implements(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = import_module(f"{kernels.__name__}.{module}")
    registered: dict[str, list[kernels.Kernel]] = {}
    monkeypatch.setattr(kernels, "_KERNELS", registered)
    reload(loaded)
    assert sorted(registered) == kernels.OPERATIONS[module].split()


def test_an_operation_loads_its_module_alone() -> None:
    program = (
        "import sys\n"
        "from mvit_coreml.mil.kernels import find_kernel\n"
        "assert find_kernel('softmax', 17) and not find_kernel('unheard_of', 17)\n"
        "print([n for n in sys.modules if n.startswith('mvit_coreml.mil.kernels.')])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert result.stdout.strip() == "['mvit_coreml.mil.kernels.elementwise']"
