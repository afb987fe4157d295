"""A Comparison as Markdown, LaTeX (booktabs) or CSV."""

import csv
import io
import re
import unicodedata

from tabulate import LATEX_ESCAPE_RULES, SEPARATING_LINE, tabulate

from la_tf.paper_tables import NONE
from la_tf.wording import EMPTY

CSV_COLUMNS = (
    "table", "section", "row", "column", "paper", "here", "sd", "n", "data_set", "setting", "split", "selected_on",
)  # fmt: skip
LATEX_SYMBOLS = {
    "±": r"$\pm$", "†": r"$\dagger$", "‡": r"$\ddagger$", "§": r"$\mathsection$", "‖": r"$\|$",
    "¶": r"$\mathparagraph$", "·": r"$\cdot$", "–": "--", "×": r"$\times$", "“": "``", "”": "''",
}  # fmt: skip


def markdown(comparison):
    """Returns the table in Markdown: caption, table, notes as a list."""
    rows = []
    for section, blocks in comparison.sections.items():
        rows += [[f"**{section}**"]] if section else []
        rows += [[_markdown(cell) for cell in row] for row in _rows(comparison, blocks)]
    head = [_markdown(title) for title in (comparison.head, *comparison.columns)]
    notes = "".join(f"- {_markdown(note)}\n" for note in comparison.notes)
    return f"{_markdown(comparison.caption)}\n\n{_table(comparison, head, rows, 'pipe')}\n\n{notes}"


def latex(comparison):
    """Returns a table environment with caption and notes; it needs the package booktabs."""
    rows = []
    for section, blocks in comparison.sections.items():
        if section:
            rows += [SEPARATING_LINE] if rows else []
            rows += [[section]]
        rows += _rows(comparison, blocks)
    table = _table(comparison, [comparison.head, *comparison.columns], rows, "latex_booktabs")
    table = re.sub(r"(?m)^ ([\[*])", r" {\1}", table)  # behind a line break these would be its arguments
    notes = "\\par\n".join(_latex(note) for note in comparison.notes)
    return "\n".join(
        [
            r"\begin{table}  % \usepackage{booktabs}",
            r"\centering",
            rf"\caption{{{_latex(comparison.caption)}}}",
            _symbols(table),
            "",
            rf"\medskip\raggedright\footnotesize {notes}",
            r"\end{table}",
            "",
        ]
    )


def csv_lines(comparison):
    """Returns CSV for machines: a line a cell, a cell of the paper's without one of ours too; per cent, not rounded.

    `paper`, `here` (the mean), `sd` and `n` are numbers or empty; `setting` is what sets our line apart.
    """
    file = io.StringIO()
    writer = csv.DictWriter(file, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for section, blocks in comparison.sections.items():
        for block in blocks:
            numbers = dict(zip(comparison.columns, block.paper.numbers if block.paper else (), strict=False))
            for column in comparison.columns:
                place = {"table": comparison.name, "section": section, "row": block.name, "column": column}
                place |= {"paper": numbers.get(column)}
                ours = [_csv_cell(line, line.cells[column]) for line in block.lines if column in line.cells]
                writer.writerows(place | cell for cell in ours or [{}] if ours or place["paper"] is not None)
    return file.getvalue()


FORMATS = {"markdown": markdown, "csv": csv_lines, "latex": latex}


def _rows(comparison, blocks):
    """The rows of a section as texts: the paper's, each with ours below it."""
    for block in blocks:
        if block.paper:
            yield [block.paper.label, *(NONE if number is None else f"{number:.1f}" for number in block.paper.numbers)]
        for line in block.lines:
            said = "; ".join(filter(None, [line.setting, line.runs]))
            numbers = (str(line.cells.get(column, EMPTY)) for column in comparison.columns)
            yield [f"{block.name}, here ({said})", *numbers]


def _table(comparison, head, rows, form):
    align = ("left", *["right"] * len(comparison.columns))
    return tabulate(rows, head, tablefmt=form, colalign=align, disable_numparse=True)


def _csv_cell(line, cell):
    return {
        "here": round(cell.mean, 6),
        "sd": None if cell.sd is None else round(cell.sd, 6),
        "n": len(cell.values),
        "data_set": line.data_set,
        "setting": line.setting,
        "split": cell.split,
        "selected_on": cell.selected_on,
    }


def _markdown(text):
    return re.sub(r"([\\`*|<>~]|(?<!\w)_|_(?!\w))", r"\\\1", text)  # an underscore within a word is none


def _latex(text):
    return _symbols("".join(LATEX_ESCAPE_RULES.get(character, character) for character in text))


def _symbols(text):
    """Replaces what pdflatex does not read: letters lose their accents, other characters become question marks."""
    for symbol, command in LATEX_SYMBOLS.items():
        text = text.replace(symbol, command)
    plain = (c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return "".join(c if c.isascii() else "?" for c in plain)
