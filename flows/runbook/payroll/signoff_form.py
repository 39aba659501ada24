"""The sign-off form in Prefect: show it and wait, in this process or suspended; answer it from another process."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from flows.runbook.payroll.signoff import ROLES, Decision, SignoffAnswer, is_same_person
from infrastructure.errors import ConfigError, PayrollStopped
from infrastructure.yaml_file import meant

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun
    from prefect.input import RunInput

_KEY = "sign-"
_INPUTS = 200


def ask(number: int, roles: Sequence[str], text: str, timeout_seconds: float, poll_seconds: int) -> SignoffAnswer:
    """Wait for an answer to the form, and return it.

    A run of a deployment is suspended: its process ends, and after a resumption the flow runs again from its start,
    where answered questions return at once. Any other run waits in its process.

    Args:
        number: the first question of a flow run is 1; the same number means the same question after a resumption.
        roles: those that have not signed.
        text: what they sign, in Markdown.

    Raises:
        PayrollStopped: there was no answer in time.
    """
    from prefect.context import FlowRunContext
    from prefect.exceptions import FlowPauseTimeout
    from prefect.flow_runs import pause_flow_run, suspend_flow_run

    form, key, seconds = _form(roles, text), f"{_KEY}{number}", max(1, int(timeout_seconds))
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    try:
        if run and run.deployment_id and not run.parent_task_run_id:
            given = suspend_flow_run(wait_for_input=form, timeout=seconds, key=key)
        else:
            given = pause_flow_run(wait_for_input=form, timeout=seconds, key=key, poll_interval=poll_seconds)
    except FlowPauseTimeout as exc:
        raise PayrollStopped(f"No signature as {' or '.join(roles)} arrived in time. Start it again.") from exc
    return _answer(key, cast(Any, given).model_dump())


@dataclass(frozen=True)
class Asked:
    """What a flow run waits for.

    Attributes:
        roles: those that have not signed.
        answers: earlier answers to its forms, oldest first.
    """

    flow_run_id: UUID
    name: str
    roles: tuple[str, ...]
    answers: tuple[SignoffAnswer, ...]


def sign(run: str, role: str, who: str, decision: Decision, comment: str) -> Asked:
    """Fill in the form of a waiting flow run, and return what it waited for.

    Args:
        run: the id or the name of the flow run.

    Raises:
        ConfigError: there is no such run, it does not wait for this, or the person has signed for another role.
        UpstreamUnavailable: the Prefect server does not answer.
    """
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.responses import SetStateStatus

    try:
        with get_client(sync_client=True) as client:
            asked = _asked(client, _find(client, run))
            if role not in asked.roles:
                roles = ", ".join(asked.roles)
                raise ConfigError(f"Flow run {asked.name} does not wait for {role!r}; it waits for {roles}.")
            before = [answer for answer in asked.answers if answer.decision == "approve" and answer.role != role]
            # The flow decides this; checking it here gives the answer at once.
            if same := next((a for a in before if decision == "approve" and is_same_person(a.who, who)), None):
                raise ConfigError(f"{who} has signed as {same.role}: three roles are three persons.")
            given: dict[str, Any] = {"role": role, "who": who, "decision": decision, "comment": comment}
            done = client.resume_flow_run(asked.flow_run_id, run_input=given)
    except httpx.HTTPError as exc:
        from infrastructure.server.client import in_words

        raise in_words(exc) from (None if isinstance(exc, httpx.HTTPStatusError) else exc)
    if done.status != SetStateStatus.ACCEPT:
        reason = getattr(done.details, "reason", None) or "it gave no reason"
        raise ConfigError(f"The Prefect server refused the signature for flow run {asked.name}: {reason}")
    return asked


def waiting(target: str) -> list[Asked]:
    """Return the flow runs on a target that wait for a signature."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
    from prefect.client.schemas.objects import StateType

    paused = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PAUSED])))
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_run_filter=paused, limit=_INPUTS)
        mine = [run for run in runs if _is_asking(run) and (run.parameters or {}).get("target", target) == target]
        found: list[Asked] = []
        for run in mine:
            # A paused run whose form does not exist yet can't be answered at this moment.
            with suppress(ConfigError):
                found.append(_asked(client, run))
        return found


def _form(roles: Sequence[str], text: str) -> type[RunInput]:
    """Return the form as a class: the server checks answers against its JSON schema, and the UI shows it."""
    from prefect.input import RunInput
    from pydantic import Field, create_model

    what = "; ".join(f"**{role}**: {ROLES[role]}" for role in roles)
    # The choices are in the schema only, so that answers to earlier questions can be read with a later form.
    fields: dict[str, Any] = {
        "role": (
            str,
            Field(
                title="I sign as",
                description=f"It says, as {what}.",
                json_schema_extra={"enum": list(roles)},
            ),
        ),
        "who": (
            str,
            Field(
                title="My name",
                min_length=1,
                description="Full name or e-mail address. One person can't sign for two roles.",
            ),
        ),
        "decision": (
            Decision,
            Field(title="Decision", description="A rejection ends this payroll; nothing is exported."),
        ),
        "comment": (
            str,
            Field(
                default="",
                title="Comment",
                description="Kept with the signature. With a rejection: the reason.",
            ),
        ),
    }
    form = create_model("SignOff", __base__=RunInput, **fields)
    form._description = text  # pyright: ignore[reportPrivateUsage]  (what RunInput.with_initial_data does)
    return form


def _find(client: SyncPrefectClient, run: str) -> FlowRun:
    from uuid import UUID

    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
    from prefect.exceptions import ObjectNotFound

    try:
        return client.read_flow_run(UUID(run))
    except ObjectNotFound:
        pass
    except ValueError:
        named = client.read_flow_runs(flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=[run])), limit=20)
        asking = [each for each in named if _is_asking(each)]
        if len(asking) == 1 or (named and not asking):
            return (asking or named)[0]
        if asking:
            ids = ", ".join(str(each.id) for each in asking)
            raise ConfigError(f"Several flow runs named {run!r} wait for a signature: give the id, {ids}.") from None
    there = [each.name for each in client.read_flow_runs(limit=_INPUTS) if _is_asking(each)]
    hint = meant(run, there) or (f" Waiting for a signature: {', '.join(there)}." if there else ".")
    raise ConfigError(f"The Prefect server knows no flow run {run!r}{hint}")


def _asked(client: SyncPrefectClient, run: FlowRun) -> Asked:
    if not _is_asking(run):
        state = run.state.name if run.state else "without a state"
        raise ConfigError(f"Flow run {run.name} does not wait for a signature: it is {state}.")
    assert run.state is not None
    keyset = run.state.state_details.run_input_keyset or {}
    inputs = {
        entry.key: entry.decoded_value
        for entry in client.filter_flow_run_input(run.id, key_prefix="", limit=_INPUTS, exclude_keys=set())
    }
    schema = inputs.get(keyset["schema"])
    if schema is None:
        raise ConfigError(
            f"Flow run {run.name} has not shown its form yet. Try again; if it stays so, it was killed at that "
            "moment: cancel it and start payroll again."
        )
    answers = [
        _answer(key, cast(dict[str, Any], value))
        for key, value in sorted(inputs.items(), key=_number)
        if key.endswith("-response")
    ]
    return Asked(run.id, run.name, tuple(schema["properties"]["role"]["enum"]), tuple(answers))


def _is_asking(run: FlowRun) -> bool:
    if run.state is None or not run.state.is_paused():
        return False
    keyset = run.state.state_details.run_input_keyset or {}
    return f"-{_KEY}" in keyset.get("schema", "")


def _number(entry: tuple[str, object]) -> int:
    digits = entry[0].removesuffix("-response").rpartition("-")[2]
    return int(digits) if digits.isdigit() else 0


def _answer(key: str, given: dict[str, Any]) -> SignoffAnswer:
    decision: Decision = "approve" if given.get("decision") == "approve" else "reject"
    comment = str(given.get("comment") or "").strip()
    return SignoffAnswer(key, str(given.get("role", "")), str(given.get("who", "")).strip(), decision, comment)
