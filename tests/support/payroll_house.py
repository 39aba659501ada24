"""A small orchestra in a DuckDB file: the tables that payroll reads, made by hand, and the graph that names them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from flows.engine.artifacts.manifest import Manifest
from flows.engine.artifacts.manifest_file import manifest_of
from flows.runbook.payroll.ledger import PayrollLedger
from flows.runbook.payroll.payments import Payments, read_payments
from flows.warehouses.door import open_warehouse
from flows.warehouses.warehouse import Warehouse
from infrastructure.profiles import Profile, load_profile

MODELS = (
    "fct_musician_payment",
    "fct_payment_reconciliation",
    "dim_musician",
    "dim_concert",
    "sv_contracts_attended",
)
CONCERT = 7
# Sums that binary fractions get wrong: 0.1 + 0.2, and amounts beyond the 53 bits of a float.
AMOUNTS = ("0.10", "0.20", "9007199254740993.01", "1.15")

TABLES = """
create schema if not exists gold;
create table gold.dim_musician (
    musician_id bigint, first_name varchar, last_name varchar, full_name varchar, email varchar);
insert into gold.dim_musician values
    (1, 'Clara', 'Weiß', 'Clara Weiß', 'clara@example.org'), (2, 'Nadia', 'Boulanger', 'Nadia Boulanger', null),
    (3, 'Amy', 'Beach', 'Amy Beach', 'amy@example.org'), (4, 'Lili', 'Boulanger', 'Lili Boulanger', 'lili@example.org');
create table gold.dim_concert (concert_id bigint, title varchar, concert_date date);
insert into gold.dim_concert values (7, 'Spring, "and" more', date '2026-03-01'), (8, 'Autumn', date '2026-09-01');
create table gold.sv_contracts_attended (
    contract_id bigint, rate_per_service numeric(18,2), flat_fee numeric(18,2),
    deduction_per_missed_service numeric(18,2));
create table gold.fct_musician_payment (
    payment_key varchar, contract_id bigint, concert_id bigint, musician_id bigint, pay_type varchar,
    attended_services integer, held_services integer, missed_services integer, required_services integer,
    gross_amount numeric(18,2), deductions numeric(18,2), net_amount numeric(18,2), is_final boolean,
    calculated_at timestamp);
create table gold.fct_payment_reconciliation (
    concert_id bigint, musician_id bigint, outcome varchar, calculated_net_amount numeric(18,2),
    recorded_net_amount numeric(18,2));
"""


@dataclass(frozen=True)
class House:
    """A target with the tables of payroll."""

    target: str
    profile: Profile
    graph: Manifest

    @contextmanager
    def ledger(self) -> Iterator[PayrollLedger]:
        """Open the ledger."""
        with open_warehouse(self.profile) as tables:
            yield PayrollLedger(tables, self.graph)

    def payments(self) -> Payments:
        """Read the payments of the concert."""
        with open_warehouse(self.profile) as tables:
            return read_payments(tables, self.graph, CONCERT)

    def sql(self, *statements: str) -> None:
        """Change the tables behind payroll's back."""
        with open_warehouse(self.profile) as tables:
            for statement in statements:
                tables.execute(statement)

    def kinds(self) -> list[str]:
        """Return the kinds of steps that the ledger has."""
        with self.ledger() as ledger:
            return [entry.kind for entry in ledger.entries(CONCERT)]


def graph_in(schema: str = "gold") -> Manifest:
    """Return a graph that has the models of payroll in one schema."""
    nodes: dict[str, Any] = {}
    for name in MODELS:
        unique_id = f"model.orchestra.{name}"
        nodes[unique_id] = {
            "name": name,
            "resource_type": "model",
            "fqn": ["orchestra", name],
            "config": {"materialized": "table"},
            "relation_name": f'"{schema}"."{name}"',
        }
    return manifest_of({"nodes": nodes})


def fill(tables: Warehouse) -> None:
    """Put one payment per amount in, each as the source recorded it."""
    for number, amount in enumerate(AMOUNTS, start=1):
        tables.execute(
            "insert into gold.sv_contracts_attended values (?, cast(? as numeric(18,2)), null, 0)", [number, amount]
        )
        tables.execute(
            "insert into gold.fct_musician_payment values (?, ?, 7, ?, 'per_service', 1, 1, 0, 1, "
            "cast(? as numeric(18,2)), 0, cast(? as numeric(18,2)), true, timestamp '2026-03-02 04:05:06')",
            [f"k{number}", number, number, amount, amount],
        )
        tables.execute(
            "insert into gold.fct_payment_reconciliation values "
            "(7, ?, 'equal', cast(? as numeric(18,2)), cast(? as numeric(18,2)))",
            [number, amount, amount],
        )


def house_on(target: str) -> House:
    """Make the tables on a DuckDB target that is set up."""
    profile = load_profile(target)
    path = Path(profile.output["path"])
    with duckdb.connect(str(path)) as connection:
        connection.execute(TABLES)
    with open_warehouse(profile) as tables:
        fill(tables)
    return House(target, profile, graph_in())
