"""Packages made by coremltools itself: the independent source of what the runtime reads."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from plain_packages import numpy_casts
from torch import Tensor, nn

from mvit_coreml.mil.interpreter import Runtime
from mvit_coreml.mil.package_reader import load_package

OPSETS = {15: "iOS15", 16: "iOS16", 17: "iOS17", 18: "iOS18"}


@pytest.fixture(scope="session")
def ct() -> Iterator[Any]:
    """coremltools, quiet, and able to convert with NumPy 2.4 too."""
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with numpy_casts():
            import coremltools

            yield coremltools
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="session")
def save_program(ct: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Build an ML Program from a function of variables, without any optimisation, and save it.

    ``build(mb, **variables)`` returns a dictionary of named results.
    """
    from coremltools.converters.mil.mil import Builder, types

    kinds = {"float32": types.fp32, "float16": types.fp16, "int32": types.int32}

    def save(
        build: Callable[..., Mapping[str, Any]], inputs: Mapping[str, np.ndarray], opset: int = 17
    ) -> Path:
        target = getattr(ct.target, OPSETS[opset])
        specs = [
            Builder.TensorSpec(array.shape, kinds[str(array.dtype)]) for array in inputs.values()
        ]

        # coremltools reads the names of the inputs from the function's signature.
        def body(*variables: Any) -> Any:
            named = dict(zip(inputs, variables, strict=True))
            results = build(Builder, **named)
            return tuple(Builder.identity(x=value, name=name) for name, value in results.items())

        signature = ", ".join(inputs)
        scope: dict[str, Any] = {"body": body}
        exec(f"def program({signature}): return body({signature})", scope)
        program = Builder.program(input_specs=specs, opset_version=target)(scope["program"])
        model = ct.convert(
            program,
            convert_to="mlprogram",
            minimum_deployment_target=target,
            compute_precision=ct.precision.FLOAT32,
            pass_pipeline=ct.PassPipeline.EMPTY,
            skip_model_load=True,
        )
        path = tmp_path_factory.mktemp("program") / "program.mlpackage"
        model.save(str(path))
        return path

    return save


@pytest.fixture(scope="session")
def convert(ct: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Convert a torch module by coremltools' plain route and save the package."""

    def convert(
        module: nn.Module,
        example: Tensor,
        opset: int = 17,
        precision: str = "fp16",
        **options: Any,
    ) -> Path:
        precisions = {"fp16": ct.precision.FLOAT16, "fp32": ct.precision.FLOAT32}
        options.setdefault("inputs", [ct.TensorType("x", shape=example.shape)])
        if "classifier_config" not in options:
            options.setdefault("outputs", [ct.TensorType("y")])
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            traced = torch.jit.trace(module.eval(), example, check_trace=False)
            model = ct.convert(
                traced,
                minimum_deployment_target=getattr(ct.target, OPSETS[opset]),
                compute_precision=precisions[precision],
                skip_model_load=True,
                **options,
            )
        path = tmp_path_factory.mktemp("model") / "model.mlpackage"
        model.save(str(path))
        return path

    return convert


@pytest.fixture(scope="session")
def execute(save_program: Callable[..., Path]) -> Callable[..., dict[str, np.ndarray]]:
    """Build a program, save it and run the saved package."""

    def execute(
        build: Callable[..., Mapping[str, Any]],
        inputs: Mapping[str, np.ndarray],
        opset: int = 17,
        arithmetic: str = "program",
    ) -> dict[str, np.ndarray]:
        package = load_package(save_program(build, inputs, opset))
        return Runtime(package, arithmetic=arithmetic).run(inputs)  # type: ignore[arg-type]

    return execute


class SmallClassifier(nn.Module):
    """Convolutions, attention and a head: a model in seconds, with weights worth compressing."""

    def __init__(self, classes: int = 5, channels: int = 32) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, stride=2, padding=1)
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.query = nn.Conv2d(channels, 3 * channels, 1)
        self.norm = nn.LayerNorm(channels)
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map (1, 3, H, W) to (1, classes) probabilities."""
        x = torch.nn.functional.silu(self.stem(x))
        x = torch.nn.functional.relu6(self.depthwise(x))
        query, key, value = self.query(x).flatten(2).chunk(3, dim=1)
        x = value @ (query.transpose(1, 2) @ key / 8).softmax(-1)
        return self.head(self.norm(x.mean(-1))).softmax(-1)


@pytest.fixture(scope="session")
def classifier() -> nn.Module:
    torch.manual_seed(0)
    return SmallClassifier().eval()


@pytest.fixture(scope="session")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def classifier_package(ct: Any, convert: Callable[..., Path], classifier: nn.Module) -> Path:
    """An fp16 classifier with a BGR image input of 24 rows and 32 columns."""
    return convert(
        classifier,
        torch.zeros(1, 3, 24, 32),
        inputs=[
            ct.ImageType(
                "image",
                shape=(1, 3, 24, 32),
                scale=1 / 127.5,
                bias=[-1, -0.9, -0.8],
                color_layout=ct.colorlayout.BGR,
            )
        ],
        classifier_config=ct.ClassifierConfig(list("abcde")),
    )


@pytest.fixture(scope="session")
def snr() -> Callable[[Any, Any], float]:
    """Signal-to-noise ratio in dB."""

    def snr(value: Any, expected: Any) -> float:
        value, expected = np.asarray(value, np.float64), np.asarray(expected, np.float64)
        assert value.shape == expected.shape
        noise = ((value - expected) ** 2).mean()
        return float(10 * np.log10((expected**2).mean() / max(noise, 1e-30)))

    return snr
