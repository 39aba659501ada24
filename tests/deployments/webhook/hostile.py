"""Ask a receiver for what its own description allows, and for much that it does not.

`uv run --isolated --group hostile python -m tests.deployments.webhook.hostile 2000` prints one JSON document: how many
cases there were, how many were answered with each status, and what was wrong. The group has the generator of requests.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.generation import GenerationMode

from deployments.webhook.inbox.inbox import SpoolInbox
from deployments.webhook.inbox.metrics import Metrics
from deployments.webhook.inbox.spool import Spool
from deployments.webhook.receive.app import create_app, desk_of
from deployments.webhook.receive.settings import load_settings
from tests.support.webhook.deliveries import GOOGLE_ADS, SECRET, write_project

# Who shows the secret gets further in; who does not is to be turned away by every request alike.
_KEYS = (True, False)


def main(cases: int) -> None:
    """Generate, ask, count."""
    print("the generator's environment is there", flush=True)
    logging.disable()
    statuses: Counter[int] = Counter()
    wrong: list[str] = []

    def ask(case: Any, has_key: bool, is_allowed: bool) -> None:
        if has_key and "secret" in (case.path_parameters or {}):
            case.path_parameters["secret"] = SECRET
        _name_a_known_connection(case.body)
        case.headers = {**(case.headers or {}), **({"x-api-key": SECRET} if has_key else {})}
        answer = case.call()
        statuses[answer.status_code] += 1
        documented = case.operation.definition.raw["responses"]
        # What the router answers is not the receiver's: a generated secret can make a path another one.
        is_documented = str(answer.status_code) in documented or answer.status_code in (404, 405)
        is_refused = is_allowed and has_key and answer.status_code >= 400
        if answer.status_code >= 500 or not is_documented or is_refused:
            wrong.append(f"{case.method} {case.path} {answer.status_code} {answer.text}: {str(case.body)[:300]}")

    with tempfile.TemporaryDirectory() as name, closing(Spool(Path(name) / "spool.db")) as spool:
        project = write_project(Path(name) / "project")
        receiver = load_settings(secret=SECRET, wrong_per_minute=10**9, project_dir=project)
        app = create_app(desk_of(receiver, SpoolInbox(spool, lambda: None), Metrics()))
        schema = schemathesis.openapi.from_asgi("/openapi.json", app)
        operations = [result.ok() for result in schema.get_all_operations()]
        # What takes nothing has nothing that could be wrong.
        taking = [operation for operation in operations if operation.body]
        share = cases // (len(taking) * len(GenerationMode) * len(_KEYS))
        for operation in operations:
            for mode in GenerationMode if operation in taking else [GenerationMode.POSITIVE]:
                for has_key in _KEYS:
                    is_allowed = mode is GenerationMode.POSITIVE
                    asking = partial(ask, has_key=has_key, is_allowed=is_allowed)
                    _explore(operation.as_strategy(generation_mode=mode), asking, share)
        stored = len(spool.events(limit=-1))
    print(json.dumps({"cases": statuses.total(), "statuses": dict(statuses), "stored": stored, "wrong": wrong[:5]}))


def _explore(strategy: Any, ask: Callable[[Any], None], cases: int) -> None:
    @settings(
        max_examples=cases,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=strategy)
    def each(case: Any) -> None:
        ask(case)

    each()


def _name_a_known_connection(body: Any) -> None:
    """Put in an id that the project knows, which no generator guesses, so that more than the door is tried."""
    if not isinstance(body, dict):
        return
    data = body.get("data")
    connection = data.get("connection") if isinstance(data, dict) else None
    if isinstance(connection, dict) and isinstance(connection.get("id"), str):
        connection["id"] = GOOGLE_ADS
    if isinstance(body.get("connectionId"), str):
        body["connectionId"] = GOOGLE_ADS


if __name__ == "__main__":
    main(int(sys.argv[1]))
