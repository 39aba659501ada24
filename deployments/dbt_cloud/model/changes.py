"""What is to change in dbt Cloud: shown to people, kept for programs, and the same again when it is applied."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import orjson

from deployments.dbt_cloud.model.definition import SECRET_PREFIX, JobDefinition
from infrastructure.screen import styled

CREATE, UPDATE, REFRESH, DELETE = "create", "update", "refresh", "delete"
UNCHANGED, BLOCKED = "unchanged", "blocked"
ACTIONS = (CREATE, UPDATE, REFRESH, DELETE, BLOCKED, UNCHANGED)

_SIGNS = {CREATE: "+", UPDATE: "~", REFRESH: ".", DELETE: "-", BLOCKED: "!", UNCHANGED: " "}
_COLOURS = {CREATE: "green", UPDATE: "yellow", DELETE: "red", BLOCKED: "magenta"}
_HIDDEN = "(secret)"


@dataclass(frozen=True)
class JobChange:
    """What is to become of one job.

    Attributes:
        action: one of ACTIONS. A refresh writes down that the job is still in use; a blocked job needs a person.
        key: the job's name in its file.
        name: its name in dbt Cloud.
        fields: what differs: there, and to be.
        variables: environment variables: name to set or delete. Values are never part of it.
        reason: why, where the difference does not say it.
        seen: fingerprint of the job as it was read; one that has another when it is written was changed meanwhile.
        definition: None for a deletion.
    """

    action: str
    key: str
    name: str
    project_id: int
    environment_id: int
    job_id: int | None = None
    fields: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""
    seen: str | None = None
    definition: JobDefinition | None = field(default=None, repr=False, compare=False)

    def document(self) -> dict[str, Any]:
        """Return the change for a program to read."""
        return {
            "action": self.action,
            "key": self.key,
            "name": self.name,
            "project_id": self.project_id,
            "environment_id": self.environment_id,
            "job_id": self.job_id,
            "fields": {name: list(values) for name, values in self.fields.items()},
            "variables": dict(self.variables),
            "reason": self.reason,
            "seen": self.seen,
        }


@dataclass(frozen=True)
class ChangeSet:
    """All that is to change, in the order in which it is shown."""

    account_id: int
    scope: str
    changes: tuple[JobChange, ...]

    def of(self, *actions: str) -> list[JobChange]:
        """Return the changes with one of these actions."""
        return [change for change in self.changes if change.action in actions]

    def counts(self) -> dict[str, int]:
        """Return how many changes there are of each action."""
        found = Counter(change.action for change in self.changes)
        return {action: found[action] for action in ACTIONS}

    @property
    def is_empty(self) -> bool:
        """Return whether dbt Cloud is as the files say. That a job is still in use is no change."""
        return not self.of(CREATE, UPDATE, DELETE, BLOCKED)

    def document(self) -> dict[str, Any]:
        """Return the change set for a program to read, or for `ChangeSet.of_document`."""
        return {
            "account_id": self.account_id,
            "scope": self.scope,
            "counts": self.counts(),
            "digest": self.digest(),
            "changes": [change.document() for change in self.changes if change.action != UNCHANGED],
        }

    def digest(self) -> str:
        """Return a digest of what would be done, so that a plan and what is applied can be held against each other."""
        done = [it.document() for it in self.changes if it.action not in (UNCHANGED, REFRESH)]
        done.sort(key=lambda it: (it["action"], it["name"], it["job_id"] or 0))
        content = orjson.dumps([self.account_id, self.scope, done], option=orjson.OPT_SORT_KEYS)
        return hashlib.sha256(content).hexdigest()[:16]

    @classmethod
    def of_document(cls, document: Mapping[str, Any]) -> ChangeSet:
        """Read a change set back, to be shown or compared; its definitions are in the files."""
        changes: list[JobChange] = []
        for entry in cast(list[dict[str, Any]], document["changes"]):
            fields = cast(dict[str, list[Any]], entry["fields"])
            known: dict[str, Any] = {**entry, "fields": {name: (it[0], it[1]) for name, it in fields.items()}}
            changes.append(JobChange(**known))
        return cls(document["account_id"], document["scope"], tuple(changes))

    def text(self, details: bool = True) -> str:
        """Return the change set as people read it."""
        lines: list[str] = []
        for change in self.changes:
            if change.action == UNCHANGED or (change.action == REFRESH and not details):
                continue
            lines.append(_line(change))
            if details:
                lines += [f"      {line}" for line in _details(change)]
        counts = self.counts()
        said = ", ".join(f"{counts[action]} to {action}" for action in (CREATE, UPDATE, DELETE) if counts[action])
        if counts[BLOCKED]:
            said += f"{', ' if said else ''}{counts[BLOCKED]} blocked"
        rest = f"{counts[UNCHANGED] + counts[REFRESH]} as they should be"
        lines.append(f"{self.scope}: {said + ', ' if said else 'nothing to do, '}{rest}.")
        return "\n".join(lines)


def shown_variables(names: Mapping[str, str]) -> list[str]:
    """Return variables as they may be shown: what happens to them, never their values."""
    return [f"{what} {name}{' ' + _HIDDEN if name.startswith(SECRET_PREFIX) else ''}" for name, what in names.items()]


def _line(change: JobChange) -> str:
    sign, colour = _SIGNS[change.action], _COLOURS.get(change.action)
    number = f" ({change.job_id})" if change.job_id is not None else ""
    reason = f": {change.reason}" if change.reason else ""
    return styled(f"  {sign} {change.action:<8} {change.name}{number}{reason}", fg=colour)


def _details(change: JobChange) -> list[str]:
    lines = [f"{name}: {_shown(there)} → {_shown(to_be)}" for name, (there, to_be) in sorted(change.fields.items())]
    if change.action == CREATE and change.definition is not None:
        job = change.definition
        lines += [f"steps: {_shown(list(job.execute_steps))}", f"schedule: {job.local_cron or job.schedule_type}"]
    return lines + shown_variables(change.variables)


def _shown(value: object) -> str:
    text = orjson.dumps(value, default=str).decode()
    return text if len(text) <= 160 else text[:159] + "…"
