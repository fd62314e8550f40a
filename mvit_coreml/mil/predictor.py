"""Runs a package with Core ML where there is Core ML, with the portable interpreter elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image
from torch import Tensor

from mvit_coreml.errors import InputError, PackageError, first_line
from mvit_coreml.mil.compiler import Arithmetic
from mvit_coreml.mil.interpreter import Runtime, image_pixels
from mvit_coreml.mil.package_reader import load_package
from mvit_coreml.mil.program import Function, ImageFeature, Package

Engine = Literal["auto", "coreml", "portable"]
COMPUTE_UNITS = ("all", "cpu_only", "cpu_and_gpu", "cpu_and_ne")


class Predictor:
    """One function of a saved package behind one interface, whichever engine runs it.

    The Core ML engine is written to the API of coremltools 9 (``MLModel.predict``). It needs
    macOS and has not been run by the project's own tests, which have no Mac.

    Args:
        path: an .mlpackage folder.
        function: name of the function, the default one if None.
        engine: ``coreml``, ``portable``, or ``auto`` for Core ML on a Mac and portable elsewhere.
        arithmetic: of the portable engine, see :class:`~mvit_coreml.mil.interpreter.Runtime`.
        compute_units: of Core ML: ``all``, ``cpu_only``, ``cpu_and_gpu`` or ``cpu_and_ne``.

    Attributes:
        package: the package's content.
        function: the function that is run.
        engine: the engine in use, ``coreml`` or ``portable``.
        arithmetic: of the portable engine.

    Raises:
        InputError: an unknown engine or compute unit, or Core ML asked for without macOS.
        PackageError: the package cannot be loaded.
    """

    def __init__(
        self,
        path: str | Path,
        function: str | None = None,
        engine: Engine = "auto",
        arithmetic: Arithmetic = "program",
        compute_units: str = "all",
    ) -> None:
        if engine not in ("auto", "coreml", "portable"):
            raise InputError(f"engine must be auto, coreml or portable, not {engine!r}")
        if compute_units not in COMPUTE_UNITS:
            choices = ", ".join(COMPUTE_UNITS)
            raise InputError(f"compute units must be one of {choices}, not {compute_units!r}")
        on_mac = sys.platform == "darwin"
        if engine == "coreml" and not on_mac:
            raise InputError(
                "the engine 'coreml' needs macOS; use 'portable', which runs the same package here"
            )
        self.package: Package = load_package(path)
        self.function: Function = self.package.function(function)
        self.engine: Engine = "coreml" if on_mac and engine != "portable" else "portable"
        self.arithmetic: Arithmetic = arithmetic
        self._runtime: Runtime | None = None
        self._model: Any = None
        if self.engine == "portable":
            self._runtime = Runtime(self.package, function, arithmetic)
        else:
            self._model = _load_core_ml(self.package, function, compute_units)

    def run(
        self, inputs: Mapping[str, Any], outputs: Sequence[str] | None = None, **options: Any
    ) -> dict[str, Any]:
        """Run the function once; arguments and results as for ``Runtime.run``.

        ``options`` (intermediates, headroom) exist only in the portable engine.

        Raises:
            InputError: an input does not fit, or the engine lacks an option.
            PackageError: the engine failed.
        """
        if self._runtime is not None:
            return self._runtime.run(inputs, outputs, **options)
        if options:
            raise InputError(f"{sorted(options)[0]!r} needs the engine 'portable'")
        features, names = self.function.features_of(inputs, outputs)
        prepared: dict[str, Any] = {}
        for name, feature in features.items():
            value = inputs[name]
            if isinstance(feature, ImageFeature):
                # Core ML brings Pillow images into the declared colour order.
                prepared[name] = Image.fromarray(image_pixels(feature, value))
            else:
                prepared[name] = value.numpy() if isinstance(value, Tensor) else np.asarray(value)
        try:
            results = self._model.predict(prepared)
        except RuntimeError as error:
            message = f"Core ML failed on {self.package.path}: {first_line(error)}"
            raise PackageError(message) from None
        return {name: results[name] for name in names}


def _load_core_ml(package: Package, function: str | None, compute_units: str) -> Any:
    import coremltools

    options: dict[str, Any] = {"compute_units": coremltools.ComputeUnit[compute_units.upper()]}
    if function is not None and len(package.functions) > 1:
        options["function_name"] = function
    try:
        return coremltools.models.MLModel(str(package.path), **options)
    except RuntimeError as error:
        raise PackageError(f"Core ML cannot load {package.path}: {first_line(error)}") from None
