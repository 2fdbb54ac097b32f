"""Progress: a bar on a terminal, plain lines elsewhere, silence from all processes but the first."""

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from nlp_transfer import launching
from nlp_transfer.errors import EXIT_BAD_INPUT
from nlp_transfer.reporting import progress


@pytest.fixture
def shown(monkeypatch):
    """Everything is slow enough to be shown at once; gives a function that sets up the console and reads it."""
    monkeypatch.setattr(progress, "SHOWN_AFTER", 0.0)
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)

    def use(*, terminal: bool) -> io.StringIO:
        out = io.StringIO()
        monkeypatch.setattr(progress, "console", Console(file=out, force_terminal=terminal, width=120))
        return out

    return use


def work() -> None:
    with progress.progress_bar("training", 10) as outer:
        outer.advance(4, "loss 0.123")
        with progress.progress_bar("validating", 5) as inner:
            inner.advance(5)
        outer.advance(6, "loss 0.100")


def test_a_terminal_shows_bars_also_one_within_another(shown):
    out = shown(terminal=True)
    work()
    assert "training" in out.getvalue()
    assert "loss 0.100" in out.getvalue()


def test_what_is_printed_beside_a_bar_stays_on_standard_output(shown, capsys):
    """``predict ... > file`` at a terminal."""
    out = shown(terminal=True)
    with progress.progress_bar("predicting", 10) as bar:
        bar.advance(1)
        print('{"label": "a\tb"}')
    assert capsys.readouterr().out == '{"label": "a\tb"}\n'
    assert "label" not in out.getvalue()


def test_elsewhere_lines_say_how_far_it_is(shown):
    out = shown(terminal=False)
    work()
    lines = out.getvalue().splitlines()
    assert lines[0].startswith("training: 4 of 10, ")
    assert lines[0].endswith(" s left")
    assert "loss 0.123" in lines[0]


def test_what_was_done_before_counts_but_not_in_the_rate(shown, monkeypatch):
    clock = iter([100.0, 110.0])
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    out = shown(terminal=False)
    with progress.progress_bar("training", 1000, 800) as bar:
        bar.advance(50)
    assert out.getvalue() == "training: 850 of 1,000, 5 examples/s, 30 s left\n"


def test_another_process_says_what_is_wrong_with_the_input_where_the_main_one_does_not(monkeypatch, capsys):
    """After it has waited: a launcher ends all processes when the first one ends."""
    waited = []
    monkeypatch.setattr(launching, "time", SimpleNamespace(sleep=waited.append))
    monkeypatch.setenv("RANK", "1")
    assert launching.fail("no such file", EXIT_BAD_INPUT) == EXIT_BAD_INPUT
    assert waited == [launching.MAIN_IS_HEARD]
    assert capsys.readouterr().err == "[process 1] error: no such file\n"
    monkeypatch.setenv("RANK", "0")
    assert launching.fail("no such file", EXIT_BAD_INPUT) == EXIT_BAD_INPUT
    assert len(waited) == 1
    assert capsys.readouterr().err == "error: no such file\n"


@pytest.mark.parametrize("terminal", [True, False])
def test_other_processes_are_silent(shown, monkeypatch, terminal):
    monkeypatch.setenv("RANK", "1")
    out = shown(terminal=terminal)
    work()
    progress.say("a line")
    assert out.getvalue() == ""
