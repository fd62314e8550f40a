"""What ``import mvit_coreml`` offers, and what it costs."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys

import pytest

import mvit_coreml
from mvit_coreml.compression.promise import Promise, default_promise
from mvit_coreml.errors import GateError
from mvit_coreml.evaluation.agreement import AgreementEstimate
from mvit_coreml.evaluation.labeled_datasets import read_labeled_images
from mvit_coreml.evaluation.open_targets import OpenOptions

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("name", mvit_coreml.__all__)
def test_every_public_name_is_there_and_listed(name):
    assert getattr(mvit_coreml, name) is not None
    assert name in dir(mvit_coreml)


@pytest.mark.parametrize(
    "thing",
    [AgreementEstimate, GateError, OpenOptions, Promise, default_promise, read_labeled_images],
)
def test_what_other_public_names_take_or_raise_is_public_too(thing):
    assert getattr(mvit_coreml, thing.__name__) is thing


def test_version_is_the_installed_one():
    assert mvit_coreml.__version__ == importlib.metadata.version("mvit-coreml")


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="attribute no_such_name"):
        _ = mvit_coreml.no_such_name


def test_importing_the_package_imports_nothing_heavy():
    code = (
        "import sys, mvit_coreml; mvit_coreml.MvitCoremlError; "
        "assert not {'torch', 'numpy', 'PIL', 'coremltools'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
