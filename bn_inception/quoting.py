"""Text of unknown origin (names of files, folders and runs) for terminals, tables and shells."""

import re
import shlex
import sys
import unicodedata
from collections.abc import Iterable
from typing import TextIO

from tqdm import tqdm

_INVISIBLE = ("Cc", "Cf", "Zl", "Zp")
"""Unicode's categories of what moves a cursor, breaks a line, or turns the direction of text."""


def printable(text: str, keep: str = "") -> str:
    r"""`text` with all that a terminal would obey, but for `keep`, as an escape such as `\x1b`."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character
        if character in keep or unicodedata.category(character) not in _INVISIBLE
        else character.encode("unicode_escape").decode()
        for character in text
    )


def say(line: str, stream: TextIO | None = None) -> None:
    """Tell the user a line, on standard error if no other: above the progress bar there."""
    stream = stream or sys.stderr
    tqdm.write(printable(line), file=stream, nolock=True)
    stream.flush()


def shortened(name: str, columns: int) -> str:
    """A run's name in so many columns: its recipe at the front, its seed at the end."""
    front = (columns := max(columns, 3)) // 2
    return name if len(name) <= columns else f"{name[:front]}…{name[front + 1 - columns :]}"


def markdown_cell(text: str) -> str:
    """`text` on one line of Markdown, in which it makes no cell, no link, no code and no HTML."""
    return re.sub(r"([\\`*\[\]<|])", r"\\\1", printable(text)).strip()


def shell_command(words: Iterable[str]) -> str:
    """A command for copying: every word quoted where a shell would read it otherwise."""
    return " ".join(map(_shell_word, words))


def _shell_word(word: str) -> str:
    if printable(word) == word:
        # "key=value with space" reads better with the quotes round the value alone.
        key, equals, value = word.partition("=")
        if equals and shlex.quote(key) == key:
            return f"{key}={shlex.quote(value)}" if value else word
        return shlex.quote(word)
    # $'...' is understood by bash, zsh and ksh; nothing in it reaches the terminal unescaped.
    escaped = word.replace("\\", "\\\\").replace("'", "\\'")
    return f"$'{printable(escaped)}'"
