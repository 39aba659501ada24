"""What reaches a Prefect server that is slow, fails or is away: a real HTTP server that does as it is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from flows.engine.artifacts.artifacts import Artifacts
from flows.engine.artifacts.results import NodeResult, result_of
from flows.engine.context.events import DbtEvent, NodeEvent
from flows.engine.context.run_context import FlowRun
from flows.engine.sinks import recorder as module
from flows.engine.sinks.folders import Folders
from flows.engine.sinks.recorder import Recorder, Sparing
from flows.engine.sinks.sending import BATCH_SIZE, Sender, sender_through
from flows.engine.sinks.task_runs import task_run_id
from flows.engine.sinks.unsent import UnsentEvents
from infrastructure.targets.settings import TaskRuns
from tests.support.processes import free_port, wait_until

AT = datetime(2026, 1, 31, 12, tzinfo=UTC)
FLOW_RUN = FlowRun(UUID(int=1), "amber-otter")


class Inbox:
    """An HTTP server that answers with the statuses it is given, then with 204; None drops the connection."""

    def __init__(self, *answers: int | None) -> None:
        self.answers = list(answers)
        self.accepted: list[tuple[str, list[dict[str, Any]]]] = []
        self.refused = 0
        self.will_not_take = ""
        inbox = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                answer = inbox.answers.pop(0) if inbox.answers else 204
                if any(document.get("message") == inbox.will_not_take for document in body):
                    answer = 422
                if answer == 204:
                    inbox.accepted.append((self.path, body))
                else:
                    inbox.refused += 1
                if answer is None:
                    self.close_connection = True
                    return
                self.send_response(answer)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def documents(self, path: str) -> list[dict[str, Any]]:
        return [document for where, documents in self.accepted if where == path for document in documents]


def sender_to(port: int) -> Callable[[], Sender]:
    """Return what makes a sender that raises as the one to Prefect does."""

    def factory() -> Sender:
        client = httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60)
        return sender_through(lambda path, body: client.post(path, content=body))

    return factory


@pytest.fixture
def inbox() -> Iterator[Callable[..., Inbox]]:
    made: list[Inbox] = []

    def make(*answers: int | None) -> Inbox:
        made.append(Inbox(*answers))
        return made[-1]

    yield make
    for server in made:
        server.server.shutdown()
        server.server.server_close()


def line(number: int, node: NodeEvent | None = None) -> DbtEvent:
    return DbtEvent("Line", "info", f"line {number}", AT, node.unique_id if node else None, node)


def ended(name: str, status: str = "success") -> NodeEvent:
    return NodeEvent(f"model.shop.{name}", name, "model", "table", status, AT, AT + timedelta(seconds=3))


def manifest(folder: Path, **parents: str) -> Path:
    path = folder / "manifest.json"
    nodes = {
        f"model.shop.{name}": {
            "name": name,
            "resource_type": "model",
            "depends_on": {"nodes": [f"model.shop.{parent}" for parent in above.split()]},
        }
        for name, above in parents.items()
    }
    path.write_text(json.dumps({"nodes": nodes}))
    return path


def recorder(port: int, folder: Path, **parents: str) -> Recorder:
    return Recorder(FLOW_RUN, sender_to(port), Artifacts(manifest(folder, **parents).parent), flush_seconds=0.01)


@pytest.mark.parametrize("answers", [(), (503, 500), (None, 503, None), (204, 500, 204, None)])
def test_everything_is_delivered_once_and_in_order(
    inbox: Callable[..., Inbox], tmp_path: Path, answers: tuple[int | None, ...]
) -> None:
    server = inbox(*answers)
    with recorder(server.port, tmp_path, a="", b="a") as sending:
        for number in range(20):
            sending.event(line(number))
        sending.event(line(20, ended("a")))
        wait_until(lambda: server.documents("/logs/"), "the first lines arrive while dbt still runs")
        sending.event(line(21, ended("b", "error")))
        sending.event(line(22))
    assert [entry["message"] for entry in server.documents("/logs/")] == [f"line {number}" for number in range(23)]
    assert [entry["resource"]["prefect.state-name"] for entry in server.documents("/events")] == ["Completed", "Failed"]
    assert sending.unsent == 0
    assert server.refused == len([answer for answer in answers if answer != 204])


def test_a_task_run_has_its_parents_its_times_and_its_log(inbox: Callable[..., Inbox], tmp_path: Path) -> None:
    server = inbox()
    with recorder(server.port, tmp_path, a="", b="a not_in_the_run") as sending:
        sending.event(line(0, ended("a")))
        sending.event(line(1, ended("b")))
    first, second = server.documents("/events")
    task_run = second["payload"]["task_run"]
    assert task_run["task_inputs"]["parents"] == [
        {"input_type": "task_run", "id": str(task_run_id(FLOW_RUN, "model.shop.a"))}
    ]
    assert first["payload"]["task_run"]["task_inputs"]["parents"] == []
    assert datetime.fromisoformat(task_run["start_time"]) == AT
    assert datetime.fromisoformat(task_run["end_time"]) == AT + timedelta(seconds=3)
    assert second["related"][0]["prefect.resource.id"] == f"prefect.flow-run.{FLOW_RUN.id}"
    logged = {entry["message"]: entry["task_run_id"] for entry in server.documents("/logs/")}
    assert logged["line 1"] == str(task_run_id(FLOW_RUN, "model.shop.b"))


def test_a_node_that_runs_on_is_shown_as_running_and_what_dbt_says_at_the_end_is_added(
    inbox: Callable[..., Inbox], tmp_path: Path
) -> None:
    server = inbox()
    started = NodeEvent("model.shop.a", "a", "model", "table", "started", AT)
    with recorder(server.port, tmp_path, a="") as sending:
        sending.event(line(0, started))
        wait_until(lambda: server.documents("/events"), "the node is shown as running")
        sending.event(line(1, ended("a", "error")))
        sending.results(
            [NodeResult("model.shop.a", "a", "model", "table", "error", AT, AT + timedelta(seconds=3), "no column")]
        )
    running, failed, explained = server.documents("/events")
    assert running["payload"]["validated_state"]["type"] == "RUNNING"
    assert explained["payload"]["validated_state"] | {"message": ""} == failed["payload"]["validated_state"] | {
        "message": ""
    }
    assert explained["payload"]["validated_state"]["message"] == "no column"
    assert explained["occurred"] > failed["occurred"], "the server keeps the later of two states"
    assert len({event["id"] for event in (running, failed, explained)}) == 3


def test_batches_are_bounded(inbox: Callable[..., Inbox], tmp_path: Path) -> None:
    server = inbox()
    with recorder(server.port, tmp_path) as sending:
        for number in range(3 * BATCH_SIZE + 1):
            sending.event(line(number))
    assert max(len(documents) for _, documents in server.accepted) <= BATCH_SIZE
    assert len(server.documents("/logs/")) == 3 * BATCH_SIZE + 1


def test_a_server_that_is_away_for_ever_ends_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLOSE_SECONDS", 0.3)
    with recorder(free_port(), tmp_path, a="") as sending:
        for number in range(5):
            sending.event(line(number))
        sending.event(line(5, ended("a")))
    assert sending.unsent == 7, "six lines and one node"


def test_taking_an_event_never_waits_for_the_server(tmp_path: Path) -> None:
    """A sender that never returns holds its own thread and nobody else."""
    release = threading.Event()

    def hanging() -> Sender:
        def send(path: str, body: bytes) -> None:
            release.wait(60)

        return send

    with Recorder(FLOW_RUN, hanging, Artifacts(tmp_path), flush_seconds=0.01) as sending:
        for number in range(1000):
            sending.event(line(number))
        release.set()
    assert sending.unsent == 0


def test_a_missing_manifest_costs_the_edges_and_nothing_else(inbox: Callable[..., Inbox], tmp_path: Path) -> None:
    server = inbox()
    with Recorder(FLOW_RUN, sender_to(server.port), Artifacts(tmp_path / "none"), 0.01) as sending:
        sending.event(line(0, ended("a")))
    assert [event["payload"]["task_run"]["name"] for event in server.documents("/events")] == ["a"]


def test_an_odd_event_does_not_keep_the_others_from_being_sent(inbox: Callable[..., Inbox], tmp_path: Path) -> None:
    server = inbox()
    odd = NodeEvent("model.shop.odd", "odd", "model", "table", "success", AT, None)
    with recorder(server.port, tmp_path, a="") as sending:
        sending.event(line(0, odd))
        sending.event(line(1, ended("a")))
    assert "a" in [event["payload"]["task_run"]["name"] for event in server.documents("/events")]


def test_a_document_that_the_server_will_never_take_is_counted_and_the_others_arrive(
    inbox: Callable[..., Inbox], tmp_path: Path
) -> None:
    """Prefect answers 4xx to the whole request when one document in it is not to its liking."""
    server = inbox()
    server.will_not_take = "line 3"
    with recorder(server.port, tmp_path) as sending:
        for number in range(6):
            sending.event(line(number))
    assert sorted(entry["message"] for entry in server.documents("/logs/")) == [f"line {n}" for n in (0, 1, 2, 4, 5)]
    assert sending.unsent == 1


@pytest.mark.parametrize("status", [401, 403, 404, 422])
def test_a_server_that_refuses_whoever_asks_is_not_asked_for_every_document(
    inbox: Callable[..., Inbox], tmp_path: Path, status: int
) -> None:
    """A wrong key is not mended by smaller batches; and a server that takes nothing, not by trying all of it."""
    server = inbox(*[status] * 10_000)
    with recorder(server.port, tmp_path, a="") as sending:
        for number in range(1000):
            sending.event(line(number))
        wait_until(lambda: server.refused, "it is asked")
    assert sending.unsent == 1000
    assert server.refused < 200
    assert f"(HTTP {status})" in sending.denied


def test_a_key_that_is_renewed_during_the_run_costs_nothing(inbox: Callable[..., Inbox], tmp_path: Path) -> None:
    server = inbox(401)
    with recorder(server.port, tmp_path) as sending:
        sending.event(line(0))
        wait_until(lambda: server.refused, "it is asked")
    assert (sending.unsent, sending.denied) == (0, "")


def test_what_was_not_sent_is_sent_by_the_next_run(
    inbox: Callable[..., Inbox], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a node that had been shown as running runs for ever, when the server comes back after the run's end."""
    kept, elsewhere = (UnsentEvents(tmp_path / "unsent", api) for api in ("http://here", "http://elsewhere"))
    manifest(tmp_path, a="")
    with monkeypatch.context() as patch:
        patch.setattr(module, "CLOSE_SECONDS", 0.3)
        with Recorder(FLOW_RUN, sender_to(free_port()), Artifacts(tmp_path), 0.01, kept) as sending:
            sending.event(line(0, NodeEvent("model.shop.cut_off", "cut_off", "model", "table", "started", AT)))
            sending.event(line(1, ended("a")))
    assert sending.unsent == 5, "two lines, and that one ended, and that the other ran and was cut off"
    server = inbox()
    for unsent, sent in ((elsewhere, 0), (kept, 3), (kept, 3)):
        with Recorder(FLOW_RUN, sender_to(server.port), Artifacts(tmp_path), 0.01, unsent) as sending:
            sending.event(line(2))
        assert len(server.documents("/events")) == sent
    states = {event["resource"]["prefect.resource.name"]: event for event in server.documents("/events")}
    assert states["a"]["resource"]["prefect.state-name"] == "Completed"
    assert states["cut_off"]["resource"]["prefect.state-name"] == "Interrupted"


def test_what_is_left_for_later_is_sent_whole_and_once(inbox: Callable[..., Inbox], tmp_path: Path) -> None:
    """A build of a second does not wait for its server: all of it is kept on disk, and sent after the flow's end."""
    server, kept = inbox(), UnsentEvents(tmp_path / "unsent", "http://here")
    manifest(tmp_path, a="")
    how = Recorder(FLOW_RUN, sender_to(server.port), Artifacts(tmp_path), 60, kept, sparing=Sparing(leaves_rest=True))
    with how as sending:
        sending.event(line(0, ended("a")))
        sending.event(line(1, ended("b", "error")))
    assert (server.accepted, sending.unsent) == ([], 0)
    server.will_not_take = "line 0"
    kept.send(sender_to(server.port)(), lines_alone=True)
    assert not server.documents("/events"), "while the rest of the run is done"
    for _ in range(2):
        kept.send(sender_to(server.port)())
    assert [event["payload"]["task_run"]["name"] for event in server.documents("/events")] == ["a", "b"]
    assert [entry["message"] for entry in server.documents("/logs/")] == ["line 1"], "the other is never taken"
    assert [path for path, _ in server.accepted] == ["/logs/", "/events"], "a server that works off events is slow"


def test_what_is_under_way_when_the_patience_ends_is_kept_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server may never answer, and the process ends."""
    monkeypatch.setattr(module, "CLOSE_SECONDS", 0.1)
    release, asked = threading.Event(), threading.Event()

    def hanging() -> Sender:
        def send(path: str, body: bytes) -> None:
            asked.set()
            release.wait(60)

        return send

    kept = UnsentEvents(tmp_path / "unsent", "http://here")
    with Recorder(FLOW_RUN, hanging, Artifacts(tmp_path), 0.01, kept, sparing=Sparing(lambda _: True)) as sending:
        for number in range(60):
            sending.event(line(number, ended(f"node_{number}")))
        assert asked.wait(60)
    sent: list[str] = []
    kept.send(lambda path, body: sent.extend(entry["id"] for entry in json.loads(body)))
    release.set()
    assert len(set(sent)) == 60


def test_a_run_that_is_stopped_leaves_nothing_for_later(inbox: Callable[..., Inbox], tmp_path: Path) -> None:
    server, kept = inbox(), UnsentEvents(tmp_path / "unsent", "http://here")
    how = Recorder(FLOW_RUN, sender_to(server.port), Artifacts(tmp_path), 60, kept, sparing=Sparing(leaves_rest=True))
    with how as sending:
        sending.event(line(0, ended("a")))
        sending.is_stopped = True
    assert len(server.documents("/events")) == 1


def test_what_a_full_disk_does_not_keep_is_sent_at_once(inbox: Callable[..., Inbox], tmp_path: Path) -> None:
    server = inbox()
    (tmp_path / "file").touch()
    kept = UnsentEvents(tmp_path / "file" / "unsent", "http://here")
    with Recorder(
        FLOW_RUN, sender_to(server.port), Artifacts(tmp_path), 60, kept, sparing=Sparing(leaves_rest=True)
    ) as sending:
        sending.event(line(0, ended("a")))
    assert (len(server.documents("/events")), sending.unsent) == (1, 0)


def test_no_more_events_are_in_flight_than_the_server_has_worked_off(
    inbox: Callable[..., Inbox], tmp_path: Path
) -> None:
    server, asked = inbox(), list[str]()
    is_worked_off = threading.Event()

    def has_recorded(event: Mapping[str, Any]) -> bool:
        asked.append(event["id"])
        return is_worked_off.is_set()

    how = Recorder(FLOW_RUN, sender_to(server.port), Artifacts(tmp_path), 0.01, sparing=Sparing(has_recorded))
    with how as sending:
        for number in range(100):
            sending.event(line(number, ended(f"node_{number}")))
        wait_until(lambda: len(asked) > 3, "it is asked again and again")
        (first,) = [documents for path, documents in server.accepted if path == "/events"]
        assert 0 < len(first) < 100
        assert set(asked) == {first[-1]["id"]}, "the last of them, as they are worked off in their order"
        assert len(server.documents("/logs/")) == 100, "lines are worked off when they are answered"
        is_worked_off.set()
        wait_until(lambda: len(server.documents("/events")) == 100, "the rest follows while dbt still runs")
    assert sending.unsent == 0


def test_a_server_that_records_nothing_holds_nothing_up(
    inbox: Callable[..., Inbox], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_WORKED_OFF_SECONDS", 0.05)
    server = inbox()
    how = Recorder(FLOW_RUN, sender_to(server.port), Artifacts(tmp_path), 0.01, sparing=Sparing(lambda _: False))
    with how as sending:
        for number in range(100):
            sending.event(line(number, ended(f"node_{number}")))
        wait_until(lambda: len(server.documents("/events")) == 100, "all of it is sent while dbt still runs")


def in_folders(name: str, folder: str, status: str = "success", total: int = 100, begun: int = 0) -> DbtEvent:
    times = {"started_at": AT + timedelta(seconds=begun), "finished_at": AT + timedelta(seconds=begun + 3)}
    node = replace(
        ended(name, status), **times, total=total, unique_id=f"{'test' if '_' in name else 'model'}.shop.{name}"
    )
    node = replace(node, resource_type=node.unique_id.partition(".")[0], failures=2 if status == "fail" else None)
    return replace(line(0, node), data={"node_info": {"node_path": f"models/{folder}/{name}.sql"}})


def test_a_large_run_is_drawn_as_folders_with_the_failures_in_front(
    inbox: Callable[..., Inbox], tmp_path: Path
) -> None:
    server = inbox()
    path = manifest(tmp_path, a="", b="a", c="b", d="c", e="c d")
    about = {"name": "unique_b", "resource_type": "test", "attached_node": "model.shop.b"}
    tests = {"test.shop.unique_b": about | {"depends_on": {"nodes": ["model.shop.b"]}}}
    path.write_text(json.dumps({"nodes": json.loads(path.read_text())["nodes"] | tests}))
    with Recorder(FLOW_RUN, sender_to(server.port), Artifacts(tmp_path), 60, task_runs="models") as sending:
        for event in (
            in_folders("a", "staging/shop/raw"),
            in_folders("b", "staging/shop"),
            in_folders("unique_b", "staging/shop/_models.yml", "fail"),
            in_folders("c", "marts/core", "error", begun=2),
            in_folders("d", "marts/core", "skipped", begun=3),
            in_folders("e", "board", "skipped", begun=3),
        ):
            sending.event(event)
    events = {event["payload"]["task_run"]["dynamic_key"]: event for event in server.documents("/events")}
    seen = {key: event["payload"]["task_run"] for key, event in events.items()}
    around = {key: [each["id"] for each in run["task_inputs"].get("__parents__", [])] for key, run in seen.items()}
    staging, marts, board = (f"folder:{name}" for name in ("staging/shop", "marts/core", "board"))
    assert {key: seen[key]["name"] for key in (staging, marts, board)} == {
        staging: "staging/shop: 1 failed",
        marts: "marts/core: 1 failed, 1 not run",
        board: "board: 1 not run",
    }
    assert events[board]["payload"]["validated_state"]["type"] == "CANCELLED"
    assert events[marts]["payload"]["validated_state"]["message"] == "1 not run (d); 1 failed (c)."
    assert around["model.shop.b"] == [str(task_run_id(FLOW_RUN, staging))]
    assert around["model.shop.c"] == around["test.shop.unique_b"] == [], "in front, where they are seen"
    parents = {key: [each["id"] for each in run["task_inputs"]["parents"]] for key, run in seen.items()}
    assert parents[marts] == parents["model.shop.c"] == [str(task_run_id(FLOW_RUN, staging))]
    assert parents[board] == [str(task_run_id(FLOW_RUN, marts))]
    assert parents["model.shop.b"] == [str(task_run_id(FLOW_RUN, "model.shop.a"))]


def test_folders_that_read_each_other_in_a_circle_are_drawn_without_one() -> None:
    """The layout of Prefect's UI follows the edges until there are none."""
    folders = Folders(lambda _: "")
    reads = {"model.shop.a": [], "model.shop.b": ["model.shop.a"], "model.shop.c": ["model.shop.b"]}
    for number, (unique_id, folder) in enumerate(zip(reads, ("left", "right", "left"), strict=True)):
        folders.learn(unique_id, f"models/{folder}/{number}.sql", 100)
        node = replace(ended(unique_id[-1]), started_at=AT + timedelta(seconds=number))
        folders.end(result_of(node), unique_id)
    assert folders.edges(lambda unique_id: reads[unique_id]) == {"left": [], "right": ["left"]}


def test_a_model_whose_tests_fail_or_warn_says_so_in_its_own_state(inbox: Callable[..., Inbox], tmp_path: Path) -> None:
    server = inbox()
    path = manifest(tmp_path, a="", b="")
    tests = {
        f"test.shop.{name}": {"name": name, "resource_type": "test", "attached_node": f"model.shop.{name[-1]}"}
        for name in ("unique_a", "found_a", "odd_b")
    }
    path.write_text(json.dumps({"nodes": json.loads(path.read_text())["nodes"] | tests}))
    with Recorder(FLOW_RUN, sender_to(server.port), Artifacts(tmp_path), 60, task_runs="models") as sending:
        for name, status in (("a", "success"), ("b", "success"), ("unique_a", "fail"), ("found_a", "pass")):
            sending.event(in_folders(name, "shop", status, total=5))
        sending.event(in_folders("odd_b", "shop", "warn", total=5))
    last = {event["payload"]["task_run"]["name"]: event for event in server.documents("/events")}
    states = {name: event["payload"]["validated_state"] for name, event in last.items()}
    assert {key: states["a"][key] for key in ("type", "name", "message")} == {
        "type": "FAILED",
        "name": "Tests failed",
        "message": "1 of 2 tests failed: unique_a (2 rows).",
    }
    assert (states["b"]["type"], states["b"]["name"]) == ("COMPLETED", "Tests warned")
    times = [datetime.fromisoformat(event["occurred"]) for event in server.documents("/events")
             if event["payload"]["task_run"]["name"] == "a"]  # fmt: skip
    assert times == sorted(times), "the server keeps the later of two states"
    assert last["a"]["payload"]["task_run"]["end_time"] == (AT + timedelta(seconds=3)).isoformat(), "of the model"


@pytest.mark.parametrize(
    ("task_runs", "shown"),
    [
        ("all", ["a", "late", "not_null_a", "unique_a", "warned_a", "b", "cut_off"]),
        ("models", ["a", "late", "unique_a", "warned_a", "b", "cut_off"]),
        ("failures", ["late", "unique_a", "warned_a", "b", "cut_off"]),
    ],
)
def test_what_did_not_end_well_has_a_task_run_whatever_was_asked_for(
    inbox: Callable[..., Inbox], tmp_path: Path, task_runs: TaskRuns, shown: list[str]
) -> None:
    server = inbox()
    tests = {
        f"test.shop.{name}": {"name": name, "resource_type": "test", "attached_node": "model.shop.a"}
        | {"depends_on": {"nodes": ["model.shop.a"]}}
        for name in ("not_null_a", "unique_a", "warned_a")
    }
    path = manifest(tmp_path, a="", late="", b="a", cut_off="a")
    path.write_text(json.dumps({"nodes": json.loads(path.read_text())["nodes"] | tests}))

    def tested(name: str, status: str) -> NodeEvent:
        return replace(ended(name, status), unique_id=f"test.shop.{name}", resource_type="test", materialized="test")

    ends = [ended("a"), ended("late", "error"), ended("late"), tested("not_null_a", "pass"), tested("unique_a", "fail")]
    ends += [tested("warned_a", "warn"), ended("b", "skipped")]
    how = Recorder(FLOW_RUN, sender_to(server.port), Artifacts(tmp_path), 60, task_runs=task_runs)
    with how as sending:
        for number, node in enumerate(ends):
            sending.event(line(number, replace(node, status="started", finished_at=None)))
            sending.event(line(number + 100, node))
        sending.event(line(99, replace(ended("cut_off"), status="started", finished_at=None)))
    events = server.documents("/events")
    assert list(dict.fromkeys(event["payload"]["task_run"]["name"] for event in events)) == shown
    last = {event["payload"]["task_run"]["name"]: event["resource"]["prefect.state-name"] for event in events}
    assert last["late"] == "Completed", "what was shown as failed is shown as good when a later attempt went well"
    assert (last["unique_a"], last["warned_a"], last["b"]) == ("Failed", "Warned", "Skipped")
    logged = {entry["message"]: entry["task_run_id"] for entry in server.documents("/logs/")}
    own, models = (str(task_run_id(FLOW_RUN, key)) for key in ("test.shop.not_null_a", "model.shop.a"))
    assert logged["line 103"] == {"all": own, "models": models, "failures": None}[task_runs]
    assert logged["line 104"] == str(task_run_id(FLOW_RUN, "test.shop.unique_a"))


def test_the_sender_is_made_with_the_settings_of_whoever_started_the_run(tmp_path: Path) -> None:
    """Prefect keeps its settings in a context variable, which a new thread does not see by itself."""
    setting: ContextVar[str] = ContextVar("setting", default="the process's own")
    seen: list[str] = []

    def factory() -> Sender:
        seen.append(setting.get())
        return lambda path, body: None

    setting.set("temporary")
    with Recorder(FLOW_RUN, factory, Artifacts(tmp_path / "none"), 0.01) as sending:
        sending.event(line(0))
    assert seen == ["temporary"]


def test_an_id_is_the_same_for_the_same_node_of_the_same_run() -> None:
    assert task_run_id(FLOW_RUN, "model.a") == task_run_id(FLOW_RUN, "model.a")
    assert task_run_id(FLOW_RUN, "model.a") != task_run_id(FlowRun(UUID(int=2), "x"), "model.a")
