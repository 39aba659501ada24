"""Write the files that payroll imports: CSV and Parquet of one concert's payments, with their SHA-256."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import orjson

from flows.runbook.payroll.payments import Payment, Payments
from flows.runbook.payroll.signoff import Signature
from infrastructure.errors import ConfigError, PayrollStopped
from infrastructure.private_files import private_folder

# The columns of the file: name, what it holds, and its type in Parquet.
COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("full_name", "full_name", "varchar"),
    ("email", "email", "varchar"),
    ("concert", "concert", "varchar"),
    ("concert_date", "concert_date", "date"),
    ("pay_type", "pay_type", "varchar"),
    ("net_amount", "net_amount", "decimal(18,2)"),
    ("calculated_at", "calculated_at", "timestamp"),
)
MANIFEST, SUMS = "manifest.json", "SHA256SUMS"


@dataclass(frozen=True)
class Export:
    """A folder of files that payroll can import.

    Attributes:
        sha256: by file name.
    """

    folder: Path
    sha256: Mapping[str, str]


def write_export(root: Path, payments: Payments, signatures: Sequence[Signature], flow_run_id: str) -> Export:
    """Write the files of a concert into a new folder, whole or not at all.

    The same data on the same day gives the existing folder, if its files are unchanged; existing files are never
    overwritten.

    Raises:
        ConfigError: the folder can't be written.
        PayrollStopped: the files differ from what was signed.
    """
    name = f"concert-{payments.concert_id}-{datetime.now(UTC):%Y%m%d}-{payments.checksum[:8]}"
    draft = root / f".draft-{uuid4().hex}"
    try:
        private_folder(root)
        for number in range(1, 1000):
            folder = root / (name if number == 1 else f"{name}-{number}")
            if folder.exists():
                if not changed_files(folder, payments.checksum):
                    return _export(folder)
                continue
            if not draft.exists():
                _write(draft, payments, signatures, flow_run_id)
            try:
                draft.rename(folder)
            except OSError:
                # Another process took that name at this moment.
                if not folder.exists():
                    raise
                continue
            return _export(folder)
    except OSError as exc:
        raise ConfigError(f"The export can't be written to {root}: {exc.strerror}. Name another folder.") from exc
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    raise ConfigError(f"{root} holds 999 exports of concert {payments.concert_id} of today. Move them away.")


def changed_files(folder: Path, checksum: str) -> list[str]:
    """Return what has changed in an export since it was written: names of files, or its data."""
    try:
        document = cast(dict[str, Any], orjson.loads((folder / MANIFEST).read_bytes()))
        files = {entry["name"]: entry["sha256"] for entry in document["files"]}
        found = [] if document["data_sha256"] == checksum else ["its data"]
    except (OSError, ValueError, LookupError, TypeError):
        return [MANIFEST]
    return found + [name for name, sha256 in files.items() if _sha256_of(folder / name) != sha256]


def csv_text(rows: Sequence[Payment]) -> str:
    """Return the rows as CSV with a header; amounts with all their digits, times in UTC."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([name for name, _, _ in COLUMNS])
    for row in rows:
        writer.writerow([_csv_value(getattr(row, field)) for _, field, _ in COLUMNS])
    return text.getvalue()


def _write(draft: Path, payments: Payments, signatures: Sequence[Signature], flow_run_id: str) -> None:
    # It contains names and pay: readable by the user who runs payroll alone.
    private_folder(draft)
    names = [f"payroll-concert-{payments.concert_id}.{kind}" for kind in ("csv", "parquet")]
    (draft / names[0]).write_text(csv_text(payments.rows), encoding="utf-8")
    _write_parquet(draft / names[1], payments)
    files = [
        {"name": name, "sha256": _sha256_of(draft / name), "bytes": (draft / name).stat().st_size} for name in names
    ]
    document = {
        "concert_id": payments.concert_id,
        "rows": len(payments.rows),
        "net_total": str(payments.total),
        "data_sha256": payments.checksum,
        "flow_run_id": flow_run_id,
        "written_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "signatures": [
            {"role": each.role, "who": each.who, "signed_at": f"{each.at:%Y-%m-%dT%H:%M:%S}Z", "comment": each.comment}
            for each in signatures
        ],
        "files": files,
    }
    (draft / MANIFEST).write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))
    sums = [*((str(entry["sha256"]), str(entry["name"])) for entry in files), (_sha256_of(draft / MANIFEST), MANIFEST)]
    (draft / SUMS).write_text("".join(f"{sha256}  {name}\n" for sha256, name in sums), encoding="utf-8")
    for path in draft.iterdir():
        path.chmod(0o600)
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _write_parquet(path: Path, payments: Payments) -> None:
    import duckdb

    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        connection.execute(f"create table payroll ({', '.join(f'{name} {kind}' for name, _, kind in COLUMNS)})")
        values = [[getattr(row, field) for _, field, _ in COLUMNS] for row in payments.rows]
        connection.executemany(f"insert into payroll values ({', '.join('?' for _ in COLUMNS)})", values)
        total = connection.execute("select sum(net_amount) from payroll").fetchone()
        if not total or total[0] != payments.total:
            raise PayrollStopped(f"The Parquet file would hold {total and total[0]} in all, not {payments.total}.")
        place = str(path).replace("'", "''")
        connection.execute(f"copy (select * from payroll) to '{place}' (format parquet)")


def _export(folder: Path) -> Export:
    document = cast(dict[str, Any], orjson.loads((folder / MANIFEST).read_bytes()))
    return Export(folder, {entry["name"]: entry["sha256"] for entry in document["files"]})


def _csv_value(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return f"{value.isoformat(sep=' ', timespec='seconds')}"
    return str(value)


def _sha256_of(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""
