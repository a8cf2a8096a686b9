"""What comes from guests, images and files is text on a terminal."""

from __future__ import annotations

import json
import unicodedata

from vc_core.cli.escapes import shown, shown_colours, shown_json
from vc_core.cli.exit_codes import report_error
from vc_core.cli.render import echo_json, echo_json_line, echo_table
from vc_core.spec import AgentError

_HOSTILE = "\x1b]0;t\x07\r\n\x7f\x9b2J\u202eabc\u2066\u200f\udc80"


def is_safe(text: str) -> bool:
    return all(
        unicodedata.category(one) not in ("Cc", "Cf", "Cs") for one in text.replace("\n", "")
    )


def test_every_control_is_escaped_and_the_rest_is_not():
    everything = "".join(chr(code) for code in range(0x3000)) + _HOSTILE
    written = shown(everything)
    assert not [one for one in written if unicodedata.category(one) in ("Cc", "Cs", "Zl", "Zp")]
    assert not set(
        "\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
    ) & set(written)
    assert (
        shown("grün \u4f60\u597d 👩\u200d🔬 [/x] C:\\n")
        == "grün \u4f60\u597d 👩\u200d🔬 [/x] C:\\n"
    )
    assert shown("\x1b[1m\n\x9b") == r"\x1b[1m\n\x9b"
    assert shown("a\nb\tc\r", keep="\n\t") == "a\nb\tc\\r"


def test_colours_may_stay_where_they_are_understood():
    assert (
        shown_colours("\x1b[31mred\x1b[0m \x1b[2J\x1b]0;t\x07\t")
        == "\x1b[31mred\x1b[0m \\x1b[2J\\x1b]0;t\\x07\t"
    )


def test_json_means_the_same_and_is_safe_to_see(capsys):
    value = {"name": _HOSTILE}
    assert json.loads(shown_json(json.dumps(value, ensure_ascii=False))) == value
    for echo in (echo_json, echo_json_line):
        echo(value)
        written = capsys.readouterr().out
        assert is_safe(written)
        assert json.loads(written) == value


def test_a_table_has_a_line_for_each_row(capsys):
    echo_table(("NAME",), [(_HOSTILE,), ("[/x]",)])
    written = capsys.readouterr().out
    assert is_safe(written)
    assert written.splitlines()[2] == "[/x]"
    assert len(written.splitlines()) == 3


def test_an_error_is_one_line(capsys):
    report_error(AgentError(_HOSTILE), is_debugging=False)
    assert is_safe(capsys.readouterr().err)
