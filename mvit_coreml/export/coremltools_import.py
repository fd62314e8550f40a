"""coremltools without its noise, and without loading the frameworks it has no need of here."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

# coremltools imports whichever of these are installed, to say in flags that they are; that takes
# most of the time of its import.
_DEFERRED_FRAMEWORKS = frozenset({"sklearn", "torchvision", "transformers"})
# Its flags about them.
_FLAGS = ("_HAS_HF", "_HAS_SKLEARN", "_HAS_TORCH_VISION", "_SKLEARN_VERSION")
# What reads these flags as it is loaded: compression of torch modules, which takes long to load.
_DEFERRED_MODULE = "coremltools.optimize.torch"


def load_coremltools() -> ModuleType:
    """Import coremltools, quietly, without the frameworks that conversions make no use of.

    Whoever uses what needs them all the same finds coremltools as if it had been imported as usual:
    the flags are found out, and the module that reads them is loaded, on first use.
    """
    if "coremltools" not in sys.modules:
        import torch  # noqa: F401  (coremltools needs it)

        # An empty module for what depends on the frameworks.
        sys.modules[_DEFERRED_MODULE] = ModuleType(_DEFERRED_MODULE)
        finder = _DeferringFinder()
        sys.meta_path.insert(0, finder)
        try:
            with quiet():
                importlib.import_module("coremltools")
        finally:
            sys.meta_path.remove(finder)
        _defer_module(_DEFERRED_MODULE)
        _defer_flags(sys.modules["coremltools._deps"])
    return sys.modules["coremltools"]


class _DeferringFinder:
    """An import finder that keeps coremltools, and no other importer, from the frameworks."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> None:
        """Refuse a framework to coremltools, and leave the rest to other finders."""
        if name in _DEFERRED_FRAMEWORKS and _importer().startswith("coremltools"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def _importer() -> str:
    """Return the name of the module whose import statement is under way."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals["__name__"] in (
        __name__,
        "importlib._bootstrap",
    ):
        frame = frame.f_back
    return str(frame.f_globals.get("__name__", ""))


def _defer_module(name: str) -> None:
    """Take an empty module away, and have its package import the true one when it is asked for."""
    package, _, own_name = name.rpartition(".")
    parent = sys.modules[package]
    del sys.modules[name], vars(parent)[own_name]

    def import_module(attribute: str) -> Any:
        if attribute != own_name:
            raise AttributeError(f"module {package!r} has no attribute {attribute!r}")
        return importlib.import_module(name)

    vars(parent)["__getattr__"] = import_module


def _defer_flags(dependencies: ModuleType) -> None:
    """Have coremltools find out about the frameworks when one of its flags is first asked for."""
    for name in _FLAGS:
        vars(dependencies).pop(name, None)

    def find_out(name: str) -> Any:
        if name not in _FLAGS:
            raise AttributeError(f"module {dependencies.__name__!r} has no attribute {name!r}")
        spec = dependencies.__spec__
        assert spec is not None
        assert spec.loader is not None
        again = importlib.util.module_from_spec(spec)
        with quiet():
            spec.loader.exec_module(again)
        vars(dependencies).update({flag: getattr(again, flag) for flag in _FLAGS})
        return getattr(again, name)

    vars(dependencies)["__getattr__"] = find_out


@contextlib.contextmanager
def quiet(active: bool = True) -> Iterator[None]:
    """Keep the warnings, logs and progress bars of torch and coremltools from the user."""
    if not active:
        yield
        return
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
