"""``mvit-coreml quantize``: an existing package that computes in 8-bit integers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mvit_coreml.cli import arguments as opt
from mvit_coreml.cli.package_arguments import PackageArguments, compress
from mvit_coreml.errors import InputError

if TYPE_CHECKING:
    from mvit_coreml.workflows.package_options import Quantize


@dataclass(frozen=True, kw_only=True)
class _Arguments(PackageArguments, opt.PromiseArguments):
    """What the command is asked.

    Attributes:
        quantize: w8a8 for 8-bit weights and activations in all layers; auto leaves those in fp16
            that cost most, where the promise is broken otherwise.
        plan: Carry out this plan of a quantization (plan.toml), with the promise it was made for.
    """

    quantize: Quantize = opt.option("--to", type=click.Choice(["w8a8", "auto"]), default="w8a8")
    plan: Path | None = opt.option()


@opt.command(_Arguments)
def command(arguments: _Arguments) -> None:
    """Let any ML Program that takes an image compute in 8-bit integers.

    W8A8: weights are stored as 8-bit numbers, and activations are rounded to 8 bits on the way,
    each on a grid that is calibrated on --images (or synthetic pictures). PACKAGE comes from any
    tool, computes in fp16 and is for iOS 17 or later; the result is held against it. Palettes make
    a package smaller; this makes it faster on chips that compute in integers. No latency was
    measured.

    Examples:
        mvit-coreml quantize EfficientNet.mlpackage -o Int8.mlpackage --images photos/ --fit crop
        mvit-coreml convert apple/mobilevit-small --bits none -o Plain.mlpackage
        mvit-coreml quantize Plain.mlpackage -o Int8.mlpackage --images photos/
        mvit-coreml quantize Plain.mlpackage -o Again.mlpackage --plan Int8.plan.toml
    """
    from mvit_coreml.compression.promise import Promise
    from mvit_coreml.workflows.compress_package import quantize_package
    from mvit_coreml.workflows.package_options import PaletteOptions

    # What the options alone can tell is said before a download.
    promised = arguments.promised
    if arguments.plan is not None:
        if promised:
            raise InputError("--plan says what is promised; leave out the others")
        options = PaletteOptions(bits=None, plan=arguments.plan)
    else:
        options = PaletteOptions(
            bits=None,
            quantize=arguments.quantize,
            promise=Promise(**promised) if promised else None,
            dataset=arguments.dataset,
        )
    run = partial(quantize_package, arguments.package, arguments.destination, options)
    compress(arguments, run)
