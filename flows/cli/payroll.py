"""`tributary payroll`."""

from __future__ import annotations

import getpass
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

import click

from flows.cli.options import examples, project_option, target_option
from flows.cli.target import set_up
from infrastructure.commands import program
from infrastructure.console import dumps, json_option, quiet_prefect, say
from infrastructure.errors import ExitCode
from infrastructure.plain_text import count_of
from infrastructure.screen import echo, screen, styled

if TYPE_CHECKING:
    from flows.runbook.payroll.flow import Adjustment, PostPayroll, PrePayroll
    from flows.runbook.payroll.ledger import Entry, Run

_ROLES = click.Choice(["data engineer", "finance", "manager"])
concert_option = click.option("--concert", "-c", "concert_id", type=int, required=True, help="The concert's number.")
dry_run_option = click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")


@click.group(
    epilog=examples(
        "tributary payroll pre --concert 1400 --target prod",
        "tributary payroll sign --run 5f4e… --role finance --who 'Ada Lovelace'",
        "tributary payroll post --concert 1400 --target prod",
    )
)
def payroll() -> None:
    """Check, sign, export and record the payments of a concert."""


@payroll.command(
    epilog=examples(
        "tributary payroll pre --concert 1400 --target prod",
        "tributary payroll pre --concert 1400 --dry-run",
        "tributary payroll pre --concert 1400 --sign-within-hours 4 --export-to /srv/payroll",
    )
)
@concert_option
@target_option
@project_option
@click.option("--freshness-hours", type=float, default=24.0, show_default=True, help="The maximum age of a source.")
@click.option(
    "--sign-within-hours", type=float, default=24.0, show_default=True, help="How long to wait for the signatures."
)
@click.option(
    "--sample-size", type=int, default=10, show_default=True, help="How many payments to show for the spot check."
)
@click.option("--sample-seed", type=int, help="Seed of the spot check's sample; default: from the data.")
@click.option(
    "--export-to", metavar="FOLDER", help="Where to write the files; default: payroll/<target> in the state folder."
)
@dry_run_option
@json_option
def pre(concert_id: int, target: str, as_json: bool, **asked: Any) -> None:  # noqa: ANN401  (the flow's parameters)
    """Check the payments of a concert, wait for three signatures, then export and archive them."""
    with set_up(target):
        from flows.runbook.payroll.flow import Planned, pre_payroll

        done = cast("PrePayroll | Planned", pre_payroll(concert_id, target, poll_seconds=2, **asked))
    if as_json:
        echo(dumps(vars(done)))
    elif isinstance(done, Planned):
        echo(f"Payroll of concert {concert_id} on {target} would:")
        for number, step in enumerate(done.steps, start=1):
            echo(f"{number:>3}. {step}")
        for reason in done.stops:
            echo(f"{styled('stops:', fg='red')} {reason}")
    else:
        echo(f"Concert {concert_id}: {count_of(done.musicians, 'musician')}, {done.net_total:,.2f} in all; all signed.")
        echo(f"Export:  {done.folder}")
        for name, sha256 in done.sha256.items():
            echo(f"         {sha256}  {name}")
        echo(f"Archive: {done.archive}")
        echo(f"When it is paid: {program()} payroll post --concert {concert_id} --target {target}")
    if isinstance(done, Planned) and done.stops:
        sys.exit(ExitCode.FAILED)


@payroll.command(
    epilog=examples(
        "tributary payroll sign --run 5f4e… --role finance --who 'Ada Lovelace'",
        "tributary payroll sign --run 5f4e… --role manager --who ada@example.org --reject --comment 'wrong fee'",
    )
)
@click.option("--run", required=True, metavar="ID", help="Id or name of the waiting flow run.")
@click.option("--role", type=_ROLES, required=True, help="The role you sign as.")
@click.option("--who", required=True, help="Your full name or e-mail address.")
@click.option("--comment", default="", help="A comment kept with the signature; with --reject, the reason.")
@click.option("--reject", is_flag=True, help="Reject this payroll instead of signing it.")
def sign(run: str, role: str, who: str, comment: str, reject: bool) -> None:
    """Sign or reject a waiting payroll, as its form in the Prefect UI does."""
    from infrastructure.errors import ConfigError
    from infrastructure.server.local_server import server_in_reach

    if reject and not comment.strip():
        raise click.UsageError("A rejection needs a reason: give --comment.")
    quiet_prefect()
    with server_in_reach(say) as address:
        if address is None:
            raise ConfigError(
                "No Prefect server is configured: set PREFECT_API_URL to the one that the payroll runs on."
            )
        from flows.runbook.payroll.signoff_form import sign as fill_in

        asked = fill_in(run, role, who, "reject" if reject else "approve", comment)
    if reject:
        echo(f"Rejected as {role}: flow run {asked.name} ends without an export.")
        return
    left = [other for other in asked.roles if other != role]
    echo(f"Signed as {role}. " + (f"Still to sign: {', '.join(left)}." if left else "All signatures are there."))


@payroll.command(
    epilog=examples(
        "tributary payroll post --concert 1400 --target prod --payment-date 2026-03-31",
        "tributary payroll post --concert 1400 --adjust '12=-20.00: instrument hire' --exception 'paid late'",
    )
)
@concert_option
@target_option
@project_option
@click.option("--payment-date", type=click.DateTime(["%Y-%m-%d"]), help="The day it was paid; default: today in UTC.")
@click.option("--who", help="Who records it; default: your login name.")
@click.option(
    "--adjust",
    "adjusts",
    multiple=True,
    metavar="MUSICIAN=AMOUNT: REASON",
    help="An amount paid in addition; may be negative.",
)
@click.option(
    "--exception",
    "exceptions",
    multiple=True,
    metavar="TEXT",
    help="An exception to record, in words; may be given several times.",
)
@dry_run_option
@json_option
def post(
    concert_id: int,
    payment_date: datetime | None,
    who: str | None,
    adjusts: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
    **asked: Any,  # noqa: ANN401  (the flow's other parameters)
) -> None:
    """Record that a concert was paid: once, and only if it was signed and exported."""
    with set_up(asked["target"]):
        from flows.runbook.payroll.flow import post_payroll

        parameters = {
            "payment_date": payment_date.date() if payment_date else None,
            "recorded_by": who or getpass.getuser(),
            "adjustments": [_adjustment(text) for text in adjusts],
            "exceptions": list(asked.pop("exceptions")),
            "dry_run": dry_run,
        }
        done = cast("PostPayroll", post_payroll(concert_id, **parameters, **asked))
    if as_json:
        echo(dumps(vars(done)))
        return
    verb = "Would record" if dry_run else "Recorded"
    echo(
        f"{verb}: concert {concert_id}, {count_of(done.musicians, 'musician')}, {done.net_total:,.2f} and "
        "adjustments of "
        f"{done.adjustments:,.2f}, {done.paid_total:,.2f} in all, paid on {done.payment_date}."
    )


@payroll.command(
    epilog=examples("tributary payroll status --target prod", "tributary payroll status --concert 1400 --json")
)
@click.option("--concert", "-c", "concert_id", type=int, help="Show every step of one concert.")
@target_option
@project_option
@json_option
def status(concert_id: int | None, target: str, project_dir: str | None, as_json: bool) -> None:
    """Show what was signed, exported and paid, and which runs wait for a signature."""
    with set_up(target):
        from flows.runbook.payroll.flow import payroll_status

        runs, entries, asked = payroll_status(target, project_dir, concert_id)
    if as_json:
        document: dict[str, Any] = {
            "runs": [vars(run) for run in runs],
            "steps": [vars(entry) for entry in entries],
            "waiting": [{"flow_run_id": a.flow_run_id, "name": a.name, "roles": a.roles} for a in asked],
        }
        echo(dumps(document))
        return
    for each in asked:
        echo(f"Waits for {', '.join(each.roles)}: {each.name} ({each.flow_run_id})")
    _print(runs, entries)


def _print(runs: list[Run], entries: list[Entry]) -> None:
    from rich.table import Table

    console = screen(width=None if sys.stdout.isatty() else 200)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bright_black")
    for title in ("concert", "musicians", "net", "exported (UTC)", "paid", "paid total", "archive"):
        table.add_column(title)
    for run in runs:
        table.add_row(
            str(run.concert_id),
            str(run.musicians),
            f"{run.net_total:,.2f}",
            f"{run.exported_at:%Y-%m-%d %H:%M}",
            str(run.payment_date or "not yet"),
            "" if run.paid_total is None else f"{run.paid_total:,.2f}",
            run.archive,
        )
    console.print(table if runs else "Nothing has been exported yet.")
    if not entries:
        return
    steps = Table(box=None, padding=(0, 2, 0, 0), header_style="bright_black")
    for title in ("when (UTC)", "step", "role", "who", "amount", "data", "note"):
        steps.add_column(title, overflow="fold")
    for entry in entries:
        when = f"{entry.logged_at:%Y-%m-%d %H:%M:%S}"
        amount = f"{entry.amount:,.2f}" if entry.amount else ""
        steps.add_row(when, entry.kind, entry.role, entry.who, amount, entry.checksum[:12], entry.note)
    console.print()
    console.print(steps)


def _adjustment(text: str) -> Adjustment:
    """Read MUSICIAN=AMOUNT: REASON.

    Raises:
        ConfigError: it has another form.
    """
    from pydantic import ValidationError

    from flows.runbook.payroll.flow import Adjustment
    from infrastructure.errors import ConfigError

    musician, _, rest = text.partition("=")
    amount, _, reason = rest.partition(":")
    given = {"musician_id": musician.strip(), "amount": amount.strip(), "reason": reason.strip()}
    try:
        return Adjustment.model_validate(cast(dict[str, Any], given))
    except ValidationError as exc:
        mistakes = "; ".join(f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in exc.errors())
        raise ConfigError(
            f"--adjust was given {text!r} ({mistakes}). Write it as '12=-20.00: instrument hire'."
        ) from exc
