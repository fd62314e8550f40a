"""Errors that reach a user: one line each, naming the file or value and the way out."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator
from contextlib import contextmanager


class MvitCoremlError(Exception):
    """Base of every error this package raises on bad input.

    The message is one line that names the file or value at fault and what to do about it. The
    command line prints it to stderr and exits with :attr:`exit_code`.
    """

    exit_code = 2


class ConfigError(MvitCoremlError, ValueError):
    """A model configuration holds an unknown or impossible value."""


class InputError(MvitCoremlError, ValueError):
    """A tensor, image or option that the called function cannot work with."""


class CheckpointError(MvitCoremlError):
    """A checkpoint that is missing, unreadable, unsafe, or does not fit its configuration."""


class PackageError(MvitCoremlError):
    """A saved Core ML package that is damaged, inconsistent, or uses something unsupported."""


class GateError(MvitCoremlError):
    """A result that was computed but falls short of a bound it had to meet."""

    exit_code = 3


@contextmanager
def errors_at(place: object) -> Iterator[None]:
    """Put the place that errors are about before their messages."""
    try:
        yield
    except MvitCoremlError as error:
        raise type(error)(f"{place}: {error}") from None


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def refuse_misspelt(
    what: str, names: Collection[str], known: Collection[str], ignored: Collection[str] = ()
) -> None:
    """Refuse a name that looks like a misspelt one; the value meant for that would be lost.

    Args:
        what: holds the names and what they are, for the error: ``plan: unknown key``.
        names: to look at; those that resemble no known one are of no interest.
        known: the names that are read.
        ignored: names of something else that do resemble known ones.

    Raises:
        ConfigError: a name that is close to a known one which is not there.
    """
    absent = set(known) - set(names)
    for name in names:
        close = difflib.get_close_matches(name, absent, n=1, cutoff=0.88)
        if close and name not in known and name not in ignored:
            raise ConfigError(f"{what} {name!r}; did you mean {close[0]!r}?")
