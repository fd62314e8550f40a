"""Packages that the project's own conversion would not make: by hand, or edited afterwards."""

from __future__ import annotations

import itertools
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mvit_coreml import Checkpoint
from mvit_coreml.evaluation.read_metadata import image_input, preparation_for, read_preparation
from mvit_coreml.evaluation.targets import PackageTarget
from mvit_coreml.export.coremltools_import import load_coremltools, quiet
from mvit_coreml.mil.predictor import Predictor

_FOLDER = tempfile.TemporaryDirectory(prefix="foreign-")
_NUMBERS = itertools.count()
_MODEL = "Data/com.apple.CoreML/model.mlmodel"
WEIGHTS = "Data/com.apple.CoreML/weights/weight.bin"


def new_path() -> Path:
    """Return a path for a package, in a folder of its own."""
    folder = Path(_FOLDER.name) / str(next(_NUMBERS))
    folder.mkdir()
    return folder / "Foreign.mlpackage"


def program_package(
    build: Callable[[Any, Any], Any],
    shape: tuple[int, ...] = (1, 8, 4, 4),
    *,
    dtype: str = "fp16",
    ios: int = 17,
    compress: Callable[[Any, Any], Any] | None = None,
    image: bool = False,
) -> Path:
    """Save the program ``build(mb, x)`` just as it is written.

    Args:
        build: makes operations with coremltools' builder; returns the result.
        shape: of the input x.
        dtype: of x, ``fp16`` or ``fp32``.
        ios: deployment target.
        compress: ``compress(coremltools.optimize.coreml, model)`` returns the model to save.
        image: let x be an RGB image.
    """
    ct = load_coremltools()
    with quiet():
        from coremltools.converters.mil.mil import Builder, types

        target = getattr(ct.target, f"iOS{ios}")
        spec = Builder.TensorSpec(shape, types.fp16 if dtype == "fp16" else types.fp32)

        @Builder.program(input_specs=[spec], opset_version=target)
        def program(x: Any) -> Any:
            return Builder.identity(x=build(Builder, x), name="y")

        model = ct.convert(
            program,
            convert_to="mlprogram",
            minimum_deployment_target=target,
            compute_precision=ct.precision.FLOAT32,
            pass_pipeline=ct.PassPipeline.EMPTY,
            skip_model_load=True,
            **({"inputs": [ct.ImageType("x", shape=shape)]} if image else {}),
        )
        if compress is not None:
            import coremltools.optimize.coreml

            model = compress(coremltools.optimize.coreml, model)
        path = new_path()
        model.save(str(path))
    return path


def compressed(kinds: str) -> Callable[[Any, Any], Any]:
    """Return a ``compress`` for :func:`program_package`.

    Args:
        kinds: ``linear`` (8 bits), ``sparse``, ``palette`` or ``grouped palette`` (3 bits), or
            several with commas between, one on top of the other.
    """

    def compress(cto: Any, model: Any) -> Any:
        for number, kind in enumerate(kinds.split(", ")):
            joint = {"joint_compression": True} if number else {}
            if kind == "linear":
                # The table of a palette is quantized as a whole.
                config = cto.OpLinearQuantizerConfig(
                    mode="linear_symmetric",
                    weight_threshold=0,
                    granularity="per_tensor" if number else "per_channel",
                )
                function = cto.linear_quantize_weights
            elif kind == "sparse":
                config = cto.OpMagnitudePrunerConfig(target_sparsity=0.75, weight_threshold=0)
                function = cto.prune_weights
            else:
                grouped = {"granularity": "per_grouped_channel", "group_size": 16}
                options = grouped if kind == "grouped palette" else {}
                config = cto.OpPalettizerConfig(
                    mode="uniform", nbits=3, weight_threshold=0, **options
                )
                function = cto.palettize_weights
            model = function(model, cto.OptimizationConfig(config), **joint)
        return model

    return compress


def edited(package: Path, edit: Callable[[Any], None]) -> Path:
    """Return a copy of a package with ``edit(specification)`` applied."""
    load_coremltools()
    from coremltools.proto import Model_pb2

    path = new_path()
    shutil.copytree(package, path)
    spec = Model_pb2.Model.FromString((path / _MODEL).read_bytes())
    edit(spec)
    (path / _MODEL).write_bytes(spec.SerializeToString())
    return path


def with_two_functions(package: Path) -> Path:
    """Return a copy for iOS 18 whose program stands in it twice, as ``first`` and ``second``.

    The second differs in one thing: photos are stretched to its input.
    """

    def double(spec: Any) -> None:
        spec.specificationVersion = 9
        main = spec.mlProgram.functions["main"]
        main.block_specializations["CoreML8"].CopyFrom(main.block_specializations[main.opset])
        del main.block_specializations[main.opset]
        main.opset = "CoreML8"
        for name in ("first", "second"):
            spec.mlProgram.functions[name].CopyFrom(main)
            described = spec.description.functions.add(name=name)
            described.input.extend(spec.description.input)
            described.output.extend(spec.description.output)
            described.predictedFeatureName = spec.description.predictedFeatureName
            described.predictedProbabilitiesName = spec.description.predictedProbabilitiesName
        del spec.mlProgram.functions["main"]
        for field in ("input", "output", "predictedFeatureName", "predictedProbabilitiesName"):
            spec.description.ClearField(field)
        spec.description.defaultFunctionName = "first"
        metadata = spec.description.metadata.userDefined
        prepared = json.loads(metadata["mvit_coreml.preprocessing"])["main"]
        metadata["mvit_coreml.preprocessing"] = json.dumps(
            {"first": prepared, "second": prepared | {"fit": "stretch", "resize": None}}
        )

    return edited(package, double)


def operations(spec: Any, op_type: str, function: str = "main") -> list[Any]:
    """Return a specification's operations of a type, in order."""
    body = spec.mlProgram.functions[function]
    block = body.block_specializations[body.opset]
    return [op for op in block.operations if op.type == op_type]


def constant(spec: Any, operation: Any, parameter: str) -> Any:
    """Return the stored value that an operation is given for a parameter."""
    (binding,) = operation.inputs[parameter].arguments
    if binding.WhichOneof("binding") == "value":
        return binding.value
    (found,) = [op for op in operations(spec, "const") if op.outputs[0].name == binding.name]
    return found.attributes["val"]


def random_weight(*shape: int, seed: int = 0, dtype: str = "float16") -> np.ndarray:
    """Return normally distributed weights."""
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


class Wrapped(nn.Module):
    """A model of another library behind its normalization, with softmax or without."""

    def __init__(
        self, model: nn.Module, mean: Sequence[float], std: Sequence[float], softmax: bool
    ) -> None:
        super().__init__()
        self.model, self.softmax = model, softmax
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.model((x - self.mean) / self.std)
        scores: torch.Tensor = found if isinstance(found, torch.Tensor) else found[0]
        return scores.softmax(-1) if self.softmax else scores


def plain_conversion(
    module: nn.Module, labels: Sequence[str] | None = None, size: tuple[int, int] = (64, 64)
) -> Path:
    """Convert as a user of coremltools would, with its default passes and names."""
    ct = load_coremltools()
    path = new_path()
    shape = (1, 3, *size)
    with quiet():
        traced = torch.jit.trace(module.eval(), torch.zeros(shape))  # type: ignore[no-untyped-call]
        ct.convert(
            traced,
            inputs=[ct.ImageType(name="picture", shape=shape, scale=1 / 255, color_layout="RGB")],
            classifier_config=None if labels is None else ct.ClassifierConfig(list(labels)),
            minimum_deployment_target=ct.target.iOS17,
            skip_model_load=True,
        ).save(str(path))
    return path


def compressed_again(path: Path, kind: str, config: Callable[[Any], Any]) -> Path:
    """Compress a package as a user of coremltools would.

    Args:
        path: the package.
        kind: ``palettize`` or ``linear_quantize``.
        config: makes the configuration for every weight out of ``coremltools.optimize.coreml``.
    """
    ct = load_coremltools()
    with quiet():
        import coremltools.optimize.coreml as cto

        model = ct.models.MLModel(str(path), skip_model_load=True)
        compress = getattr(cto, f"{kind}_weights")
        model = compress(model, cto.OptimizationConfig(config(cto)))
        compressed = new_path()
        model.save(str(compressed))
    return compressed


def open_target(path: Path, checkpoint: Checkpoint) -> PackageTarget:
    """Open any tool's package, with photos prepared as its checkpoint wants them."""
    predictor = Predictor(path, engine="portable")
    package, function = predictor.package, predictor.function
    preparation = read_preparation(package, function) or preparation_for(
        image_input(package, function), checkpoint.image_processor, "crop"
    )
    return PackageTarget(predictor, preparation, num_labels=checkpoint.config.num_labels)
