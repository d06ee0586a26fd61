"""A table: as text for a terminal, and as Markdown."""

import itertools
import shutil
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from textwrap import fill, indent, wrap

from bn_inception.quoting import markdown_cell

NOTHING = "-"
"""A cell of what is not known."""
_SENTENCE = 22
"""Characters that a line of a wrapped cell has at least."""


@dataclass(frozen=True)
class Table:
    """What is shown alike on a terminal, in Markdown and in HTML.

    Attributes:
        header, rows: cells, as many in each row as in the header.
        numbers: columns whose cells stand to the right.
        lead: a sentence above the table; empty for none.
        notes: sentences below.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: Collection[int] = ()
    title: str = ""
    lead: str = ""
    notes: Sequence[str] = ()

    def as_text(self, columns: int | None = None) -> str:
        """Aligned by spaces; long cells take several lines, so that it fits into `columns`.

        A table that is too wide even so is a paragraph a row. None is as wide as the terminal.
        """
        columns = columns or shutil.get_terminal_size().columns  # 80 where there is no terminal
        lines = self._aligned(columns) or self._paragraphs(columns)
        above = [text for text in (self.title, fill(self.lead, columns)) if text]
        notes = [fill(f"* {note}", columns, subsequent_indent="  ") for note in self.notes]
        return "\n".join(
            [*above, *([""] if above else []), *lines, *([""] if notes else []), *notes]
        )

    def _aligned(self, columns: int) -> list[str]:
        """Its lines; none where its words alone are too wide."""
        by_column = list(zip(self.header, *self.rows, strict=True))
        words = [
            max(len(word) for cell in cells for word in ("-", *cell.split())) for cells in by_column
        ]
        longest = [max(map(len, cells[1:]), default=0) for cells in by_column]
        for limit in range(columns, _SENTENCE - 1, -1):
            widths = [
                max(word, min(most, limit)) for word, most in zip(words, longest, strict=True)
            ]
            rule = "-" * (sum(widths) + 2 * len(widths) - 2)
            if len(rule) <= columns:
                lines = [list(self._lines(row, widths)) for row in (self.header, *self.rows)]
                return [*lines[0], rule, *itertools.chain(*lines[1:])]
        return []

    def _lines(self, row: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
        # Names have hyphens and stay whole.
        cells = [
            wrap(cell, width, break_long_words=False, break_on_hyphens=False)
            for cell, width in zip(row, widths, strict=True)
        ]
        for line in itertools.zip_longest(*cells, fillvalue=""):
            aligned = (
                part.rjust(width) if column in self.numbers else part.ljust(width)
                for column, (part, width) in enumerate(zip(line, widths, strict=True))
            )
            yield "  ".join(aligned).rstrip()

    def _paragraphs(self, columns: int) -> list[str]:
        """Of each row its first cell, and below it the others after their headings."""
        lines = []
        for name, *cells in self.rows:
            said = zip(self.header[1:], cells, strict=True)
            text = "; ".join(
                f"{heading} {cell}" for heading, cell in said if cell not in ("", NOTHING)
            )
            lines += [name, indent(fill(text, columns - 2, break_on_hyphens=False), "  ")]
        return lines

    def as_markdown(self) -> str:
        """A Markdown table, with the title as a heading."""
        rule = ["---:" if column in self.numbers else "---" for column in range(len(self.header))]
        table = [
            f"| {' | '.join(map(markdown_cell, line))} |"
            for line in (self.header, rule, *self.rows)
        ]
        above = [f"## {markdown_cell(self.title)}", ""] if self.title else []
        above += [markdown_cell(self.lead), ""] if self.lead else []
        notes = ["", *(f"- {markdown_cell(note)}" for note in self.notes)] if self.notes else []
        return "\n".join([*above, *table, *notes])
