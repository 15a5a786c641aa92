"""Sanitize a script's output for the terminal: of all escape sequences only colours pass, reset at each line's end.

Characters and sequences are treated as follows:

* complete sequences other than colours (cursor movements, titles, hyperlinks, alternate screen, images):
  removed;
* bell and backspace: removed, because progress bars emit hundreds of them;
* incomplete or malformed sequences, other control characters (C0, DEL, C1), line separators, bidirectional
  controls, lone surrogates (bytes that are not UTF-8): shown as ``\\x1b``, ``\\u202e``, never interpreted;
* everything else, tabs included: unchanged.

Rejected: one emulated terminal per rank (pyte and a pty). It would support full-screen programs, which nobody runs
on eight ranks at once, and costs 100 times as much per line.

Source:
    ECMA-48 (escape, control and string sequences); xterm's ctlseqs (private sequences such as ``CSI > 4 m``, which
    ends like a colour but changes the keyboard mode); Unicode UAX #9 (bidirectional controls).
"""

from __future__ import annotations

import re
import unicodedata

RESET = "\x1b[0m"
_CARRIED = 4096  # characters; a longer unfinished sequence is not held back for the next piece of the line
_ACTIVE = 256  # characters; the longest chain of colours that is repeated when a line continues

# Characters to remove or escape: C0 except the tab, DEL, C1, bidirectional controls, line separators, invisible
# operators, the byte order mark, interlinear annotations, surrogates.
_SUSPECT_CLASS = (
    "\\x00-\\x08\\x0a-\\x1f\\x7f-\\x9f"
    "\u061c\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\\ud800-\\udfff"
)
_SUSPECT = re.compile(f"[{_SUSPECT_CLASS}]")
_TOKEN = re.compile(
    r"(?P<colour>\x1b\[[0-9;:]{0,48}m)"
    r"|(?P<sequence>\x1b\[[0-?]*[ -/]*[@-~]"  # CSI … final
    r"|\x1b[\]PX^_][^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)"  # OSC, DCS, SOS, PM, APC … ST
    r"|\x1b(?:[ -/]+[0-~]|[0-OQ-WYZ\\`-~])"  # ESC and one character, with or without intermediates
    r"|[\x07\x08])"
    f"|(?P<character>[{_SUSPECT_CLASS}])"
)
_UNFINISHED = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|[\]PX^_][^\x07\x1b\x9c]*\x1b?|[ -/]*)\Z")
_COLOUR = re.compile(r"\x1b\[[0-9;:]*m")
_ZEROS = re.compile(r"[0;]*\Z")


class TerminalLine:
    """One line of output that may arrive in pieces.

    Args:
        colour: Whether colour sequences pass. Otherwise they are removed like all other sequences.
    """

    def __init__(self, *, colour: bool) -> None:
        self.colour = colour
        self._carried = ""
        self._active = ""

    def feed(self, piece: str, *, last: bool) -> str:
        """Sanitize the next piece of the line.

        A sequence that the end of a piece cuts off is held back until the next piece. Colours are reset at the end of
        each piece and resumed at the start of the next, so that they do not affect what is written in between.

        Args:
            last: Whether the line ends with this piece.
        """
        text = self._carried + piece
        self._carried = ""
        if not last and (cut := _UNFINISHED.search(text)) and len(text) - cut.start() <= _CARRIED:
            text, self._carried = text[: cut.start()], text[cut.start() :]
        resumed = self._active if text else ""
        if _SUSPECT.search(text):
            text = _TOKEN.sub(self._replace, text)
        text = resumed + text
        if "\x1b" in text and not text.endswith(RESET):  # the only escapes left are colours
            text += RESET
        if last:
            self._active = ""
        return text

    def _replace(self, match: re.Match[str]) -> str:
        if match["character"]:
            return _escaped(match["character"])
        colour = match["colour"]
        if not colour or not self.colour:
            return ""
        parameters = colour[2:-1]
        if _ZEROS.match(parameters):
            self._active = ""
        elif parameters.startswith(("0;", ";")) or len(self._active) + len(colour) > _ACTIVE:
            self._active = colour
        else:
            self._active += colour
        return colour


def clean(text: str, *, colour: bool = False) -> str:
    """Sanitize one whole line, by the rules in the module's docstring."""
    return TerminalLine(colour=colour).feed(text, last=True)


def clip(text: str, cells: int) -> str:
    """Cut a sanitized line to ``cells`` terminal columns and reset its colours; each tab becomes one space."""
    out: list[str] = []
    used, at, coloured = 0, 0, False
    text = text.replace("\t", " ")
    while at < len(text):
        if colour := _COLOUR.match(text, at):
            out.append(colour[0])
            coloured, at = True, colour.end()
            continue
        width = _width(text[at])
        if used + width > cells:
            if coloured:
                out.append(RESET)
            break
        out.append(text[at])
        used, at = used + width, at + 1
    return "".join(out)


def cells(text: str) -> int:
    """Return the number of terminal columns that a sanitized line takes."""
    return sum(_width(character) for character in _COLOUR.sub("", text))


def _width(character: str) -> int:
    if character < "\u0300":
        return 1
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _escaped(character: str) -> str:
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:  # PEP 383: a byte that is not valid UTF-8
        number -= 0xDC00
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
