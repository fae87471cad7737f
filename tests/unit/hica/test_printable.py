from io import StringIO

from rich.console import Console

from hica.printable import printable


def test_markup_and_what_steers_a_terminal_are_shown_not_obeyed():
    out = StringIO()
    Console(file=out, width=80).print(printable("[bold]a\x1b[2J\tb\nc[/]"), highlight=False)
    assert out.getvalue() == "[bold]a�[2J�b\nc[/]\n"
