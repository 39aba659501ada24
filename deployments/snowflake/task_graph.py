"""Turn the DAG of a dbt project into a graph of Snowflake tasks, within Snowflake's limits."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from flows.engine.artifacts.compiled import Compiled
from flows.engine.artifacts.manifest import DATA_TYPES, Manifest, Node
from infrastructure.errors import ConfigError, preview
from infrastructure.plain_text import count_of

# https://docs.snowflake.com/en/user-guide/tasks-graphs: of a graph, root and last task included, and of one task.
MAX_TASKS = 1000
MAX_PREDECESSORS = 100
MAX_CHILDREN = 100
_MAX_NAME = 200
_NOTHING = "SELECT 1"
# The characters of a path in dbt's graph that can be used in a selection.
_PLAIN = re.compile(r"[\w.-]+")

ROOT = "tributary"
LAST = "tributary done"
_NATIVE = {"view": "VIEW", "table": "TABLE"}


@dataclass(frozen=True)
class Task:
    """One task of the graph, other than its root.

    Attributes:
        after: names of the tasks before it; empty for those right after the root.
        body: the one statement that it runs.
    """

    name: str
    body: str
    after: tuple[str, ...] = ()
    comment: str = ""


@dataclass(frozen=True)
class TaskGraph:
    """The tasks between the root and the last one.

    Attributes:
        sources: relation of each source table with downstream nodes, by unique id.
        left_out: why a node has no task, by unique id.
    """

    tasks: tuple[Task, ...]
    sources: Mapping[str, str]
    left_out: Mapping[str, str]


@dataclass(frozen=True)
class DbtObject:
    """The dbt project object in Snowflake, and the target of its profiles.yml."""

    name: str
    target: str

    def execute(self, arguments: str) -> str:
        """Return the statement that runs a dbt command."""
        words = f"{arguments} --target {self.target}".replace("'", "''")
        return f"EXECUTE DBT PROJECT {self.name} ARGS = '{words}'"


def whole(manifest: Manifest, dbt: DbtObject) -> TaskGraph:
    """Return the graph of one task, in which dbt follows the DAG and failed tests stop what is downstream."""
    built = {key for key, node in manifest.nodes.items() if node.resource_type in DATA_TYPES}
    return TaskGraph((Task("dbt build", dbt.execute("build")),), _sources(manifest, built), {})


def node_by_node(manifest: Manifest, compiled: Mapping[str, Compiled], dbt: DbtObject) -> TaskGraph:
    """Return a graph with a task per node and one for its tests, which stop what is downstream when they fail.

    A view or table of plain SQL is a statement of its own. Everything else (incremental models, snapshots, seeds,
    contracts, hooks, grants) is run by dbt, one node after the other: Snowflake runs a project once at a time.

    Raises:
        ConfigError: the manifest has no compiled SQL.
    """
    data = {key: node for key, node in manifest.nodes.items() if node.resource_type in DATA_TYPES}
    built = list(manifest.steps(key for key, node in data.items() if not node.is_ephemeral))
    left_out = {key: "is compiled into what reads it" for key, node in data.items() if node.is_ephemeral}
    tests: dict[tuple[str, ...], list[str]] = {}
    for key, node in manifest.nodes.items():
        if not node.is_test:
            continue
        # In the order of the manifest, so that every render is the same.
        tested = tuple(manifest.parents(key, built))
        if why := _why_not_tested(node, tested):
            left_out[key] = why
        else:
            tests.setdefault(tested, []).append(key)
    _require_compiled(manifest, compiled, built, tests)
    names = {key: task_name(key) for key in built}
    test_names = {tested: task_name("tests of " + ", ".join(tested)) for tested in tests}
    upstream = {key: manifest.upstream([key]) for key in built}
    tasks: list[Task] = []
    previous_of_dbt: str | None = None
    for key in built:
        parents = manifest.parents(key, built)
        # As in `dbt build`: a node waits for a test if all nodes that it tests are upstream.
        gates = [test_names[tested] for tested in tests if set(tested) & set(parents) and set(tested) <= upstream[key]]
        after = [*(names[parent] for parent in parents), *gates]
        body = _statement(compiled[key], manifest.nodes[key])
        if body is None:
            body = dbt.execute(_dbt_arguments(manifest, key))
            after += [previous_of_dbt] if previous_of_dbt else []
            previous_of_dbt = names[key]
        tasks.append(Task(names[key], body, tuple(dict.fromkeys(after)), key))
    for tested, keys in tests.items():
        after = tuple(names[key] for key in tested)
        statement = _test_statement([(manifest.nodes[key].name, compiled[key]) for key in keys])
        tasks.append(Task(test_names[tested], statement, after, count_of(len(keys), "test")))
    return TaskGraph(tuple(tasks), _sources(manifest, set(built)), left_out)


def within_limits(tasks: Sequence[Task]) -> list[Task]:
    """Return the tasks with empty tasks in between where one has more predecessors or successors than allowed.

    Raises:
        ConfigError: together they are more than a graph may have.
    """
    found: list[Task] = []
    for task in tasks:
        gates: list[Task] = []
        if len(task.after) > MAX_PREDECESSORS:
            chunks = enumerate(_chunks(task.after, MAX_PREDECESSORS), 1)
            gates = [Task(task_name(f"before {task.name} {number}"), _NOTHING, chunk) for number, chunk in chunks]
            task = replace(task, after=tuple(gate.name for gate in gates))
        found += [*gates, task]
    found = _with_relays(found)
    if len(found) + 1 > MAX_TASKS:
        raise ConfigError(
            f"The graph has {count_of(len(found) + 1, 'task')}, and Snowflake allows {MAX_TASKS:,}. Render it with "
            "--how dbt, where "
            "dbt itself follows the DAG in one task."
        )
    return found


def _with_relays(tasks: list[Task]) -> list[Task]:
    children: dict[str, list[str]] = {}
    for task in tasks:
        for before in task.after or (ROOT,):
            children.setdefault(before, []).append(task.name)
    by_name = {task.name: task for task in tasks}
    for name, below in children.items():
        if len(below) <= MAX_CHILDREN:
            continue
        for number, chunk in enumerate(_chunks(below, MAX_CHILDREN), 1):
            relay = Task(task_name(f"after {name} {number}"), _NOTHING, () if name == ROOT else (name,))
            by_name[relay.name] = relay
            for child in chunk:
                after = by_name[child].after or (ROOT,)
                by_name[child] = replace(by_name[child], after=tuple(relay.name if n == name else n for n in after))
    return list(by_name.values())


def leaves(tasks: Iterable[Task]) -> list[str]:
    """Return the names of the tasks without successors."""
    tasks = list(tasks)
    waited_for = {name for task in tasks for name in task.after}
    return [task.name for task in tasks if task.name not in waited_for]


def task_name(text: str) -> str:
    """Return a name within Snowflake's limit; one that is too long ends in a digest."""
    if len(text) <= _MAX_NAME:
        return text
    return f"{text[: _MAX_NAME - 9]} {hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _statement(compiled: Compiled, node: Node) -> str | None:
    """Return the statement that creates a table or view; None where dbt does more than that."""
    kind = _NATIVE.get(node.materialized)
    if kind is None or not compiled.is_plain or node.resource_type != "model":
        return None
    # dbt-snowflake creates transient tables by default.
    transient = "TRANSIENT " if kind == "TABLE" and compiled.is_transient else ""
    return f"CREATE OR REPLACE {transient}{kind} {node.relation} AS (\n{compiled.sql}\n)"


def _test_statement(tests: Sequence[tuple[str, Compiled]]) -> str:
    """Return a query that fails, and names the failed tests, when one of the tests fails.

    A text that is not a number can't be cast to one: Snowflake fails the task, and its message contains the text.
    """
    each = "\nUNION ALL\n".join(_failures(name, compiled) for name, compiled in tests)
    return (
        "SELECT CAST(IFF(COUNT(*) = 0, '0', "
        "'tests failed: ' || LISTAGG(test || ' (' || failures || ')', ', ')) AS INTEGER) AS failed\n"
        f"FROM (\n{each}\n)"
    )


def _failures(name: str, compiled: Compiled) -> str:
    quoted = name.replace("'", "''")
    return (
        f"SELECT '{quoted}' AS test, failures\n"
        f"FROM (SELECT {compiled.counted} AS failures FROM (\n{compiled.sql}\n) AS found)\n"
        f"WHERE failures {compiled.fails}"
    )


def _why_not_tested(node: Node, tested: tuple[str, ...]) -> str:
    if node.resource_type == "unit_test":
        return "tests SQL and no data: it belongs before a deployment"
    if not tested:
        return "tests nothing that is built"
    return "is a warning, which stops nothing" if node.severity == "warn" else ""


def _dbt_arguments(manifest: Manifest, key: str) -> str:
    verb = {"model": "run"}.get(manifest.nodes[key].resource_type, manifest.nodes[key].resource_type)
    return f'{verb} --select "{_selector(manifest, key)}"'


def _selector(manifest: Manifest, key: str) -> str:
    """Return the selection of one node, without a selectors file, which Snowflake does not have.

    Without a wildcard, `fqn:shop.orders` would also select what is in a folder `orders`; with one, dbt matches the
    whole path.

    Raises:
        ConfigError: its name has characters with another meaning in a selection.
    """
    node = manifest.nodes[key]
    if not _PLAIN.fullmatch(node.fqn):
        raise ConfigError(
            f"{key} can't have its own task: in a dbt selection, {node.fqn!r} selects other nodes or none. "
            "Remove spaces and special characters from the names of its file and folders, or render with --how dbt."
        )
    folders, dot, name = node.fqn.rpartition(".")
    exact = f"fqn:{folders}{dot}[{name[:1]}]{name[1:]}"
    # A model and a singular test may have the same name and place.
    is_alone = sum(other.fqn == node.fqn for other in manifest.nodes.values()) == 1
    return exact if is_alone else f"{exact},resource_type:{node.resource_type}"


def _require_compiled(
    manifest: Manifest,
    compiled: Mapping[str, Compiled],
    built: Sequence[str],
    tests: Mapping[tuple[str, ...], Sequence[str]],
) -> None:
    wanted = [key for key in built if manifest.nodes[key].resource_type == "model"]
    wanted += [key for keys in tests.values() for key in keys]
    missing = [key for key in wanted if not compiled[key].sql]
    if missing:
        raise ConfigError(
            f"The manifest has no compiled SQL of {count_of(len(missing), 'node')}: {preview(missing)}. Build the "
            "project on the target once, or compile it there with `dbt compile`, and render again; or render with "
            "--how dbt."
        )


def _sources(manifest: Manifest, built: set[str]) -> dict[str, str]:
    upstream = manifest.upstream(built)
    return {
        key: node.relation
        for key, node in manifest.nodes.items()
        if node.resource_type == "source" and key in upstream and node.relation
    }


def _chunks(names: Sequence[str], size: int) -> list[tuple[str, ...]]:
    return [tuple(names[start : start + size]) for start in range(0, len(names), size)]
