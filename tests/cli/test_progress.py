"""Progress on stderr: plain lines for scripts, a live line on a terminal."""

from __future__ import annotations

import io
import re

import pytest

from mvit_coreml.cli.printing import ProgressLines


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def work(progress: ProgressLines) -> None:
    with progress:
        progress("load")
        progress("tune", "half")
        progress("tune", "nearly")
        progress("words of its own")
        progress.show("3 of 4 images", 3, 4)


def test_where_nobody_watches_there_are_lines_without_control_characters(
    capsys: pytest.CaptureFixture[str],
):
    work(ProgressLines())
    out, err = capsys.readouterr()
    assert out == ""
    patterns = ("loading the checkpoint", "fitting palettes to images", "words of its own")
    for line, words in zip(err.splitlines(), patterns, strict=True):
        assert re.fullmatch(rf"{words} … \d+\.\d s", line)


def test_a_stage_is_named_as_it_begins_and_has_no_time_if_it_fails(
    capsys: pytest.CaptureFixture[str],
):
    def fail() -> None:
        with ProgressLines() as progress:
            progress("load")
            assert capsys.readouterr().err == "loading the checkpoint … "
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        fail()
    assert capsys.readouterr().err == "\n"


def test_silent_is_silent(monkeypatch: pytest.MonkeyPatch):
    for stream in (io.StringIO(), Terminal()):
        monkeypatch.setattr("sys.stderr", stream)
        work(ProgressLines(silent=True))
        assert stream.getvalue() == ""


@pytest.mark.parametrize("colorless", [True, False])
def test_a_terminal_shows_how_a_stage_gets_on(colorless: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if colorless:
        monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    work(ProgressLines())
    text = stream.getvalue()
    for shown in ("fitting palettes to images … half", "3 of 4 images"):
        assert shown in text
    # Whole lines stay.
    assert len(re.findall(r"^.*(checkpoint|images|own) … \d+\.\d s$", text, re.MULTILINE)) == 3
    assert bool(re.search(r"\x1b\[[\d;]*3[0-8][\d;]*m", text)) is not colorless


def test_a_dumb_terminal_gets_no_control_characters(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    work(ProgressLines())
    assert "\x1b" not in stream.getvalue()
    assert "loading the checkpoint" in stream.getvalue()
