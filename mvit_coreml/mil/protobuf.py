"""Core ML's message classes, taken from coremltools without importing coremltools itself.

``import coremltools`` takes seconds and prints warnings; its generated message classes alone load
in a fraction of that. They use relative imports, so they are imported as a package of their own
whose path is coremltools' folder. The classes come out identical to coremltools' own, because
protobuf keeps one class for each message in the process.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from mvit_coreml.errors import PackageError

_PRIVATE_PACKAGE = "mvit_coreml.mil._coremltools_proto"


@cache
def model_messages() -> Any:
    """Return the module that defines the ``Model`` message (Model.proto).

    Raises:
        PackageError: coremltools is not installed.
    """
    if "coremltools.proto.Model_pb2" in sys.modules:
        return sys.modules["coremltools.proto.Model_pb2"]
    return importlib.import_module(f"{_folder_package()}.Model_pb2")


def parse_model(data: bytes) -> Any:
    """Return the ``Model`` message that ``data`` encodes.

    Raises:
        ValueError: ``data`` is no such message.
        PackageError: coremltools is not installed.
    """
    decode_error: type[Exception] = importlib.import_module("google.protobuf.message").DecodeError
    model = model_messages().Model()
    try:
        model.ParseFromString(data)
    except decode_error as error:
        raise ValueError(str(error)) from None
    return model


def _folder_package() -> str:
    """Register coremltools' proto folder as a package, without running any ``__init__``."""
    if _PRIVATE_PACKAGE not in sys.modules:
        found = importlib.util.find_spec("coremltools")
        if found is None or found.origin is None:
            raise PackageError(
                "reading a Core ML package needs coremltools; run: pip install coremltools"
            )
        package = ModuleType(_PRIVATE_PACKAGE)
        package.__path__ = [str(Path(found.origin).parent / "proto")]
        sys.modules[_PRIVATE_PACKAGE] = package
    return _PRIVATE_PACKAGE
