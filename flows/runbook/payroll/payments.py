"""Read the payments of one concert from the warehouse: rows, checksum, differences, calculation of a sample."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import orjson

from infrastructure.errors import ConfigError, PayrollStopped, preview
from infrastructure.plain_text import count_of

if TYPE_CHECKING:
    from flows.engine.artifacts.manifest import Manifest
    from flows.warehouses.warehouse import Warehouse

# The models of the payroll domain that payroll reads.
PAYMENTS, RECONCILIATION = "fct_musician_payment", "fct_payment_reconciliation"
MUSICIANS, CONCERTS, CONTRACTS = "dim_musician", "dim_concert", "sv_contracts_attended"

CENT = Decimal("0.01")
ZERO = Decimal("0.00")


@dataclass(frozen=True)
class Payment:
    """One musician's payment for the concert, with the values that it was calculated from.

    Attributes:
        first_name, last_name, full_name, email: None where the musician is unknown.
        rate_per_service, flat_fee: None where the contract has none.
        calculated_at: naive UTC.
    """

    payment_key: str
    contract_id: int
    concert_id: int
    musician_id: int
    first_name: str | None
    last_name: str | None
    full_name: str | None
    email: str | None
    concert: str | None
    concert_date: date | None
    pay_type: str
    attended_services: int
    held_services: int
    missed_services: int
    required_services: int
    gross_amount: Decimal | None
    deductions: Decimal | None
    net_amount: Decimal | None
    is_final: bool
    calculated_at: datetime
    rate_per_service: Decimal | None
    flat_fee: Decimal | None
    deduction_per_missed_service: Decimal | None


# Everything that is signed for. A rebuild changes only the time of calculation, which is not.
_NOT_SIGNED = frozenset({"calculated_at"})
_MONEY = frozenset(name for name in Payment.__annotations__ if "Decimal" in str(Payment.__annotations__[name]))


@dataclass(frozen=True)
class Payments:
    """All payments of one concert, by name.

    Attributes:
        checksum: SHA-256 of everything that is signed for; the same after a rebuild without changes.
    """

    concert_id: int
    rows: tuple[Payment, ...]
    checksum: str

    @property
    def total(self) -> Decimal:
        """Return the sum of the net amounts."""
        return sum((row.net_amount or ZERO for row in self.rows), ZERO)


@dataclass(frozen=True)
class Compared:
    """A payment and the source's record of it, from the reconciliation; None for an amount that is missing.

    Attributes:
        outcome: the reconciliation's verdict; it counts only where the amounts agree with it.
    """

    musician_id: int
    outcome: str
    calculated: Decimal | None
    recorded: Decimal | None

    @property
    def is_equal(self) -> bool:
        """Return whether both sides have the same amount."""
        if self.calculated is None or self.recorded is None or self.outcome != "equal":
            return False
        return abs(self.calculated - self.recorded) <= CENT

    @property
    def is_unrecorded(self) -> bool:
        """Return whether only the source's amount is missing."""
        return self.calculated is not None and self.recorded is None and self.outcome == "not_recorded"

    def __str__(self) -> str:
        off = (self.calculated or ZERO) - (self.recorded or ZERO)
        return f"musician {self.musician_id}: calculated {self.calculated}, recorded {self.recorded}, off by {off}"


def relation_of(manifest: Manifest, model: str) -> str:
    """Return where a model is in the warehouse.

    Raises:
        ConfigError: the project has no such model, or several of the name.
    """
    found = [node for node in manifest.nodes.values() if node.name == model and node.resource_type == "model"]
    if len(found) > 1:
        said = preview([node.unique_id for node in found])
        raise ConfigError(
            f"The dbt project has {count_of(len(found), 'model')} {model} ({said}): payroll needs one. Rename the "
            "others."
        )
    if not found or not found[0].relation:
        raise ConfigError(f"The dbt project has no model {model} in the warehouse, so there is no payroll to run.")
    return found[0].relation


def read_payments(tables: Warehouse, manifest: Manifest, concert_id: int) -> Payments:
    """Read the payments of a concert.

    Raises:
        PayrollStopped: the warehouse gave an amount that is not exact.
        ConfigError: a table is missing.
    """
    places = {name: relation_of(manifest, name) for name in (PAYMENTS, MUSICIANS, CONCERTS, CONTRACTS)}
    # Left joins: a payment must not vanish because a musician's name is unknown.
    query = f"""
        select p.payment_key, p.contract_id, p.concert_id, p.musician_id, m.first_name, m.last_name, m.full_name,
            m.email, c.title as concert, c.concert_date, p.pay_type, p.attended_services, p.held_services,
            p.missed_services, p.required_services, p.gross_amount, p.deductions, p.net_amount, p.is_final,
            p.calculated_at, w.rate_per_service, w.flat_fee, w.deduction_per_missed_service
        from {places[PAYMENTS]} p
        left join {places[MUSICIANS]} m on p.musician_id = m.musician_id
        left join {places[CONCERTS]} c on p.concert_id = c.concert_id
        left join {places[CONTRACTS]} w on p.contract_id = w.contract_id
        where p.concert_id = ?"""
    rows = [_payment(row) for row in tables.rows(query, [concert_id])]
    # In this order whatever the warehouse's collation is.
    rows.sort(key=lambda row: (row.last_name or "", row.first_name or "", row.musician_id, row.payment_key))
    return Payments(concert_id, tuple(rows), checksum_of(rows))


def checksum_of(rows: Sequence[Payment]) -> str:
    """Return the SHA-256 of payments, whatever their order."""
    names = [field.name for field in fields(Payment) if field.name not in _NOT_SIGNED]
    lines = sorted(orjson.dumps([_text(getattr(row, name)) for name in names]) for row in rows)
    return hashlib.sha256(b"\n".join(lines)).hexdigest()


def read_compared(tables: Warehouse, manifest: Manifest, concert_id: int) -> list[Compared]:
    """Return every row that the reconciliation has of a concert."""
    query = f"""
        select musician_id, outcome, calculated_net_amount, recorded_net_amount
        from {relation_of(manifest, RECONCILIATION)} where concert_id = ? order by musician_id"""
    found: list[Compared] = []
    for row in tables.rows(query, [concert_id]):
        calculated, recorded = (_money(row[name], name) for name in ("calculated_net_amount", "recorded_net_amount"))
        found.append(Compared(int(row["musician_id"]), str(row["outcome"]), calculated, recorded))
    return found


def faults(payments: Payments, compared: Sequence[Compared]) -> list[str]:
    """Return every reason in the rows why they can't be paid.

    Each payment must have one row of the reconciliation, with the same amount.
    """
    rows = payments.rows
    if not rows:
        return [f"concert {payments.concert_id} has no payments"]
    open_ = [str(row.musician_id) for row in rows if not row.is_final]
    unknown = [str(row.musician_id) for row in rows if not row.full_name or not row.concert]
    numbers = [row.musician_id for row in rows]
    twice = sorted({str(number) for number in numbers if numbers.count(number) > 1})
    wrong = [
        str(row.musician_id)
        for row in rows
        if row.gross_amount is None
        or row.deductions is None
        or row.net_amount is None
        or row.net_amount != row.gross_amount - row.deductions
        or min(row.net_amount, row.gross_amount, row.deductions) < 0
    ]
    beside = {number: [each for each in compared if each.musician_id == number] for number in numbers}
    alone = [str(number) for number, found in beside.items() if not found]
    several = [str(number) for number, found in beside.items() if len(found) > 1]
    other = [
        str(row.musician_id)
        for row in rows
        if any(each.calculated != row.net_amount for each in beside[row.musician_id])
    ]
    said = [
        (open_, "not final, as there are services left: musicians"),
        (unknown, "without a name or a concert: musicians"),
        (twice, "more than once: musicians"),
        (wrong, "amounts that are missing, negative or don't add up: musicians"),
        (alone, f"compared with the source by no row of {RECONCILIATION}: musicians"),
        (several, f"more than one row of {RECONCILIATION}: musicians"),
        (other, f"another amount in {RECONCILIATION} than is to be paid: musicians"),
    ]
    found = [f"{what} {preview(who)}" for who, what in said if who]
    # Amounts that the source has not recorded yet are shown to the signers; it records payments after a concert.
    return found + [
        f"differs from the source: {each}" for each in compared if not (each.is_equal or each.is_unrecorded)
    ]


def sample_of(payments: Payments, size: int, seed: int | None) -> tuple[int, list[Payment]]:
    """Return payments picked at random for a person to check, and the seed that picks the same again.

    Args:
        seed: from the checksum when None, so that no person chooses the sample.
    """
    chosen = int(payments.checksum[:8], 16) if seed is None else seed
    rows = sorted(payments.rows, key=lambda row: row.payment_key)
    picked = random.Random(chosen).sample(rows, min(size, len(rows)))  # noqa: S311  (to be reproducible)
    return chosen, sorted(picked, key=lambda row: row.musician_id)


def workings(row: Payment) -> str:
    """Return how a payment follows from its contract and the attendance, for a person to check."""
    match row.pay_type:
        case "per_service":
            return f"{row.attended_services} attended × {row.rate_per_service} = {row.gross_amount}"
        case "flat_fee":
            off = f"{row.missed_services} missed × {row.deduction_per_missed_service}"
            return f"{row.flat_fee} − {off}, at most the fee = {row.net_amount}"
        case _:
            return f"on a salary, paid elsewhere: {row.net_amount}"


def expected_net(row: Payment) -> Decimal | None:
    """Calculate a payment again, outside the warehouse; None where the contract lacks a value."""
    match row.pay_type:
        case "per_service":
            return None if row.rate_per_service is None else row.attended_services * row.rate_per_service
        case "flat_fee":
            if row.flat_fee is None or row.deduction_per_missed_service is None:
                return None
            return max(row.flat_fee - row.missed_services * row.deduction_per_missed_service, ZERO)
        case "salaried":
            return ZERO
        case _:
            return None


def _payment(row: dict[str, Any]) -> Payment:
    values: dict[str, Any] = {
        name: _money(row[name], name) if name in _MONEY else row[name] for name in Payment.__annotations__
    }
    counts = ("contract_id", "concert_id", "musician_id", *(name for name in values if name.endswith("_services")))
    # Snowflake gives whole numbers as Decimal.
    whole: dict[str, Any] = {name: int(values[name]) for name in counts}
    return Payment(**{**values, **whole})


def _money(value: object, name: str) -> Decimal | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (Decimal, int)):
        raise PayrollStopped(
            f"{name} is {type(value).__name__} in the warehouse, which is not exact. Make the column numeric(18,2)."
        )
    exact = Decimal(value)
    if not exact.is_finite():
        raise PayrollStopped(f"{name} is {exact} in the warehouse, which is not an amount. Fix its model.")
    if exact != exact.quantize(CENT):
        raise PayrollStopped(f"{name} has an amount with parts of a cent. Round it in the model that calculates it.")
    return exact.quantize(CENT)


def _text(value: object) -> str | int | bool | None:
    if value is None or isinstance(value, (str, bool, int)):
        return value
    return value.isoformat() if isinstance(value, date) else str(value)
