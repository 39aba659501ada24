"""Between the flow process and a dbt that is a program of its own: its lines, scrubbed and kept, and its end.

Run as a file with `python -I -S` by `process.DbtProcess`, so it imports nothing of this project and little of Python.
"""

import base64
import contextlib
import fnmatch
import json
import os
import select
import signal
import sys
import time
from collections.abc import Iterable
from types import FrameType
from urllib.parse import quote, quote_plus

# As in child.py, which does the same from within dbt 1.
EVENTS_VARIABLE = "TRIBUTARY_EVENTS_FILE"
STOP_SECONDS = 20.0
IN_DOUBT = "ResultInDoubt"
# The folders that dbt writes logs and artifacts to; what a driver said of a secret may stand in them.
WRITTEN_VARIABLE = "TRIBUTARY_DBT_WRITES"

_SECRET = "DBT_ENV_SECRET_"
_BLANK = b"*****"
_DEBUG = b'"level":"debug"'
# A part of a secret is one when it is half of it and as long as this: shorter ones are everyday words.
_LEAST_PART = 12
# What may hold a driver's words; a log is also kept as dbt.log.1, and dbt 2 writes every statement to query_log.sql,
# whatever it is told about logs, and what an OpenTelemetry collector would get where DBT_OTEL_FILE_NAME says so.
_WRITTEN = ("run_results.json", "sources.json", "dbt.log*", "query_log.sql", "*.jsonl", "*.otel")
# These would leave the machine, or be written in a form in which a secret is not found.
_NOT_GIVEN = ("DBT_EXPORT_TO_OTLP", "DBT_OTEL_PARQUET_FILE_NAME")


class Scrubber:
    """Blanks secrets out, also where a driver encoded them or cut them off."""

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = {form for secret in secrets if secret.strip() for form in _forms(secret)}
        self._forms = sorted(forms, key=len, reverse=True)
        self._parts = [form for form in self._forms if len(form) // 2 >= _LEAST_PART]

    def __bool__(self) -> bool:
        """Say whether there is any secret."""
        return bool(self._forms)

    def __call__(self, text: bytes) -> bytes:
        """Return a text without any secret."""
        for form in self._forms:
            text = text.replace(form, _BLANK)
        for form in self._parts:
            text = _without_part(text, form)
        return text


def _forms(secret: str) -> set[bytes]:
    """Return a secret as drivers, logs and addresses write it."""
    # An error shows a key of many lines line by line; the first and last are the same in every key.
    lines = [line for line in secret.splitlines() if len(line) >= _LEAST_PART and not line.startswith("-----")]
    plain = {secret, *lines}
    escaped = {json.dumps(text, ensure_ascii=ascii)[1:-1] for text in plain for ascii in (True, False)}
    # JSON in a line of JSON.
    escaped |= {json.dumps(text)[1:-1] for text in escaped}
    quoted = {how(text, safe=safe) for text in plain for how in (quote, quote_plus) for safe in ("", "/")}
    forms = {text.encode() for text in (*plain, *escaped, *quoted) if text}
    for text in plain:
        forms |= _in_base64(text.encode())
    return forms


def _in_base64(secret: bytes) -> set[bytes]:
    """Return what base64 makes of a secret wherever it begins in a longer text, such as `user:password`."""
    forms: set[bytes] = set()
    for before in range(3):
        whole = base64.b64encode(bytes(before) + secret)
        # The letters that its neighbours have a share in are left out.
        first, last = (before * 8 + 5) // 6, (before + len(secret)) * 8 // 6
        middle = whole[first:last]
        if len(middle) >= _LEAST_PART:
            forms |= {middle, middle.translate(bytes.maketrans(b"+/", b"-_"))}
    return forms


def _without_part(text: bytes, form: bytes) -> bytes:
    """Blank out what is left of a secret that was cut at its end or its beginning."""
    least = (len(form) + 1) // 2
    for head, step in ((form[:least], 1), (form[-least:], -1)):
        found = text.find(head)
        while found >= 0:
            start, end = found, found + least
            rest = form[least:] if step > 0 else form[:-least][::-1]
            for letter in rest:
                place = end if step > 0 else start - 1
                if not 0 <= place < len(text) or text[place] != letter:
                    break
                start, end = (start, end + 1) if step > 0 else (start - 1, end)
            text = text[:start] + _BLANK + text[end:]
            found = text.find(head, start + len(_BLANK))
    return text


def scrubbed_environment(environment: dict[str, str]) -> tuple[Scrubber, list[str]]:
    """Return what blanks out the secrets of an environment, and the folders in whose files it has to.

    What only the scrubbing needs, and what would get round it, is taken from the environment.
    """
    folders = [name for name in environment.pop(WRITTEN_VARIABLE, "").split(os.pathsep) if name]
    for name in _NOT_GIVEN:
        environment.pop(name, None)
    return Scrubber(value for name, value in environment.items() if name.startswith(_SECRET)), folders


def scrub_files(folders: Iterable[str], scrub: Scrubber) -> None:
    """Blank secrets out of the logs and artifacts that dbt left in these folders."""
    for folder in folders if scrub else ():
        with contextlib.suppress(OSError):
            for name in os.listdir(folder):
                if any(fnmatch.fnmatch(name, pattern) for pattern in _WRITTEN):
                    _scrub_file(os.path.join(folder, name), scrub)


def _scrub_file(path: str, scrub: Scrubber) -> None:
    with contextlib.suppress(OSError):
        with open(path, "rb") as file:
            text = file.read()
        if (scrubbed := scrub(text)) != text:
            with open(path, "wb") as file:
                file.write(scrubbed)


class Relay:
    """Starts a program, hands its lines on and ends it with the flow process."""

    def __init__(self, argv: list[str], environment: dict[str, str]) -> None:
        file = environment.pop(EVENTS_VARIABLE, None)
        self._scrub, self._folders = scrubbed_environment(environment)
        self._files = [sys.stdout.fileno()]
        if file:
            os.makedirs(os.path.dirname(file), exist_ok=True)
            self._files.insert(0, os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600))
        self._is_asked = False
        # The whole group is sent it, so dbt has it already.
        signal.signal(signal.SIGINT, self._take_note)
        self._lines, theirs = os.pipe()
        nothing = os.open(os.devnull, os.O_RDONLY)
        self._dbt = os.posix_spawn(
            argv[0],
            argv,
            environment,
            file_actions=[(os.POSIX_SPAWN_DUP2, nothing, 0), *((os.POSIX_SPAWN_DUP2, theirs, out) for out in (1, 2))],
            setsigdef=[signal.SIGINT, signal.SIGPIPE],
        )
        os.close(theirs)

    def run(self) -> int:
        """Hand on what the program says until it has ended; return its exit code, negative for a signal."""
        waiting = select.poll()
        for end in (self._lines, sys.stdin.fileno()):
            waiting.register(end, select.POLLIN | select.POLLHUP)
        rest = b""
        patience: float | None = None
        while True:
            left = None if patience is None else max(0.0, patience - time.monotonic()) * 1000
            ready = dict(waiting.poll(left))
            if patience is not None and time.monotonic() >= patience:
                os.killpg(os.getpgrp(), signal.SIGKILL)
            if sys.stdin.fileno() in ready:
                # The flow process never writes to it: it is gone, and can't have dbt cancel its queries any more.
                waiting.unregister(sys.stdin.fileno())
                patience = time.monotonic() + STOP_SECONDS
                if not self._is_asked:
                    self._is_asked = True
                    os.kill(self._dbt, signal.SIGINT)
            if self._lines in ready:
                part = os.read(self._lines, 1 << 16)
                *whole, rest = (rest + part).split(b"\n")
                self._hand_on(whole if part else [rest])
                if not part:
                    break
        _, status = os.waitpid(self._dbt, 0)
        scrub_files(self._folders, self._scrub)
        return os.waitstatus_to_exitcode(status)

    def _take_note(self, number: int, frame: FrameType | None) -> None:
        self._is_asked = True

    def _hand_on(self, lines: list[bytes]) -> None:
        if self._is_asked:
            lines = [_in_doubt(line) for line in lines]
        shown = [line for line in lines if line and _DEBUG not in line]
        if shown:
            text = self._scrub(b"\n".join(shown) + b"\n")
            for file in self._files:
                # A full disk or a flow process that is gone is no reason for dbt to fail in the middle of a node.
                with contextlib.suppress(OSError):
                    _write_all(file, text)


def _in_doubt(line: bytes) -> bytes:
    """Return a line that says of a node that it is done, as one that ends none.

    An interrupted dbt closes its connections while threads of it may still work: their commits do nothing, and it
    calls the nodes done. From here, that moment can't be told from those before it.
    """
    if b'"node_status"' not in line:
        return line
    try:
        document = json.loads(line)
        if document["data"]["node_info"]["node_status"] not in ("started", "skipped"):
            document["info"]["name"] = IN_DOUBT
        return json.dumps(document).encode()
    except (ValueError, KeyError, TypeError):
        return line


def _write_all(file: int, text: bytes) -> None:
    while text:
        text = text[os.write(file, text) :]


def main() -> None:
    """Run the program that is named, and end as it does."""
    # Artifacts and logs hold SQL and error texts, and DuckDB's file the data itself.
    os.umask(0o077)
    argv = sys.argv[1:]
    try:
        relay = Relay(argv, dict(os.environ))
    except OSError as exc:
        os.write(1, f"dbt could not be started: {argv[0]}: {exc.strerror}\n".encode())
        os._exit(2)
    code = relay.run()
    if code < 0:
        # SIGKILL is as it is.
        with contextlib.suppress(OSError):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    main()
