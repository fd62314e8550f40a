"""MobileViT, MobileViTV2 and MobileNetV2 from PyTorch to Core ML, proved to answer alike.

Everything that a script needs is importable from here; ``__init__.pyi`` lists it. Names are loaded
when they are first used, so that ``import mvit_coreml`` itself takes no time.
"""

import lazy_loader

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("mvit-coreml")
    return _load(name)
