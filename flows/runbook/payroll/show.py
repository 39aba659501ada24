"""Show a payroll to people: the text of the sign-off form, and tables in the Prefect UI."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from flows.report.artifacts import attaching, key_of
from flows.runbook.payroll.checks import PayrollEvidence
from flows.runbook.payroll.gate import PASSED
from flows.runbook.payroll.payments import Payment, Payments, expected_net, workings
from flows.runbook.payroll.signoff import ROLES, Signature
from infrastructure.plain_text import count_of


def money(amount: Decimal | None) -> str:
    """Return an amount as text with all its digits."""
    return "none" if amount is None else f"{amount:,.2f}"


def summary(checked: PayrollEvidence) -> str:
    """Return the evidence as Markdown, the same for all signers."""
    passed = sum(verdict.outcome == PASSED for verdict in checked.verdicts)
    warned = [str(verdict) for verdict in checked.verdicts if verdict.outcome != PASSED]
    oldest = min(checked.loaded_at.values())
    lines = [
        f"- {count_of(passed, 'test')} ran and passed" + (f"; {'; '.join(warned)}" if warned else ""),
        f"- {len(checked.loaded_at)} source tables are fresh, the oldest from {oldest:%Y-%m-%d %H:%M} UTC",
    ]
    equal = sum(each.is_equal for each in checked.compared)
    if unrecorded := len(checked.compared) - equal:
        lines.append(
            f"- {unrecorded} of {len(checked.payments.rows)} payments are not recorded by the source yet; none differs"
        )
    else:
        lines.append(f"- all {count_of(equal, 'payment')} equal what the source recorded, to the cent")
    return "\n".join(lines)


def form_text(payments: Payments, found: str, signatures: Sequence[Signature], refused: str) -> str:
    """Return the head of the sign-off form, in Markdown.

    Args:
        found: the summary of the checks.
        refused: why the last answer was refused; empty where it was accepted.
    """
    signed = {signature.role: signature for signature in signatures}
    rows = "\n".join(
        f"| {role} | {f'signed by {_cell(signed[role].who)}' if role in signed else 'not yet'} |" for role in ROLES
    )
    notice = f"**Refused: {refused}**\n\n" if refused else ""
    return (
        f"{notice}**Payroll of concert {payments.concert_id}{_title(payments)}**: "
        f"{count_of(len(payments.rows), 'musician')}, "
        f"**{money(payments.total)}** in all.\n\n{found}\n\nThe spot check is among this run's artifacts. "
        f"Signatures are for the data with checksum `{payments.checksum[:12]}`.\n\n| role | state |\n|---|---|\n{rows}"
    )


def spot_check_rows(sample: Sequence[Payment]) -> list[dict[str, Any]]:
    """Return the sample as a table with every value that an amount is calculated from."""
    return [
        {
            "musician": row.full_name,
            "musician id": row.musician_id,
            "pay type": row.pay_type,
            "net": str(row.net_amount),
            "workings": workings(row),
            "worked out again": "agrees" if expected_net(row) == row.net_amount else f"NO: {expected_net(row)}",
            "concert": row.concert,
            "attended": row.attended_services,
            "missed": row.missed_services,
            "held": row.held_services,
            "required": row.required_services,
            "rate": str(row.rate_per_service) if row.rate_per_service is not None else "",
            "fee": str(row.flat_fee) if row.flat_fee is not None else "",
            "gross": str(row.gross_amount),
            "deductions": str(row.deductions),
        }
        for row in sample
    ]


def publish(target: str, checked: PayrollEvidence, seed: int, sample: Sequence[Payment]) -> None:
    """Create artifacts of the spot check and the tests; a server that does not answer is noted, not raised."""
    from prefect.artifacts import create_table_artifact

    concert = f"concert-{checked.payments.concert_id}"
    with attaching():
        create_table_artifact(
            spot_check_rows(sample),
            key=key_of("payroll-spot-check", target, concert),
            description=f"{len(sample)} of {len(checked.payments.rows)} payments, picked with seed {seed}; "
            f"data {checked.payments.checksum[:12]}",
        )
        create_table_artifact(
            [
                {"test": verdict.name, "outcome": verdict.outcome, "critical": "yes" if verdict.is_critical else ""}
                for verdict in checked.verdicts
            ],
            key=key_of("payroll-tests", target, concert),
            description=f"Every test that the payments of concert {checked.payments.concert_id} depend on",
        )


def _title(payments: Payments) -> str:
    row = payments.rows[0]
    return f", {_cell(row.concert or '')} of {row.concert_date}" if row.concert else ""


def _cell(text: str) -> str:
    """Return a text without Markdown's markup."""
    return "".join(f"\\{sign}" if sign in r"\|*_`[]<>#" else " " if sign in "\r\n" else sign for sign in text)
