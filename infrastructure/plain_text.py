"""Make text from outside safe for a terminal, a log line, Markdown, Slack or HTML: pure functions.

A database's error, a test's name or a server's answer is text: it never moves a cursor, names a window, becomes a link
or a picture, and never fills a screen. Code that shows text calls one of these functions; `tests/test_printers.py`
finds code that does not.
"""

from __future__ import annotations

import re
from html import escape

# What a terminal obeys: strings with an end of their own (titles, links), then sequences, then what is left of them.
_SEQUENCES = re.compile(
    r"(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x90\x98\x9c-\x9f\n]*(?:\x07|\x1b\\|\x9c)"
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|\x1b[ -/]*[0-~]"
)
_LINE_ENDS = re.compile("\r\n|[\r\x85\u2028\u2029\x0b\x0c]")
# Controls, what changes the direction of the text around it, and what can't be seen. Joiners stay: scripts need them.
_UNSEEN = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_SURROGATES = re.compile("[\ud800-\udfff]")
# Markup within a line, the beginnings of links that need no brackets, and what makes a line something else.
_MARKUP = re.compile(
    r"([\\`*\[\]<>|~&@]|(?<!\w)_|_(?!\w)|(?<=www)\.|:(?=//)|^[-+#=](?=[-+#=\s])|^\d+(?=[.)](?:\s|$)))", re.IGNORECASE
)
# Lines that dbt adds around a database's message, and that repeat what is shown elsewhere.
_HEADS = re.compile(
    r"unhandled error while executing\b.*|\S+\.on-run-(?:start|end)\.\d+ failed, error:"
    r"|(?:\w+ )*error in \w+ .*\(.+\)|exception on worker thread\. (?P<rest>.*)",
    re.IGNORECASE,
)
_TAILS = re.compile(r"compiled (?:code|sql) at |> (?:in|called by) (?:macro|model|test|snapshot|seed) ", re.IGNORECASE)
_KINDS = re.compile(r"(?:(?:Runtime|Database) Error|dbt1\d{3}:)\s*", re.IGNORECASE)


def plain(text: str) -> str:
    """Return a text without control sequences and invisible characters; lines and tabs stay."""
    if text.isascii() and text.isprintable():
        return text
    text = _LINE_ENDS.sub("\n", _SEQUENCES.sub("", text))
    return _SURROGATES.sub("\N{REPLACEMENT CHARACTER}", _UNSEEN.sub("", text))


def cut(text: str, limit: int, where: str = "") -> str:
    """Return the beginning of a text that is too long, with its length and where the whole of it is.

    Args:
        where: such as "run.log"; no place is named when empty.
    """
    if len(text) <= limit:
        return text
    return f"{text[:limit].rstrip()}… ({count_of(len(text), 'character')}{f', in {where}' if where else ''})"


def one_line(text: str, limit: int = 300) -> str:
    """Return a text on one line, shortened for a sentence."""
    joined = " ".join(plain(text).split())
    return joined if len(joined) <= limit else f"{joined[: limit - 1]}…"


def lines_of(text: str, most: int, width: int = 500, where: str = "") -> list[str]:
    """Return the first lines of a text, each cut to a width, and a last one that says how many more there are."""
    found = plain(text).strip("\n").splitlines()
    shown = [cut(line.expandtabs(4).rstrip(), width, where) for line in found[:most]]
    if more := len(found) - most:
        shown += [f"… ({more:,} more lines{f', in {where}' if where else ''})"] if more > 0 else []
    return shown


def log_line(text: str, width: int = 4000, most: int = 60) -> str:
    """Return a text for a log that is read line by line: no line after the first looks like one of another's."""
    return "\n    ".join(lines_of(text, most, width, "run.log"))


def sentence(message: str, limit: int = 600) -> str:
    """Return a failure's message on one line, without the lines that dbt adds around it."""
    return one_line(" ".join(said_lines(message)), limit)


def said_lines(message: str) -> list[str]:
    """Return the lines of a failure's message without those that dbt adds around it."""
    kept: list[str] = []
    for line in plain(message).splitlines():
        head = _HEADS.fullmatch(line.strip())
        rest = _KINDS.sub("", (head["rest"] or "") if head else line, count=1) if not kept else line
        if rest.strip() and not _TAILS.match(line.strip()):
            kept.append(rest)
    return kept or plain(message).split("\n")


def markdown_code(text: str, limit: int = 2000) -> str:
    """Return a text as code within a line of Markdown: nothing in it is markup."""
    shown = one_line(text, limit) or " "
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    pad = " " if "`" in shown else ""
    return f"{fence}{pad}{shown}{pad}{fence}"


def markdown_cell(text: str, limit: int = 2000) -> str:
    """Return a text as code within a cell of a table in Markdown."""
    return markdown_code(text, limit).replace("|", "\\|") if text.strip() else ""


def markdown_block(text: str, most: int = 20, width: int = 500, where: str = "", indent: str = "") -> str:
    """Return a text of several lines as a block of code in Markdown."""
    shown = lines_of(text, most, width, where) or [""]
    fence = "`" * max(3, 1 + max(len(run) for run in ["", *re.findall("`+", "\n".join(shown))]))
    return "\n".join(f"{indent}{line}" for line in [f"{fence}text", *shown, fence])


def markdown_text(text: str, limit: int = 2000) -> str:
    """Return a text as words within a line of Markdown, with everything in it that is markup taken literally."""
    return _MARKUP.sub(lambda found: _literal(found[0]), one_line(text, limit))


def _literal(markup: str) -> str:
    # A backslash takes the meaning from punctuation only.
    return f"{markup}\N{ZERO WIDTH SPACE}" if markup.isdigit() else f"\\{markup}"


def slack_text(text: str) -> str:
    """Return a text in which Slack finds no link, no mention and no command."""
    return plain(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def html_text(text: str) -> str:
    """Return a text for HTML, for an element or for a quoted attribute."""
    return escape(plain(text), quote=True)


def json_text(document: str) -> str:
    """Return a JSON document of the same value that is safe to show: control characters are escaped as \\u…."""
    return re.sub(
        "[\x7f-\x9f\u061c\u2028\u2029\u202a-\u202e\u2066-\u2069]", lambda found: f"\\u{ord(found[0]):04x}", document
    )


def cut_middle(text: str, width: int) -> str:
    """Return a text of at most so many characters: its middle, where names are most alike, becomes "…"."""
    if len(text) <= width:
        return text
    head = width // 2
    tail = width - head - 1
    return f"{text[:head]}…{text[len(text) - tail :]}" if width > 2 else text[:width]


def count_of(count: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun, such as "1 node" and "2,000 nodes"."""
    if count == 1:
        return f"1 {noun}"
    return f"{count:,} {plural or plural_of(noun)}"


def are(count: int) -> str:
    """Return the verb of so many."""
    return "is" if count == 1 else "are"


def all_of(count: int, noun: str) -> str:
    """Return "all 3 sources are", or "the one source is", for a sentence to go on."""
    return f"the one {noun} is" if count == 1 else f"all {count_of(count, noun)} are"


def plural_of(noun: str) -> str:
    """Return the plural of an English noun that has a regular one."""
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}es" if noun.endswith(("s", "x", "ch", "sh")) else f"{noun}s"
