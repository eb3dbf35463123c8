"""Tables and text for LaTeX: booktabs, as wide as the page at most, and no character that pdfLaTeX does not know."""

import math
import re
import unicodedata
from collections.abc import Sequence
from itertools import pairwise

from assay.reporting.table import Column, Table

FONTS = {"small": 92.0, "footnotesize": 103.0, "scriptsize": 118.0, "tiny": 145.0}
"""Letters in the text width of a page with usual margins (16 to 17 cm), by size of the font in a document of 10 pt."""
LINE = FONTS["small"]
LONG = 40
"""Lines beyond which a table runs over pages."""
SEPARATION = 3.0
"""Points on either side of a column."""
BREAK_FROM = 12
"""Letters of a word after which a line may end within it."""

PREAMBLE = r"\usepackage{array,booktabs,longtable}"

_SYMBOLS = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    "[": "{[}", "]": "{]}", "*": "{*}", '"': "''", "-": "-{}", "`": r"\textasciigrave{}",
    "\N{MINUS SIGN}": "$-$", "×": r"$\times$", "÷": r"$\div$", "±": r"$\pm$", "·": r"$\cdot$", "≤": r"$\leq$",
    "≥": r"$\geq$", "≠": r"$\neq$", "≈": r"$\approx$", "∞": r"$\infty$", "√": r"$\surd$", "°": r"$^\circ$",
    "²": "$^2$", "³": "$^3$", "¹": "$^1$", "→": r"$\rightarrow$", "←": r"$\leftarrow$", "↑": r"$\uparrow$",
    "↓": r"$\downarrow$", "•": r"$\bullet$", "∆": r"$\Delta$", "–": "--", "—": "---", "…": r"\ldots{}", "‘": "`", "’": "'",
    "“": "``", "”": "''", "„": ",,", "«": "``", "»": "''", "\N{NO-BREAK SPACE}": "~", "\N{NARROW NO-BREAK SPACE}": "~",
    "\N{NON-BREAKING HYPHEN}": "-{}", "\N{SOFT HYPHEN}": "", "½": "1/2", "¼": "1/4", "¾": "3/4", "§": r"\S{}", "¶": r"\P{}",
    "©": r"\copyright{}", "£": r"\pounds{}", "¡": "!`", "¿": "?`",
}  # fmt: skip
_GREEK = dict(zip("αβγδεζηθικλμνξπρστυφχψωΓΔΘΛΞΠΣΦΨΩ", ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu", "xi", "pi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega", "Gamma", "Delta", "Theta", "Lambda", "Xi", "Pi", "Sigma", "Phi", "Psi", "Omega"], strict=True))  # fmt: skip
_SYMBOLS |= {letter: rf"$\{name}$" for letter, name in _GREEK.items()} | {
    "µ": r"$\mu$",
    "ο": "o",
    "ς": r"$\varsigma$",
}
_ACCENTS = {
    "\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u", "\u0307": ".",
    "\u0308": '"', "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0327": "c", "\u0323": "d", "\u0331": "b",
}  # fmt: skip
_LETTERS = {"ß": r"\ss{}", "æ": r"\ae{}", "Æ": r"\AE{}", "œ": r"\oe{}", "Œ": r"\OE{}", "ø": r"\o{}", "Ø": r"\O{}",
            "ł": r"\l{}", "Ł": r"\L{}", "å": r"\aa{}", "Å": r"\AA{}", "ı": r"\i{}"}  # fmt: skip


def escape(text: str) -> str:
    """For running text of any font encoding; a character that has no letter in LaTeX is told by its number."""
    return "".join(_escaped(character) for character in unicodedata.normalize("NFC", text))


def _escaped(character: str) -> str:
    if character in _SYMBOLS:
        return _SYMBOLS[character]
    if character in _LETTERS:
        return _LETTERS[character]
    if " " <= character <= "\x7e":
        return character
    if unicodedata.category(character) in {"Cc", "Cf", "Zs", "Zl", "Zp"}:
        return " " if character.isspace() else ""
    base, *marks = list(unicodedata.normalize("NFD", character))
    if base.isascii() and len(marks) == 1:
        inner = {"i": r"\i", "j": r"\j"}.get(base, base) if marks[0] not in "\u0327\u0323\u0331" else base
        return rf"\{_ACCENTS[marks[0]]}{{{inner}}}" if marks[0] in _ACCENTS else base
    return f"{{[}}U+{ord(character):04X}{{]}}"


def tabular(table: Table) -> str:
    r"""A `tabular` of booktabs for a table environment, or from `LONG` rows a `longtable`, which stands by itself."""
    columns, rows = _narrower(table.columns, table.rows)
    font, widths = _layout(columns, rows)
    long = _lines(columns, rows, widths) > LONG
    environment = "longtable" if long else "tabular"
    head = _row([column.title for column in columns], wrapped=widths is not None)
    lines = [
        f"% {_comment(table.title)}: needs {PREAMBLE}",
        rf"\begingroup\{font}\setlength{{\tabcolsep}}{{{SEPARATION:g}pt}}%",
        rf"\begin{{{environment}}}{{{_alignment(columns, widths)}}}",
        r"\toprule",
        head,
        r"\midrule",
    ]
    lines += [r"\endhead", r"\bottomrule", r"\endlastfoot"] if long else []
    lines += [_row(row, wrapped=widths is not None) for row in rows]
    lines += [] if long else [r"\bottomrule"]
    return "\n".join([*lines, rf"\end{{{environment}}}%", r"\endgroup", ""])


Rows = Sequence[Sequence[str]]


def _comment(text: str) -> str:
    return "".join(character for character in text if character.isprintable())


def _narrower(columns: Sequence[Column], rows: Rows) -> tuple[Sequence[Column], Rows]:
    """Few rows of many numbers stand on their side where the table would be wider than the page."""
    natural = sum(_natural(columns, rows))
    numbers = all(column.kind == "number" for column in columns[1:])
    turned = [list(line) for line in zip(*([column.title for column in columns], *rows), strict=True)]
    heads = [Column(turned[0][0]), *(Column(title, "number") for title in turned[0][1:])]
    if natural > LINE and numbers and sum(_least(heads, turned[1:])) < sum(_least(columns, rows)):
        return heads, turned[1:]
    return columns, rows


def _natural(columns: Sequence[Column], rows: Rows) -> list[float]:
    return [max(map(_length, texts)) + 1 for texts in _by_column(columns, rows)]


def _least(columns: Sequence[Column], rows: Rows) -> list[float]:
    return [
        max(_length(piece) for text in texts for piece in _pieces(text)) + 2
        for texts in _by_column(columns, rows)
    ]


def _length(text: str) -> float:
    """In letters of usual width."""
    return sum(1.45 if letter.isupper() or letter in "mw%@" or letter > "\u2e80" else 1.0 for letter in text)


def _by_column(columns: Sequence[Column], rows: Rows) -> list[list[str]]:
    return [[column.title, *(row[place] for row in rows)] for place, column in enumerate(columns)]


def _layout(columns: Sequence[Column], rows: Rows) -> tuple[str, list[float] | None]:
    """Size of the font, and shares of the line by column where cells must be broken; None where all fit as they are.

    Each column gets what its longest piece needs that cannot be broken, and of the rest by the root of its longest text.
    """
    natural = _natural(columns, rows)
    if sum(natural) <= LINE:
        return "small", None
    least = _least(columns, rows)
    font, letters = next(
        ((font, letters) for font, letters in FONTS.items() if sum(least) <= letters), list(FONTS.items())[-1]
    )
    room = max(0.0, letters - sum(least))
    wish = [math.sqrt(max(0.0, most - low)) + 1e-9 for most, low in zip(natural, least, strict=True)]
    given = [low + room * one / sum(wish) for low, one in zip(least, wish, strict=True)]
    return font, [one / sum(given) for one in given]


def _lines(columns: Sequence[Column], rows: Rows, widths: list[float] | None) -> int:
    """About how many lines the rows take."""
    if widths is None:
        return len(rows)
    return sum(
        max(math.ceil(1.3 * _length(text) / (LINE * width)) for text, width in zip(row, widths, strict=True))
        or 1
        for row in rows
    )


def _alignment(columns: Sequence[Column], widths: list[float] | None) -> str:
    if widths is None:
        return "".join("r" if column.kind == "number" else "l" for column in columns)
    return "".join(
        rf">{{\{'raggedleft' if column.kind == 'number' else 'raggedright'}\arraybackslash}}"
        rf"p{{\dimexpr {width:.4f}\linewidth-{2 * SEPARATION:g}pt\relax}}"
        for column, width in zip(columns, widths, strict=True)
    )


def _pieces(text: str) -> list[str]:
    """What a line cannot end in: words, and long words cut after punctuation or else every so many letters."""
    found = []
    for word in text.split():
        if len(word) <= BREAK_FROM:
            found.append(word)
            continue
        for piece in re.split(r"(?<=[/._:,;@=+-])", word):
            found += [piece[at : at + BREAK_FROM] for at in range(0, len(piece), BREAK_FROM)]
    return found or [""]


def _row(cells: Sequence[str], *, wrapped: bool) -> str:
    return " & ".join(_cell(cell) if wrapped else escape(cell) for cell in cells) + r" \\"


def _cell(text: str) -> str:
    r"""With a place for a line's end within long words; `\hspace{0pt}` lets the first word be hyphenated."""
    pieces = _pieces(text)
    found = [escape(pieces[0])]
    position = len(pieces[0])
    flat = " ".join(text.split())
    for _, piece in pairwise(pieces):
        space = flat[position : position + 1] == " "
        position += len(piece) + space
        found.append((" " if space else r"\allowbreak{}") + escape(piece))
    return "".join(found)


def document(
    title: str, headline: str, tables: Sequence[Table], figures: Sequence[tuple[str, str, str]]
) -> str:
    """A document with everything in it, to compile beside `tables` and `figures`, and to copy from.

    figures: name, title, caption.
    """
    lines = [
        r"\documentclass[10pt,a4paper]{article}",
        r"\usepackage[margin=2.2cm]{geometry}",
        rf"{PREAMBLE}",
        r"\usepackage{graphicx}",
        r"\setlength{\emergencystretch}{3em}",
        r"\begin{document}",
        rf"\section*{{{escape(title)}}}",
        escape(headline),
        "",
        r"\input{methods}",
    ]
    for table in tables:
        lines += ["", rf"\subsection*{{{escape(table.title)}}}", rf"\noindent\input{{tables/{table.name}}}"]
    for name, heading, caption in figures:
        lines += [
            "",
            r"\begin{center}",
            rf"\includegraphics{{figures/{name}.pdf}}\\",
            rf"\parbox{{0.8\linewidth}}{{\small\textbf{{{escape(heading)}.}} {escape(caption)}}}",
            r"\end{center}",
        ]
    return "\n".join([*lines, r"\end{document}", ""])
