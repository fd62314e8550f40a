"""The table of which module implements which operation, beside the modules themselves."""

from __future__ import annotations

from importlib import import_module, reload
from pkgutil import iter_modules

import pytest
from fresh_process import fresh_process

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


def test_an_operation_loads_its_module_alone(tmp_path_factory: pytest.TempPathFactory) -> None:
    assert fresh_process(tmp_path_factory).kernels == ["mvit_coreml.mil.kernels.elementwise"]
