"""A dbt Cloud account on this machine: its published API, with the faults of a real network on demand."""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

import orjson

from tests.support.cloud import contract

Json = dict[str, Any]

TOKEN = "dbtc_a-token-of-the-tests"
ACCOUNT = 4242
PAGE = 100
# Not of dbt Cloud: from here a benchmark in another process sets what goes wrong, and asks what was sent.
CONTROL = "/control"

# What can become of a request.
LOST = "lost"  # carried out, and the answer never comes
LOST_BEFORE = "lost before"  # not carried out, and no answer comes
BROKEN = "broken"  # not carried out: 500
GATEWAY = "gateway"  # carried out, and answered by a proxy's page: 502
TWICE = "twice"  # carried out twice, as when something on the way repeats it
CLOSED = "closed"  # 429
KINDS = (LOST, LOST_BEFORE, BROKEN, GATEWAY, TWICE)


@dataclass
class Faults:
    """What goes wrong.

    Attributes:
        rate: share of requests that go wrong by chance, each in one of `kinds`.
        planned: (method, part of the path, kind) for one request each.
        limit_per_minute: requests before the account is closed for `cooldown_seconds`.
    """

    rate: float = 0.0
    kinds: tuple[str, ...] = KINDS
    planned: list[tuple[str, str, str]] = field(default_factory=list)
    limit_per_minute: int | None = None
    cooldown_seconds: float = 0.5
    says_retry_after: bool = False
    random: random.Random = field(default_factory=lambda: random.Random(7))

    def of(self, method: str, path: str) -> str | None:
        """Return what is to go wrong with a request."""
        for planned in self.planned:
            if planned[0] == method and planned[1] in path:
                self.planned.remove(planned)
                return planned[2]
        if self.rate and self.random.random() < self.rate:
            kind = self.random.choice(self.kinds)
            # Only what writes can be lost after it was done, or done twice.
            return kind if method == "POST" or kind not in (LOST, TWICE, GATEWAY) else BROKEN
        return None


class Refusal(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, message: str, data: object = None) -> None:
        super().__init__(message)
        self.status, self.message, self.data = status, message, data


class Account:
    """What dbt Cloud holds of an account."""

    def __init__(self, *, lists_variables: bool = True) -> None:
        self.jobs: dict[int, Json] = {}
        self.variables: dict[int, dict[str, Json]] = {}
        self.project_variables: dict[int, set[str]] = {}
        self.environments: dict[int, set[int]] = {}
        self.runs: dict[int, Json] = {}
        self.artifacts: dict[tuple[int, int | None, str], bytes] = {}
        self.outcomes: deque[Json] = deque()
        self.lists_variables = lists_variables
        self.faults = Faults()
        self.latency_seconds = 0.0
        self.requests: Counter[str] = Counter()
        self.log: list[tuple[str, str]] = []
        self.mistakes: list[str] = []
        self.closed = 0
        self._next_id = 70_403_103_900_000
        self._taken: deque[float] = deque()
        self._closed_until = 0.0
        self._encoded: dict[int, bytes] = {}

    def new_id(self) -> int:
        """Return an id beyond 32 bits, as the real ones can be."""
        self._next_id += 1
        return self._next_id

    def control(self, wanted: Json) -> Json:
        """Set latency and faults, create jobs of others, and return what has been sent so far."""
        for body in wanted.get("jobs", ()):
            self.create(body)
        for name in wanted.keys() & {"latency_seconds", "lists_variables"}:
            setattr(self, name, wanted[name])
        for name in wanted.keys() & {"rate", "limit_per_minute", "cooldown_seconds"}:
            setattr(self.faults, name, wanted[name])
        for project, names in wanted.get("variables", {}).items():
            self.project_variables.setdefault(int(project), set()).update(names)
        return {"requests": dict(self.requests), "mistakes": self.mistakes[:5], "closed": self.closed}

    # -- jobs ----------------------------------------------------------------------------------------------------

    def create(self, body: Json) -> Json:
        self._check("HumanReadableJobDefinitionRequest", body)
        job_id = self.new_id()
        now = datetime.now(UTC).isoformat()
        self.jobs[job_id] = {**self._answer(body), "id": job_id, "created_at": now, "updated_at": now}
        self._own(job_id)
        return self.jobs[job_id]

    def update(self, job_id: int, body: Json) -> Json:
        job = self.job(job_id)
        self._check("HumanReadableJobDefinitionRequest", body)
        now = datetime.now(UTC).isoformat()
        # What is left out falls back to its default, as with any whole update.
        self.jobs[job_id] = {**self._answer(body), "id": job_id, "created_at": job["created_at"], "updated_at": now}
        self._own(job_id)
        return self.jobs[job_id]

    def by_hand(self, job_id: int, **fields: Any) -> None:
        """Change a job as somebody does in the browser."""
        self.jobs[job_id].update(fields)
        self._own(job_id)

    def job(self, job_id: int) -> Json:
        if job_id not in self.jobs or self.jobs[job_id]["state"] != 1:
            raise Refusal(404, "The requested resource was not found.")
        return self.jobs[job_id]

    def _answer(self, body: Json) -> Json:
        triggers = body["triggers"]
        job_type = "ci" if triggers.get("git_provider_webhook") or triggers["github_webhook"] else None
        job_type = job_type or (
            "merge" if triggers.get("on_merge") else "scheduled" if triggers["schedule"] else "other"
        )
        return {
            "dbt_version": None,
            "description": "",
            "execute_steps": [],
            "deferring_environment_id": None,
            "deferring_job_definition_id": None,
            "compare_changes_flags": "--select state:modified",
            "cost_optimization_features": [],
            "triggers_on_draft_pr": False,
            "generate_sources": False,
            "job_completion_trigger_condition": None,
            "job_type": job_type,
            **body,
            "schedule": self._schedule(body.get("schedule")),
            "account": None,
            "project": None,
            "environment": None,
            "fusion_readiness": None,
            "raw_dbt_version": None,
            "is_deferrable": False,
            "run_failure_count": 0,
            "lifecycle_webhooks_url": "",
            "cron_humanized": "",
            "next_run": None,
            "deactivated": False,
        }

    @staticmethod
    def _schedule(schedule: Json | None) -> Json:
        if schedule is None:
            return {"cron": "0 * * * *", "date": {"type": "every_day"}, "time": {"type": "every_hour", "interval": 1}}
        # The minute of what is no cron line is the server's to choose.
        hours = ",".join(str(hour) for hour in schedule["time"].get("hours") or []) or "*"
        days = ",".join(str(day) for day in schedule["date"].get("days") or []) or "*"
        return {**schedule, "cron": schedule["date"].get("cron") or f"6 {hours} * * {days}"}

    def _own(self, job_id: int) -> None:
        if problem := contract.mistakes("HumanReadableJobDefinitionResponse", self.jobs[job_id]):
            self.mistakes.append(f"answer with job {job_id}: {problem}")
        self._encoded.pop(job_id, None)

    def _check(self, name: str, body: object) -> None:
        if problem := contract.mistakes(name, body):
            self.mistakes.append(f"{name}: {problem}")
            raise Refusal(400, "The request was not valid.", problem)

    def listed(self, params: Json) -> bytes:
        """Return a page of jobs; each job's text is kept, so that the server is not what is measured."""
        self._known(params, contract.JOB_LIST_PARAMETERS)
        jobs = [job for job in self.jobs.values() if job["state"] == 1]
        if "project_id__in" in params:
            wanted = set(orjson.loads(params["project_id__in"]))
            jobs = [job for job in jobs if job["project_id"] in wanted]
        for name in ("environment_id", "project_id"):
            if name in params:
                jobs = [job for job in jobs if job[name] == int(params[name])]
        if "name__icontains" in params:
            part = params["name__icontains"].casefold()
            jobs = [job for job in jobs if part in job["name"].casefold()]
        with_variables = "custom_environment_variables" in params.get("include_related", "") and self.lists_variables
        page, pagination = self._page(jobs, params)
        parts = [self._text(job, with_variables) for job in page]
        extra = orjson.dumps({"filters": params, "order_by": "id", "pagination": pagination})
        return b'{"data":[%b],"extra":%b,"status":%b}' % (b",".join(parts), extra, orjson.dumps(_status(200, "")))

    def _text(self, job: Json, with_variables: bool) -> bytes:
        if with_variables:
            return orjson.dumps({**job, "custom_environment_variables": self._listed_variables(job)})
        text = self._encoded.get(job["id"])
        if text is None:
            text = self._encoded[job["id"]] = orjson.dumps(job)
        return text

    def _listed_variables(self, job: Json) -> list[Json]:
        shared = {"account_id": job["account_id"], "project_id": job["project_id"], "type": "job"}
        return [
            {**shared, "name": name, "display_value": entry["value"], "job_definition_id": job["id"], "state": 1}
            for name, entry in self.variables.get(job["id"], {}).items()
        ]

    @staticmethod
    def _page(found: list[Json], params: Json) -> tuple[list[Json], Json]:
        limit, offset = int(params.get("limit", PAGE)), int(params.get("offset", 0))
        if limit > PAGE:
            raise Refusal(400, f"limit may be {PAGE} at most")
        found.sort(key=lambda it: it["id"], reverse=params.get("order_by", "id").startswith("-"))
        page = found[offset : offset + limit]
        return page, {"count": len(page), "total_count": len(found)}

    @staticmethod
    def _known(params: Json, names: frozenset[str]) -> None:
        if unknown := sorted(params.keys() - names):
            raise Refusal(400, f"Additional properties are not allowed ({', '.join(unknown)} was unexpected)")

    # -- variables -----------------------------------------------------------------------------------------------

    def write_variable(self, project_id: int, body: Json, variable_id: int | None) -> Json:
        self._check("CustomEnvironmentVariableRequest", body)
        job_id, name = body["job_definition_id"], body["name"]
        self.job(job_id)
        if name not in self.project_variables.get(project_id, set()):
            raise Refusal(400, f"{name} is not declared by the project")
        there = self.variables.setdefault(job_id, {})
        if variable_id is None and name in there:
            raise Refusal(400, f"{name} is overridden already")
        value = "**********" if name.startswith("DBT_ENV_SECRET_") else body["raw_value"]
        there[name] = {"id": variable_id or self.new_id(), "value": value}
        now = datetime.now(UTC).isoformat()
        shown = {key: value for key, value in body.items() if key != "raw_value"}
        return {**shown, "id": there[name]["id"], "environment": None, "created_at": now, "updated_at": now}

    def delete_variable(self, variable_id: int) -> None:
        for there in self.variables.values():
            for name, entry in there.items():
                if entry["id"] == variable_id:
                    del there[name]
                    return
        raise Refusal(404, "The requested resource was not found.")

    # -- runs ----------------------------------------------------------------------------------------------------

    def start(self, job_id: int, body: Json, **more: Any) -> Json:
        self.job(job_id)
        self._check("TriggerRunRequestRequest", body)
        run_id = self.new_id()
        now = datetime.now(UTC).isoformat(sep=" ")
        outcome = self.outcomes.popleft() if self.outcomes else {}
        self.runs[run_id] = {
            "id": run_id,
            "job_definition_id": job_id,
            "job_id": job_id,
            "account_id": ACCOUNT,
            "status": 1,
            "status_message": None,
            "created_at": now,
            "updated_at": now,
            "href": f"https://cloud.example/runs/{run_id}",
            "trigger": {"cause": body["cause"], "job_definition_id": job_id, "cause_category": "api"},
            "can_retry": False,
            "run_steps": [],
            "_outcome": {"status": 10, "polls": 2, "steps": [], **outcome},
            **more,
        }
        for step, path, content in self.runs[run_id]["_outcome"].get("artifacts", []):
            self.artifacts[run_id, step, path] = content
        return self.shown(run_id)

    def shown(self, run_id: int, advance: bool = False) -> Json:
        """Return a run; it goes on a bit each time that somebody looks."""
        if run_id not in self.runs:
            raise Refusal(404, "The requested resource was not found.")
        run = self.runs[run_id]
        outcome = run["_outcome"]
        if advance and run["status"] < 10:
            outcome["polls"] -= 1
            run["status"] = min(3, run["status"] + 1)
            if outcome["polls"] <= 0:
                run["status"] = outcome["status"]
                run["status_message"] = outcome.get("message")
                run["run_steps"] = outcome["steps"]
                run["can_retry"] = outcome.get("can_retry", outcome["status"] == 20)
                run["finished_at"] = datetime.now(UTC).isoformat(sep=" ")
        status = run["status"]
        answer = {key: value for key, value in run.items() if not key.startswith("_")}
        answer |= {
            "is_complete": status >= 10,
            "is_success": status == 10,
            "is_error": status == 20,
            "is_cancelled": status == 30,
            "in_progress": status < 10,
            "started_at": run["created_at"] if status >= 3 else None,
        }
        if problem := contract.mistakes("RunResponse", answer):
            self.mistakes.append(f"answer with run {run_id}: {problem}")
        return answer

    # -- requests ------------------------------------------------------------------------------------------------

    def over_limit(self) -> bool:
        """Count a request and return whether the account is closed."""
        now = time.monotonic()
        if now < self._closed_until:
            return True
        if self.faults.limit_per_minute is None:
            return False
        self._taken.append(now)
        while self._taken and self._taken[0] < now - 60:
            self._taken.popleft()
        if len(self._taken) > self.faults.limit_per_minute:
            self._closed_until = now + self.faults.cooldown_seconds
            self.closed += 1
            self._taken.clear()
            return True
        return False

    def answer(self, method: str, path: str, params: Json, body: Any) -> tuple[int, bytes]:
        """Carry out a request."""
        for verb, pattern, do in _ROUTES:
            if verb == method and (found := pattern.fullmatch(path)):
                try:
                    if int(found["account"]) != ACCOUNT:
                        raise Refusal(404, "No such account")
                    numbers = {name: int(text) for name, text in found.groupdict().items() if name != "path"}
                    numbers.pop("account")
                    status, data = do(self, params, body, found.groupdict().get("path"), **numbers)
                except Refusal as refusal:
                    said = {"data": refusal.data, "status": _status(refusal.status, refusal.message), "extra": {}}
                    return refusal.status, orjson.dumps(said)
                if isinstance(data, bytes):
                    return status, data
                return status, orjson.dumps({"data": data, "status": _status(status, ""), "extra": {}})
        return 404, orjson.dumps({"data": None, "status": _status(404, f"no route {method} {path}")})


def _status(code: int, message: str) -> Json:
    is_well = code < 400
    said = "Success!" if is_well else message
    return {"code": code, "is_success": is_well, "user_message": said, "developer_message": ""}


def _list_jobs(account: Account, params: Json, body: Any, path: str | None) -> tuple[int, bytes]:
    return 200, account.listed(params)


def _create(account: Account, params: Json, body: Any, path: str | None) -> tuple[int, Any]:
    return 200, account.create(body)


def _read(account: Account, params: Json, body: Any, path: str | None, job: int) -> tuple[int, Any]:
    return 200, account.job(job)


def _update(account: Account, params: Json, body: Any, path: str | None, job: int) -> tuple[int, Any]:
    return 200, account.update(job, body)


def _delete(account: Account, params: Json, body: Any, path: str | None, job: int) -> tuple[int, Any]:
    account.job(job)["state"] = 2
    return 204, b""


def _trigger(account: Account, params: Json, body: Any, path: str | None, job: int) -> tuple[int, Any]:
    return 200, account.start(job, body)


def _list_runs(account: Account, params: Json, body: Any, path: str | None) -> tuple[int, Any]:
    account._known(params, contract.RUN_LIST_PARAMETERS)
    runs = [run for run in account.runs.values() if run["job_definition_id"] == int(params["job_definition_id"])]
    page, pagination = account._page(runs, params)
    extra = {"filters": params, "order_by": params.get("order_by", "id"), "pagination": pagination}
    document = {"data": [account.shown(run["id"]) for run in page], "extra": extra, "status": _status(200, "")}
    return 200, orjson.dumps(document)


def _read_run(account: Account, params: Json, body: Any, path: str | None, run: int) -> tuple[int, Any]:
    return 200, account.shown(run, advance=True)


def _cancel(account: Account, params: Json, body: Any, path: str | None, run: int) -> tuple[int, Any]:
    if account.runs[run]["status"] < 10:
        account.runs[run]["status"] = 30
    return 200, account.shown(run)


def _retry(account: Account, params: Json, body: Any, path: str | None, run: int) -> tuple[int, Any]:
    before = account.runs[run]
    if not before["can_retry"]:
        raise Refusal(400, "This run cannot be retried")
    return 200, account.start(before["job_id"], {"cause": before["trigger"]["cause"]}, retrying_run_id=run)


def _artifacts(account: Account, params: Json, body: Any, path: str | None, run: int) -> tuple[int, Any]:
    return 200, sorted({name for number, _, name in account.artifacts if number == run})


def _artifact(account: Account, params: Json, body: Any, path: str | None, run: int) -> tuple[int, Any]:
    steps = [step for number, step, name in account.artifacts if number == run and name == path]
    # Without a step it is the last one's; what is of no step is the whole run's.
    last = max((it for it in steps if it is not None), default=None)
    step = int(params["step"]) if "step" in params else last
    content = account.artifacts.get((run, step, path or ""))
    if content is None:
        raise Refusal(404, "The requested resource was not found.")
    return 200, content


def _variables(account: Account, params: Json, body: Any, path: str | None, project: int) -> tuple[int, Any]:
    there = account.variables.get(int(params["job_definition_id"]), {})
    names = account.project_variables.get(project, set())
    return 200, {
        name: {"project": {"id": 1, "value": ""}, **({"job": there[name]} if name in there else {})} for name in names
    }


def _project_variables(account: Account, params: Json, body: Any, path: str | None, project: int) -> tuple[int, Any]:
    names = sorted(account.project_variables.get(project, set()))
    return 200, {
        "environments": ["project"],
        "variables": {name: {"project": {"id": 1, "value": ""}} for name in names},
    }


def _write_variable(
    account: Account, params: Json, body: Any, path: str | None, project: int, variable: int | None = None
) -> tuple[int, Any]:
    return 200, account.write_variable(project, body, variable)


def _delete_variable(
    account: Account, params: Json, body: Any, path: str | None, project: int, variable: int
) -> tuple[int, Any]:
    account.delete_variable(variable)
    return 204, b""


def _environments(account: Account, params: Json, body: Any, path: str | None, project: int) -> tuple[int, Any]:
    found = [{"id": it, "project_id": project, "name": str(it)} for it in account.environments.get(project, set())]
    return 200, found


def _route(verb: str, path: str, do: Any) -> tuple[str, re.Pattern[str], Any]:
    pattern = path.replace("{path}", "(?P<path>.+)")
    return verb, re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>\\d+)", pattern)), do


_V2, _V3 = "/api/v2/accounts/{account}", "/api/v3/accounts/{account}/projects/{project}"
_ROUTES = [
    _route("GET", f"{_V2}/jobs/", _list_jobs),
    _route("POST", f"{_V2}/jobs/", _create),
    _route("GET", f"{_V2}/jobs/{{job}}/", _read),
    _route("POST", f"{_V2}/jobs/{{job}}/", _update),
    _route("DELETE", f"{_V2}/jobs/{{job}}/", _delete),
    _route("POST", f"{_V2}/jobs/{{job}}/run/", _trigger),
    _route("GET", f"{_V2}/runs/", _list_runs),
    _route("GET", f"{_V2}/runs/{{run}}/", _read_run),
    _route("POST", f"{_V2}/runs/{{run}}/cancel/", _cancel),
    _route("POST", f"{_V2}/runs/{{run}}/retry/", _retry),
    _route("GET", f"{_V2}/runs/{{run}}/artifacts/", _artifacts),
    _route("GET", f"{_V2}/runs/{{run}}/artifacts/{{path}}", _artifact),
    _route("GET", f"{_V3}/environment-variables/job/", _variables),
    _route("GET", f"{_V3}/environment-variables/environment/", _project_variables),
    _route("POST", f"{_V3}/environment-variables/", _write_variable),
    _route("POST", f"{_V3}/environment-variables/{{variable}}/", _write_variable),
    _route("DELETE", f"{_V3}/environment-variables/{{variable}}/", _delete_variable),
    _route("GET", f"{_V3}/environments/", _environments),
]


def application(account: Account) -> Any:
    """Return the ASGI application of an account."""

    async def app(scope: Json, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        method, path = scope["method"], scope["path"]
        chunks: list[bytes] = []
        while True:
            message = await receive()
            chunks.append(message.get("body", b""))
            if not message.get("more_body"):
                break
        content = b"".join(chunks)
        if path == CONTROL:
            await _send(send, 200, orjson.dumps(account.control(orjson.loads(content) if content else {})))
            return
        account.requests[method] += 1
        account.log.append((method, path))
        if account.latency_seconds:
            await asyncio.sleep(account.latency_seconds)
        headers = {name.decode().lower(): value.decode() for name, value in scope["headers"]}
        if headers.get("authorization") not in (f"Bearer {TOKEN}", f"Token {TOKEN}"):
            await _send(send, 401, orjson.dumps({"data": None, "status": _status(401, "Invalid token.")}))
            return
        fault = account.faults.of(method, path)
        if fault == CLOSED or account.over_limit():
            more = [(b"retry-after", b"1")] if account.faults.says_retry_after else []
            await _send(send, 429, orjson.dumps({"data": None, "status": _status(429, "Too many requests")}), more)
            return
        if fault == BROKEN:
            await _send(send, 500, orjson.dumps({"data": None, "status": _status(500, "Something went wrong")}))
            return
        if fault == LOST_BEFORE:
            await _until_gone(receive)
            return
        body = orjson.loads(content) if content else None
        params = dict(parse_qsl(scope["query_string"].decode()))
        status, answer = account.answer(method, path, params, body)
        if fault == TWICE:
            account.answer(method, path, params, body)
        if fault == LOST:
            await _until_gone(receive)
            return
        if fault == GATEWAY:
            await _send(send, 502, b"<html>Bad gateway</html>")
            return
        await _send(send, status, answer)

    return app


async def _until_gone(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send(send: Any, status: int, body: bytes, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    start = {"type": "http.response.start", "status": status}
    await send({**start, "headers": [(b"content-type", b"application/json"), *(headers or [])]})
    await send({"type": "http.response.body", "body": body})


@contextmanager
def serving(account: Account) -> Iterator[str]:
    """Serve an account in a thread of this process; yields its address."""
    import uvicorn

    config = uvicorn.Config(application(account), port=0, log_level="critical", lifespan="off", access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started:
        if time.monotonic() > deadline or not thread.is_alive():
            raise RuntimeError("the server of the tests did not start")
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        server.force_exit = True
        thread.join(10)


def main() -> None:
    """Serve an empty account until somebody stops it."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--latency-ms", type=float, default=0.0)
    options = parser.parse_args()
    account = Account()
    account.latency_seconds = options.latency_ms / 1000
    with serving(account) as address:
        print(f"DBTCLOUD_HOST_URL={address} DBTCLOUD_ACCOUNT_ID={ACCOUNT} DBTCLOUD_TOKEN={TOKEN}", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
