"""``mvit-coreml palettize``: an existing package with smaller weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from mvit_coreml.cli import arguments as opt
from mvit_coreml.cli.package_arguments import PackageArguments, compress


@dataclass(frozen=True, kw_only=True)
class _Arguments(PackageArguments, opt.PaletteArguments):
    """What the command is asked."""


@opt.command(_Arguments)
def command(arguments: _Arguments) -> None:
    """Palettize the weights of any ML Program that takes an image.

    It may come from any tool: palettes are fitted to the package itself, and the result is held
    against it; interface, labels and metadata stay as they are. Of a package that convert made with
    --bits none it is the package that convert makes with the same palettes, byte for byte; the
    checkpoint is only needed to compare with, and for --max-drop.

    Examples:
        mvit-coreml palettize EfficientNet.mlpackage -o Small.mlpackage --images photos/ --fit crop
        mvit-coreml palettize Any.mlpackage -o Four.mlpackage --images photos/ --bits 4
        mvit-coreml convert apple/mobilevit-small --bits none -o Plain.mlpackage
        mvit-coreml palettize Plain.mlpackage -o Six.mlpackage
        mvit-coreml palettize Plain.mlpackage -o Four.mlpackage --bits 4 --images photos/ --tune
        mvit-coreml palettize Plain.mlpackage -o Small.mlpackage --images photos/ --target-size 3MB
        mvit-coreml palettize Plain.mlpackage -o Again.mlpackage --plan Small.plan.toml
        mvit-coreml palettize Plain.mlpackage -o Sure.mlpackage --against apple/mobilevit-small
    """
    from mvit_coreml.workflows.compress_package import palettize_package

    # What the options alone can tell is said before a download.
    options = arguments.palette_options()
    run = partial(palettize_package, arguments.package, options, arguments.destination)
    compress(arguments, run)
