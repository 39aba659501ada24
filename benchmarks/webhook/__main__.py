"""From Airbyte's delivery to dbt: how long it takes, what is lost when things are killed, and what the receiver bears.

`python -m benchmarks.webhook` ends in `p95_seconds: 3.1 lost: 0 doubled: 0`. Everything is real and its own: a Prefect
server, the receiver, a served deployment, a process worker, dbt on DuckDB. Run it on a machine that does nothing else.
With `--attacked` it delivers for two minutes to a receiver that is attacked all the while, and ends in `lost: 0`.
"""

from __future__ import annotations

import os
import random
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import click

from benchmarks.figures import median_and_p95
from benchmarks.webhook.bench import POLL_SECONDS, Attacked, Bench, Bursts, Latencies, Load
from benchmarks.webhook.deliveries import AT_ONCE
from infrastructure.console import EntryCommand


@click.command(cls=EntryCommand)
@click.option("--rounds", default=20, show_default=True, help="Deliveries whose latency is measured, per way.")
@click.option(
    "--deliveries", default=1000, show_default=True, help="Distinct syncs of the bursts; each is sent 3 times."
)
@click.option("--requests", default=5000, show_default=True, help="Deliveries that the load is measured with.")
@click.option("--seed", default=1, show_default=True, help="Of the order and the moments.")
@click.option("--attacked", is_flag=True, help="Only deliver, while everything is done to the receiver to stop it.")
@click.option("--seconds", default=120.0, show_default=True, help="How long it is attacked.")
def main(rounds: int, deliveries: int, requests: int, seed: int, attacked: bool, seconds: float) -> None:
    """Measure latency, loss and load."""
    with tempfile.TemporaryDirectory(prefix="webhook-") as name:
        bench = Bench(Path(name))
        with ExitStack() as stack:
            stack.callback(bench.stop)
            if attacked:
                _print_attacked(bench.attacked(seconds), seconds)
                return
            bench.start_prefect()
            bench.set_up()
            latencies = [bench.latencies(way, rounds) for way in ("served", "worker")] if rounds else []
            bursts = bench.bursts(deliveries, random.Random(seed))
            load = bench.load(requests)
    _print(latencies, bursts, load)


def _print(latencies: Sequence[Latencies], bursts: Bursts, load: Load) -> None:
    click.echo(f"{os.cpu_count()} cores; served deployment and worker look for work every {POLL_SECONDS} s")
    click.echo(
        f"{'seconds, p50 and p95':<24}{'delivery → dbt child':>22}{'→ its first word':>22}{'empty flow run':>22}"
    )
    for way in latencies:
        cells = (way.dbt_seconds, way.word_seconds, way.empty_seconds)
        texts = ("{:.2f}  {:.2f}".format(*median_and_p95(cell)) for cell in cells)
        click.echo(f"{way.name:<24}" + "".join(f"{text:>22}" for text in texts))
    said = ", ".join(f"{outcome}: {count}" for outcome, count in sorted(bursts.answers.items()))
    click.echo(f"{bursts.events} syncs sent 3 times each, receiver and Prefect server killed once: answers {said}")
    click.echo(f"flow runs {bursts.runs}; the last one {bursts.until_started_seconds:.1f} s after the first delivery")
    click.echo(
        f"load: {load.per_second:.0f} deliveries/s stored on disk, answered in {load.p50_ms:.1f} ms (p50), "
        f"{load.p95_ms:.1f} ms (p95), {AT_ONCE} connections; {load.memory_megabytes:.0f} MB of memory"
    )
    p95 = max((median_and_p95(way.dbt_seconds)[1] for way in latencies), default=0.0)
    click.echo(f"p95_seconds: {p95:.1f} lost: {bursts.lost} doubled: {bursts.doubled}")


def _print_attacked(attacked: Attacked, seconds: float) -> None:
    kinds = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in attacked.attacks.items())
    click.echo(f"{os.cpu_count()} cores; attacked for {seconds:.0f} s, connections opened: {kinds}")
    said = ", ".join(f"{outcome}: {count}" for outcome, count in Counter(a.outcome for a in attacked.answers).items())
    taken = sorted(answer.seconds for answer in attacked.answers)
    median, p95 = median_and_p95(taken)
    click.echo(f"{len(taken)} deliveries meanwhile, each sent once: answers {said}")
    click.echo(f"seconds until the answer: {median:.2f} (p50)  {p95:.2f} (p95)  {taken[-1]:.2f} (longest)")
    click.echo(
        f"the receiver: at most {attacked.most_files} open files and {attacked.most_megabytes:.0f} MB; "
        f"a log of {attacked.log_bytes / 1e3:.0f} kB"
    )
    click.echo(
        f"of {seconds:.0f} s the receiver took {attacked.receiver_seconds:.0f} s of a core, those who attack "
        f"{attacked.enemy_seconds:.0f} s; it had a delivery in its hands for {attacked.own_ms:.0f} ms on average"
    )
    click.echo(f"lost: {attacked.lost}")


if __name__ == "__main__":
    main()
