"""A notice as a Slack message in Block Kit, within Slack's limits at any size: pure functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from flows.alerts.incident import SEVERITIES, Incident, OpenIncident
from flows.alerts.incident_store import Notice
from flows.engine.artifacts.results import FailingRows
from infrastructure.plain_text import count_of, plain, slack_text

# Slack's reference: a header has 150 characters, a section 3,000, a button's URL 3,000, a message 50 blocks. Messages
# of some 13,000 characters in all have been refused as well (slackapi/bolt-js issue 2509).
HEADER_LIMIT = 150
SECTION_LIMIT = 3000
URL_LIMIT = 3000
BLOCK_LIMIT = 50
MESSAGE_LIMIT = 9500

# The first error is sent in full up to this; the run, which the message names, has the rest in its log.
_ERROR_LIMIT = 5400
# The next ones are sent in part, and all others in a line each.
_DETAILED = 3
_NEXT_ERROR_LIMIT = 400
_LINE_LIMIT = 260
_RECOVERED_SHOWN = 10
_OWNERS_SHOWN = 10
_SIGNS = {"critical": "🔴", "error": "🔴", "warning": "🟡", "info": "🔵"}

Mention = Callable[[str], str]


def slack_message(notice: Notice, mention: Mention, now: datetime) -> dict[str, Any]:
    """Build the message of a notice.

    Args:
        mention: an owner's name → the text that notifies them, or the name itself.
    """
    message = _Message()
    message.header(_headline(notice))
    message.section(_summary(notice, mention))
    opened = _worst_first(notice.open)
    # Room for what must not be cut off: the command and the link.
    tail = _tail(notice, opened)
    message.reserve(tail)
    for number, entry in enumerate(opened[:_DETAILED]):
        _detail(message, entry, _ERROR_LIMIT if number == 0 else _NEXT_ERROR_LIMIT)
    if others := opened[_DETAILED:]:
        message.lines("*Also*", [_line(entry) for entry in others])
    if notice.recovered:
        message.lines("*Recovered*", [_recovered_line(entry, now) for entry in notice.recovered], _RECOVERED_SHOWN)
    message.append(tail)
    return {"text": slack_text(_headline(notice)), "blocks": message.blocks}


def digest_message(target: str, warnings: Sequence[OpenIncident]) -> dict[str, Any]:
    """Build the list of the warnings that are neither new nor growing."""
    message = _Message()
    headline = f"🟡 {_place(target)}{count_of(len(warnings), 'warning')} as before"
    message.header(headline)
    message.section("These tests still warn as before. A warning is sent again only when its number of rows grows.")
    ordered = sorted(warnings, key=lambda entry: entry.opened_at)
    message.lines("*Longest first*", [f"{_line(entry)}, since {_date(entry.opened_at)}" for entry in ordered])
    return {"text": slack_text(headline), "blocks": message.blocks}


class _Message:
    """Blocks within Slack's limits for one message."""

    def __init__(self) -> None:
        self.blocks: list[dict[str, Any]] = []
        self._left = MESSAGE_LIMIT
        self._blocks_left = BLOCK_LIMIT

    def header(self, text: str) -> None:
        cut = _cut(plain(text), HEADER_LIMIT)
        self.append([{"type": "header", "text": {"type": "plain_text", "text": cut, "emoji": True}}])
        self._left -= len(cut)
        self._blocks_left -= 1

    def section(self, text: str) -> bool:
        """Add a section; return False where there is no room for it."""
        if len(text) > min(self._left, SECTION_LIMIT) or not self._blocks_left:
            return False
        self.append([_section(text)])
        self._left -= len(text)
        self._blocks_left -= 1
        return True

    def append(self, blocks: Iterable[dict[str, Any]]) -> None:
        """Add blocks whose room is reserved."""
        self.blocks += blocks

    def reserve(self, blocks: Sequence[dict[str, Any]]) -> None:
        """Keep room for blocks that come last."""
        self._left -= sum(len(block["text"]["text"]) for block in blocks if "text" in block)
        self._blocks_left -= len(blocks)

    def lines(self, title: str, lines: Sequence[str], limit: int | None = None) -> None:
        """Add as many lines as there is room for, and say how many more there are."""
        left = list(lines[:limit] if limit else lines)
        text, shown = title, 0
        # Two sections of lines are as much as a person reads; the rest is a number.
        room = min(self._left, 2 * SECTION_LIMIT) - 100
        for line in left:
            if len(line) + 3 > room:
                break
            if len(text) + len(line) + 3 > SECTION_LIMIT - 60:
                if not self.section(text):
                    break
                text = ""
            text += f"\n• {line}"
            room -= len(line) + 3
            shown += 1
        if more := len(lines) - shown:
            text += f"\nand {more:,} more"
        self.section(text.strip("\n"))


def _headline(notice: Notice) -> str:
    place = _place(notice.target)
    opened = _worst_first(notice.open)
    if not opened:
        if len(notice.recovered) == 1:
            return f"🟢 {place}recovered: {notice.recovered[0].incident.title}"
        return f"🟢 {place}{len(notice.recovered):,} recovered"
    worst = opened[0]
    said = "" if worst in notice.new else "changed: " if worst in notice.changed else "still open: "
    more = f", and {len(opened) - 1:,} more" if len(opened) > 1 else ""
    title = _cut(worst.incident.title, HEADER_LIMIT - len(place) - len(said) - len(more) - 2)
    return f"{_SIGNS[worst.incident.severity]} {place}{said}{title}{more}"


def _summary(notice: Notice, mention: Mention) -> str:
    counts = (
        (len(notice.new), "new"),
        (len(notice.changed), "changed"),
        (len(notice.still), "still open"),
        (len(notice.quiet), "open as before"),
        (len(notice.recovered), "recovered"),
    )
    text = " · ".join(f"*{count:,}* {word}" for count, word in counts if count)
    if owners := list(dict.fromkeys(owner for entry in notice.open for owner in entry.incident.owners)):
        named = ", ".join(_mentioned(owner, mention) for owner in owners[:_OWNERS_SHOWN])
        more = f" and {len(owners) - _OWNERS_SHOWN} more" if len(owners) > _OWNERS_SHOWN else ""
        text += f"\nFor {named}{more}"
    return _cut(text, SECTION_LIMIT)


def _detail(message: _Message, entry: OpenIncident, error_limit: int) -> None:
    incident = entry.incident
    about = [f"*{slack_text(_cut(incident.title, 300))}*", incident.severity, f"since {_date(entry.opened_at)}"]
    text = " · ".join(about)
    if incident.affects:
        shown = ", ".join(slack_text(_cut(name, 80)) for name in incident.affects[:5])
        more = f" and {len(incident.affects) - 5} more" if len(incident.affects) > 5 else ""
        text += f"\nRead by {shown}{more}"
    message.section(text)
    for part in _code_sections(incident.text, error_limit):
        message.section(part)
    if incident.failing_rows:
        message.section(_rows(incident, incident.failing_rows))
    if incident.note:
        message.section(_cut(slack_text(incident.note), 500))


def _code_sections(text: str, limit: int) -> list[str]:
    """Return a text as code, in as many sections as it takes up to a limit."""
    left = slack_text(_cut(text.strip().replace("```", "'''"), limit))
    sections: list[str] = []
    while left:
        size = SECTION_LIMIT - 10
        if len(left) > size:
            # Not in the middle of a line, nor of an entity such as &lt;
            cut = left.rfind("\n", size // 2, size)
            size = cut if cut > 0 else _before_entity(left, size)
        sections.append(f"```{left[:size]}```")
        left = left[size:].lstrip("\n")
    return sections


def _before_entity(text: str, size: int) -> int:
    start = text.rfind("&", size - 5, size)
    return start if start >= 0 and text.find(";", start) >= size else size


def _rows(incident: Incident, found: FailingRows) -> str:
    shown = [list(found.columns), *(list(row) for row in found.rows)]
    cells = [[_cut(" ".join(value.split()), 40) for value in row] for row in shown]
    widths = [max(len(row[column]) for row in cells) for column in range(len(found.columns))]
    lines = [
        "  ".join(value.ljust(width) for value, width in zip(row, widths, strict=True)).rstrip()[:400] for row in cells
    ]
    total = f" of {incident.count:,}" if incident.count is not None and incident.count > len(found.rows) else ""
    head = f"Rows that it found ({len(found.rows)}{total})"
    table = slack_text("\n".join(lines).replace("```", "'''"))
    return f"{head}\n```{table[: _before_entity(table, SECTION_LIMIT - 100)]}```"


def _line(entry: OpenIncident) -> str:
    incident = entry.incident
    owners = f" ({', '.join(incident.owners[:2])})" if incident.owners else ""
    first = next((line.strip() for line in incident.text.splitlines() if line.strip()), "")
    said = f": {_cut(' '.join(first.split()), 120)}" if first else ""
    critical = "critical, " if incident.severity == "critical" else ""
    return slack_text(_cut(f"{critical}{_cut(incident.title, 100)}{said}{owners}", _LINE_LIMIT))


def _recovered_line(entry: OpenIncident, now: datetime) -> str:
    closed = datetime.fromisoformat(entry.closed_at) if entry.closed_at else now
    lasted = _lasted(closed - datetime.fromisoformat(entry.opened_at))
    return f"{slack_text(_cut(entry.incident.title, 150))}, after {lasted}"


def _tail(notice: Notice, opened: Sequence[OpenIncident]) -> list[dict[str, Any]]:
    """Return the last blocks of a message: the command that runs it again, and the link to the run."""
    blocks: list[dict[str, Any]] = []
    shown = [entry.incident for entry in (*opened, *notice.recovered)]
    if opened:
        commands = list(dict.fromkeys(incident.retry_command for incident in shown if incident.retry_command))[:2]
        if commands:
            code = slack_text("\n".join(_cut(command, 800) for command in commands).replace("```", "'''"))
            blocks.append(_section(f"Once it is fixed\n```{code}```"))
    link = next((incident.link for incident in shown if _is_link(incident.link)), None)
    if link:
        button = {"type": "button", "text": {"type": "plain_text", "text": "Open the run"}, "url": link}
        blocks.append({"type": "actions", "elements": [button]})
    return blocks


def _is_link(link: str | None) -> bool:
    return link is not None and link.startswith(("http://", "https://")) and len(link) <= URL_LIMIT


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}}


def _worst_first(entries: Sequence[OpenIncident]) -> list[OpenIncident]:
    return sorted(entries, key=lambda entry: SEVERITIES.index(entry.incident.severity))


def _mentioned(owner: str, mention: Mention) -> str:
    text = mention(owner)
    # Text without a mention is a name from YAML, which is escaped.
    return slack_text(_cut(owner, 80)) if text == owner else text


def _place(target: str) -> str:
    return f"{_cut(target, 40)}: " if target else ""


def _date(at: str) -> str:
    """Return a time that Slack shows in each reader's time zone."""
    moment = datetime.fromisoformat(at)
    return f"<!date^{int(moment.timestamp())}^{{date_short_pretty}} {{time}}|{moment:%Y-%m-%d %H:%M} UTC>"


def _lasted(span: timedelta) -> str:
    minutes = max(1, round(span.total_seconds() / 60))
    if minutes < 120:
        return count_of(minutes, "minute")
    return count_of(round(minutes / 60), "hour") if minutes < 48 * 60 else count_of(round(minutes / 1440), "day")


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
