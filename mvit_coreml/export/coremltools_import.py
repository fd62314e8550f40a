"""coremltools without its noise, and without the frameworks it imports for nothing."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

# coremltools imports whichever of these are installed, to offer converters for them; that takes
# most of the time of its import.
_UNUSED_FRAMEWORKS = frozenset(
    {"libsvm", "sklearn", "tensorflow", "torchvision", "transformers", "xgboost"}
)


class _HideUnusedFrameworks:
    """An import finder that reports the unused frameworks as not installed."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Refuse an unused framework, leave everything else to the other finders."""
        if name.partition(".")[0] in _UNUSED_FRAMEWORKS:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None


def load_coremltools() -> ModuleType:
    """Import coremltools, quietly and without the frameworks that are not used here."""
    if "coremltools" not in sys.modules:
        import torch  # noqa: F401  (a framework that is used; it must not be hidden)

        finder = _HideUnusedFrameworks()
        sys.meta_path.insert(0, finder)
        try:
            with quiet():
                return importlib.import_module("coremltools")
        finally:
            sys.meta_path.remove(finder)
    return sys.modules["coremltools"]


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
