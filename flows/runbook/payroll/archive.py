"""Archive the payments of the day they were signed: a copy of the table beside it, never overwritten."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

from flows.runbook.payroll.ledger import sibling
from flows.runbook.payroll.payments import PAYMENTS, relation_of
from infrastructure.errors import ConfigError, PayrollStopped
from infrastructure.plain_text import count_of

if TYPE_CHECKING:
    from flows.engine.artifacts.manifest import Manifest
    from flows.warehouses.warehouse import Warehouse

_NUMBERS = ("contract_id", "concert_id", "musician_id", "attended_services", "held_services", "missed_services")
_AMOUNTS = ("required_services", "gross_amount", "deductions", "net_amount")
_PER_DAY = 100


def archive_name(manifest: Manifest, day: date, number: int = 1) -> str:
    """Return the relation of a day's archive; from the second of a day on it ends in its number."""
    suffix = "" if number == 1 else f"_{number}"
    return sibling(relation_of(manifest, PAYMENTS), f"{PAYMENTS}_{day:%Y%m%d}{suffix}")


def archive_payments(tables: Warehouse, manifest: Manifest, day: date) -> str:
    """Copy the payments of all concerts, without copying data where the warehouse can, and return the relation.

    A copy of the same day with the same payments is reused; one with others is left as it is.

    Raises:
        PayrollStopped: the copy differs from the table.
    """
    payments = relation_of(manifest, PAYMENTS)
    for number in range(1, _PER_DAY):
        archive = archive_name(manifest, day, number)
        if not tables.exists(archive):
            tables.copy(payments, archive)
            if different := _count_different(tables, payments, archive):
                tables.drop(archive)
                raise PayrollStopped(
                    f"{count_of(different, 'payment')} changed while they were archived. Start payroll again; "
                    "nothing was exported."
                )
            return archive
        if _count_different(tables, payments, archive) == 0:
            return archive
    raise ConfigError(f"There are {_PER_DAY} archives of {day} beside {payments}. Drop those that are not needed.")


def _count_different(tables: Warehouse, one: str, other: str) -> int:
    unequal = [f"coalesce(a.{name}, -1) <> coalesce(b.{name}, -1)" for name in (*_NUMBERS, *_AMOUNTS)]
    unequal += ["a.payment_key is null", "b.payment_key is null", "a.pay_type <> b.pay_type"]
    query = f"""
        select count(*) as different
        from {one} a full outer join {other} b on a.payment_key = b.payment_key
        where {" or ".join(unequal)}"""
    return int(tables.rows(query)[0]["different"])
