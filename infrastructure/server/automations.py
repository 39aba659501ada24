"""The automations with which the Prefect server sends alerts for processes that can't.

A flow sends its own alerts (flows/alerts/hooks.py). A process that was killed, a run that no worker picks up and a work
pool without workers can't. For these the server has automations, with the same Slack webhook and PagerDuty service.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from infrastructure.blocks.documents import Reference
from infrastructure.plan import Change, FieldChange

# A flow emits the first event when it has sent its alert, so that the server need not; and the second when it could
# not, so that the server does. Their resource is the flow run.
TOLD_EVENT = "tributary.alert.told"
UNSENT_EVENT = "tributary.alert.unsent"

# A deployment with this tag has its runs begun again, so many times at most, when their process is gone. The second is
# the state that they have until a worker takes them up.
RESUMES_TAG = "resume-after-crash:"
RESUMING = "Resuming"
# How the message of a run ends that was taken for gone: one that lives takes that back.
SAID_GONE = ": its process is gone."
# What `resume_after_crash` can be.
MOST_RESUMES = 10
# Between heartbeats, which is the least that Prefect takes.
HEARTBEAT_SECONDS = 30

# Setup recognises its own automations by this prefix, and leaves all others alone.
PREFIX = "Tributary: "

_ENDED = tuple(f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed", "TimedOut"))
_RUNNING = "prefect.flow-run.Running"
_STARTED = ("prefect.flow-run.Pending", _RUNNING, "prefect.flow-run.Cancelling", *_ENDED)
_HEARTBEAT = "prefect.flow-run.heartbeat"
_CRASHED, _RESUMED = "prefect.flow-run.Crashed", f"prefect.flow-run.{RESUMING}"
# What the names of the automations have that begin runs again.
_TO_GO_ON = ", to go on "
_FLOW_RUN = "prefect.flow-run.*"
_WORK_POOL = "prefect.work-pool.*"
_ESCAPED = '{% filter replace("&", "&amp;")|replace("<", "&lt;")|replace(">", "&gt;") %}'


@dataclass(frozen=True)
class Patience:
    """How long, in seconds, the server waits before it sends an alert.

    Attributes:
        told: for the process of a crashed run to send the alert itself.
        late: after a run is late (15 s after its time, by default) for it to start.
        unhealthy: for a pool without workers to have one again; the server calls a worker gone after three
            heartbeats, which is a minute and a half.
        silent: for the next heartbeat of a run. Runs send one every three minutes.
        stuck: for a run to end.
        gone: for the next heartbeat of a run that is to be resumed; such runs send one every HEARTBEAT_SECONDS. The
            server looks about as often as this is long, so that it notices within two minutes.
        resumed: from a crash to the new beginning, so that all that knows of the crash has reported it by then: a later
            report would be taken for a crash of the run that goes on.
    """

    told: int = 60
    late: int = 600
    unhealthy: int = 120
    silent: int = 600
    stuck: int = 6 * 3600
    gone: int = 60
    resumed: int = 30


@dataclass(frozen=True)
class AutomationDocument:
    """One automation as it should be on the server.

    Attributes:
        trigger: as Prefect's API has it, whole, so that it can be compared.
        actions: likewise, with a `Reference` in place of a block's id.
    """

    name: str
    description: str
    trigger: dict[str, Any]
    actions: tuple[dict[str, Any], ...] = field(repr=False)


@dataclass(frozen=True)
class SavedAutomation:
    """One automation as a server has it.

    Attributes:
        doubles: ids of others with the same name, which Prefect allows; they are deleted.
    """

    id: str
    description: str
    is_enabled: bool
    trigger: dict[str, Any]
    actions: tuple[dict[str, Any], ...] = field(repr=False)
    doubles: tuple[str, ...] = ()


@dataclass(frozen=True)
class AutomationChange(Change):
    """The change to one automation.

    Attributes:
        document: as it should be; None for one to remove.
        saved: as the server has it; None where it has none.
    """

    document: AutomationDocument | None = field(default=None, kw_only=True)
    saved: SavedAutomation | None = field(default=None, kw_only=True)

    @property
    def title(self) -> str:
        """Return the automation's name for people."""
        return f'automation "{self.name}"' if " " in self.name else f"automation {self.name}"


def automation_documents(
    slack: Reference | None, pagerduty: Reference | None, patience: Patience | None = None
) -> list[AutomationDocument]:
    """Return the automations for these destinations; none without a destination.

    Args:
        slack: a block of type webhook.
        pagerduty: a block of type pager-duty-webhook.
    """
    if slack is None and pagerduty is None:
        return []
    patience = patience or Patience()

    def document(name: str, description: str, trigger: dict[str, Any], title: str, text: str) -> AutomationDocument:
        actions: list[dict[str, Any]] = []
        if slack:
            actions.append(_webhook(slack, title, text))
        if pagerduty:
            actions.append(_notification(pagerduty, title, text))
        return AutomationDocument(PREFIX + name, description, trigger, tuple(actions))

    run = "{{ flow_run.name }} ({{ flow.name }})"
    link = "{{ flow_run|ui_url }}"
    state = "{{ flow_run.state.message }}"
    documents = [
        document(
            "crashed",
            "A run crashed, and its process could not send the alert.",
            _expecting([TOLD_EVENT, _RESUMED, _RUNNING], after=[_CRASHED], within=patience.told),
            f"{run} crashed",
            f"{state}\n{link}",
        ),
        document(
            "alert not sent",
            "A run could not reach the destinations of its alert.",
            _meeting([UNSENT_EVENT]),
            f"{run} failed and could not send its alerts",
            "{{ event.payload.text }}\n" + link,
        ),
        document(
            "late",
            "A run has not started long after its time.",
            _expecting(_STARTED, after=["prefect.flow-run.Late"], within=patience.late),
            f"{run} should have started {patience.late // 60} minutes ago",
            f"No worker has picked it up. See the workers of its work pool.\n{link}",
        ),
        document(
            "no worker",
            "A work pool has no running worker.",
            _expecting(
                ["prefect.work-pool.ready"],
                after=["prefect.work-pool.not-ready"],
                within=patience.unhealthy,
                match=_WORK_POOL,
            ),
            "Work pool {{ work_pool.name }} has no worker",
            "Its last worker sends no heartbeat, so scheduled runs do not start. Start a worker: "
            "uv run prefect worker start --pool {{ work_pool.name }}",
        ),
        document(
            "silent from the start",
            "A run has begun and sent no heartbeat, so it is unknown whether its process is running.",
            _expecting([_HEARTBEAT, *_ENDED], after=[_RUNNING], within=patience.silent),
            f"{run} has sent no heartbeat since it began",
            f"Its process may be gone: see its worker. Where PREFECT_FLOWS_HEARTBEAT_FREQUENCY is off, this means "
            f"nothing.\n{link}",
        ),
        document(
            "stuck",
            "A run is still running long after any run should have ended.",
            _expecting(_ENDED, after=[_RUNNING], within=patience.stuck),
            f"{run} has been running for {patience.stuck // 3600} hours",
            f"See what it waits for, or cancel it.\n{link}",
        ),
    ]
    # The automation "crashed" sends the alert.
    return [*documents, _gone(f"{PREFIX}no sign of life", patience.silent)]


def _gone(name: str, seconds: int) -> AutomationDocument:
    span = f"{seconds // 60} minutes" if seconds >= 120 else f"{seconds} seconds"
    return AutomationDocument(
        name,
        "A run whose process is gone is marked as crashed.",
        _expecting([_HEARTBEAT, *_ENDED], after=[_HEARTBEAT], within=seconds),
        (_into("CRASHED", None, f"It sent no heartbeat for {span}{SAID_GONE}"),),
    )


def _into(state: str, name: str | None, message: str) -> dict[str, Any]:
    return {"type": "change-flow-run-state", "name": name, "state": state, "message": message, "force": False}


def will_be_resumed(tags: Sequence[str], run_count: int) -> bool:
    """Say whether a flow run that has crashed goes on by itself.

    Args:
        tags: of the flow run.
        run_count: how often it has begun.
    """
    return 0 < run_count <= times_resumed(tags)


def times_resumed(tags: Sequence[str]) -> int:
    """Return how often a flow run with these tags goes on by itself at most."""
    times = [tag.removeprefix(RESUMES_TAG) for tag in tags if tag.startswith(RESUMES_TAG)]
    return max((int(number) for number in times if number.isdigit()), default=0)


def resume_documents(
    owner: str, marker: str, times: Iterable[int], patience: Patience | None = None
) -> list[AutomationDocument]:
    """Return the automations by which runs go on whose process is gone: with what they left undone, see `RESUMES_TAG`.

    Args:
        owner: begins their names.
        marker: the tag of the deployments that they are for.
        times: how often runs go on at most, each number that a deployment has.
    """
    patience = patience or Patience()
    documents: list[AutomationDocument] = []
    for count in sorted({*times} - {0}):
        tags = [
            {"prefect.resource.id": f"prefect.tag.{tag}", "prefect.resource.role": "tag"}
            for tag in (marker, f"{RESUMES_TAG}{count}")
        ]
        gone = _gone(f"{owner} schedules: no sign of life{_TO_GO_ON}{_times(count)}", patience.gone)
        gone.trigger["match_related"] = tags
        # These runs send their first heartbeat when they begin, so that one that is gone before that is missed as well.
        gone.trigger["after"] = sorted([_HEARTBEAT, _RUNNING])
        # A run that has never begun, or too often, is not begun again: what kills it would do so for ever.
        # Neither is one that is Running: its process lives, and has said so.
        trigger = _expecting([_RESUMED, _RUNNING], after=[_CRASHED], within=patience.resumed)
        trigger["match"] = {**trigger["match"], "prefect.run-count": [str(number + 1) for number in range(count)]}
        trigger["match_related"] = tags
        goes_on = AutomationDocument(
            f"{owner} schedules: crashed{_TO_GO_ON}{_times(count)}",
            "A run whose process is gone is begun again and does what it left undone.",
            trigger,
            (_into("SCHEDULED", RESUMING, "Its process was gone: it goes on with what it left undone."),),
        )
        documents += [gone, goes_on]
    return documents


def is_of_resumes(name: str, begins: str = "") -> bool:
    """Say whether an automation is one of `resume_documents`, by its name, which may have to begin in some way."""
    return name.startswith(begins) and _TO_GO_ON in name.partition(" schedules: ")[2]


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def late_document(
    name: str,
    deployment: str,
    deployment_id: str,
    late_seconds: int,
    slack: Reference | None,
    pagerduty: Reference | None,
) -> AutomationDocument:
    """Return the automation for runs of one deployment that do not begin in time.

    Args:
        deployment: <flow>/<name>, for people.
        late_seconds: from when Prefect calls the run late.
    """
    trigger = _expecting(_STARTED, after=["prefect.flow-run.Late"], within=late_seconds)
    trigger["match_related"] = {
        "prefect.resource.id": f"prefect.deployment.{deployment_id}",
        "prefect.resource.role": "deployment",
    }
    title = f"{deployment} should have started {late_seconds / 60:g} minutes ago"
    text = "No worker has picked the run up. See the workers of its work pool.\n{{ flow_run|ui_url }}"
    actions: list[dict[str, Any]] = []
    if slack:
        actions.append(_webhook(slack, title, text))
    if pagerduty:
        actions.append(_notification(pagerduty, title, text))
    return AutomationDocument(name, f"A run of {deployment} has not started in time.", trigger, tuple(actions))


def change_of_automation(document: AutomationDocument, saved: SavedAutomation | None) -> AutomationChange:
    """Compare a declared automation with what a server has."""
    if saved is None:
        about = FieldChange("description", None, document.description)
        return AutomationChange(document.name, "create", (about,), document=document)
    fields: list[FieldChange] = []
    if not saved.is_enabled:
        fields.append(FieldChange("enabled", "False", "True"))
    if saved.doubles:
        fields.append(FieldChange("of this name", str(1 + len(saved.doubles)), "1"))
    for name, old, new in (
        ("description", saved.description, document.description),
        ("trigger", _comparable(saved.trigger), _comparable(document.trigger)),
        ("actions", _comparable(saved.actions), _comparable(document.actions)),
    ):
        if old != new:
            fields += _differences(name, old, new)
    action = "update" if fields else "unchanged"
    return AutomationChange(document.name, action, tuple(fields), document=document, saved=saved)


def _differences(name: str, old: object, new: object) -> list[FieldChange]:
    if isinstance(old, dict) and isinstance(new, dict):
        before, after = cast(dict[str, object], old), cast(dict[str, object], new)
        return [
            change
            for key in dict.fromkeys((*after, *before))
            if before.get(key) != after.get(key)
            for change in _differences(f"{name}.{key}", before.get(key), after.get(key))
        ]
    if isinstance(old, list) and isinstance(new, list) and len(cast(list[object], old)) == len(cast(list[object], new)):
        pairs = enumerate(zip(cast(list[object], old), cast(list[object], new), strict=True), start=1)
        return [change for number, (a, b) in pairs if a != b for change in _differences(f"{name} {number}", a, b)]
    return [FieldChange(name, *(None if value is None else _text_of(value) for value in (old, new)))]


def _text_of(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 200 else f"{text[:199]}…"


def _comparable(value: object) -> object:
    """Return a value for comparison: lists for tuples, names for references, no settings that are None."""
    if isinstance(value, Reference):
        return str(value)
    if isinstance(value, Mapping):
        entries = cast(Mapping[str, object], value).items()
        return {name: _comparable(inner) for name, inner in entries if inner is not None}
    if isinstance(value, list | tuple):
        return [_comparable(inner) for inner in cast(Sequence[object], value)]
    return value


def _expecting(expected: Sequence[str], after: Sequence[str], within: int, match: str = _FLOW_RUN) -> dict[str, Any]:
    """Return the trigger that fires when something does not follow in time."""
    return _trigger(match, sorted(after), sorted(expected), "Proactive", within)


def _meeting(events: Sequence[str]) -> dict[str, Any]:
    """Return the trigger that fires when something happens."""
    return _trigger(_FLOW_RUN, [], sorted(events), "Reactive", 0)


def _trigger(match: str, after: list[str], expect: list[str], posture: str, within: int) -> dict[str, Any]:
    return {
        "type": "event",
        "match": {"prefect.resource.id": match},
        "match_related": {},
        "after": after,
        "expect": expect,
        "for_each": ["prefect.resource.id"],
        "posture": posture,
        "threshold": 1,
        "within": float(within),
    }


def _webhook(block: Reference, title: str, text: str) -> dict[str, Any]:
    """Return the action that posts a Slack message: a template whose every value is escaped, for Slack and for JSON."""
    payload = (
        f"{{% set title %}}{title}{{% endset %}}{{% set text %}}{_ESCAPED}{text}{{% endfilter %}}{{% endset %}}"
        '{% set head = "🔴 " ~ title[:140] %}'
        '{{ {"text": head, "blocks": ['
        '{"type": "header", "text": {"type": "plain_text", "text": head, "emoji": true}}, '
        '{"type": "section", "text": {"type": "mrkdwn", "text": text[:2900]}}]} | tojson }}'
    )
    return {"type": "call-webhook", "block_document_id": block, "payload": payload}


def _notification(block: Reference, title: str, text: str) -> dict[str, Any]:
    return {"type": "send-notification", "block_document_id": block, "subject": title, "body": text}
