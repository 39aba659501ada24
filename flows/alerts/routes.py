"""Which incidents go to which destinations: routes.yml of the workspace as typed models."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from flows.alerts.incident import Incident, Severity
from infrastructure.targets.settings import Settings
from infrastructure.workspace import workspace
from infrastructure.yaml_file import Mistake, Place, field_names, meant, put_in_variables, read_yaml, unset_mistakes

ROUTES_VARIABLE = "TRIBUTARY_ALERT_ROUTES"


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_as_list, json_schema_input_type=str | tuple[str, ...])]


class Destination(Settings):
    """One place that messages go to, by the Prefect block that holds its address or key."""

    slack: str | None = Field(default=None, min_length=1, description="A block of type slack-webhook.")
    pagerduty: str | None = Field(default=None, min_length=1, description="A block of type pager-duty-webhook.")
    events_url: str | None = Field(
        default=None, description="PagerDuty's address, where it is reached through a proxy of your own."
    )

    @model_validator(mode="after")
    def _is_one(self) -> Destination:
        if (self.slack is None) == (self.pagerduty is None):
            raise ValueError("a destination is either slack or pagerduty: give the name of one block")
        if self.events_url and not self.pagerduty:
            raise ValueError("events_url goes with pagerduty")
        return self

    @property
    def block(self) -> tuple[str, str]:
        """Return the type and the name of its block."""
        return ("slack-webhook", self.slack) if self.slack else ("pager-duty-webhook", str(self.pagerduty))


class Route(Settings):
    """Which incidents go where; a condition that is left out matches all."""

    target: Names = ()
    owner: Names = ()
    severity: Annotated[
        tuple[Severity, ...], BeforeValidator(_as_list, json_schema_input_type=Severity | tuple[Severity, ...])
    ] = ()
    tag: Names = ()
    to: Names
    goes_on: bool = Field(default=False, alias="continue")

    def fits(self, incident: Incident) -> bool:
        """Return whether an incident meets every condition."""
        return (
            (not self.severity or incident.severity in self.severity)
            and _is_in(self.target, (incident.target,))
            and _is_in(self.owner, incident.owners)
            and _is_in(self.tag, incident.tags)
        )


class FailingRowsSettings(Settings):
    """How much of the offending data a message shows."""

    limit: int = Field(default=5, ge=0, le=5)
    masked_columns: Names = ()
    personal_data: bool = False
    patience_seconds: float = Field(default=20, gt=0)


class EscalationStep(Settings):
    """Who is told about incidents that stay unacknowledged for so long."""

    after_minutes: float = Field(gt=0)
    owner: str = Field(min_length=1, description="A name of `owners`, or of a team.")


class Routes(Settings):
    """The content of routes.yml."""

    destinations: dict[str, Destination]
    routes: tuple[Route, ...]
    owners: dict[str, str] = Field(default_factory=dict)
    remind_after_hours: float = Field(default=24, gt=0)
    digest_every_hours: float = Field(default=24, gt=0)
    deadline_seconds: float = Field(default=10, ge=1, le=60)
    failing_rows: FailingRowsSettings = FailingRowsSettings()
    escalation: tuple[EscalationStep, ...] = ()

    @field_validator("owners")
    @classmethod
    def _can_be_mentioned(cls, owners: dict[str, str]) -> dict[str, str]:
        wrong = [name for name, mention in owners.items() if mention_of(mention) is None]
        if wrong:
            raise ValueError(
                f"{', '.join(wrong)}: expected a Slack id such as U0123ABCD or S0123ABCD, or here or channel"
            )
        return owners

    def destinations_of(self, incident: Incident) -> list[str]:
        """Return the names of the destinations of an incident."""
        found: dict[str, None] = {}
        for route in self.routes:
            if route.fits(incident):
                found.update(dict.fromkeys(route.to))
                if not route.goes_on:
                    break
        return list(found)

    def may_page(self, target: str, severity: Severity) -> bool:
        """Return whether incidents of this severity on a target can go to PagerDuty."""
        return any(
            _is_in(route.target, (target,))
            and (not route.severity or severity in route.severity)
            and self.pagers(route.to)
            for route in self.routes
        )

    def pagers(self, names: Iterable[str]) -> list[str]:
        """Return those of the destinations that are PagerDuty's."""
        return [name for name in names if self.destinations[name].pagerduty]

    def mention(self, owner: str) -> str:
        """Return the mention with which Slack notifies an owner; their name where there is none."""
        return mention_of(self.owners.get(owner, "")) or owner


@dataclass(frozen=True)
class _Known:
    """The settings that are allowed beside a place, for "did you mean"."""

    def __call__(self, place: Place) -> list[str]:
        models: dict[str, Any] = {"destinations": Destination, "routes": Route, "failing_rows": FailingRowsSettings}
        models["escalation"] = EscalationStep
        return field_names(models.get(str(place[0]), Routes) if len(place) > 1 else Routes)


def load_routes(path: Path | None = None, environ: Mapping[str, str] | None = None) -> Routes:
    """Read and check the routing file.

    Args:
        path: TRIBUTARY_ALERT_ROUTES when None, else that of the workspace.

    Raises:
        ConfigError: lists every mistake in the file, with its line.
    """
    environ = os.environ if environ is None else environ
    named = environ.get(ROUTES_VARIABLE)
    file = read_yaml(path or (Path(named) if named else workspace(environ).routes))
    data, unset = put_in_variables(file, environ)
    mistakes = unset_mistakes(unset)
    routes = None
    try:
        routes = Routes.model_validate(data)
    except ValidationError as exc:
        mistakes = file.mistakes(exc, _Known()) | mistakes
    if routes:
        for number, route in enumerate(routes.routes):
            for name in route.to:
                if name not in routes.destinations:
                    text = f"there is no destination {name!r}{meant(name, list(routes.destinations))}"
                    mistakes.setdefault(("routes", number, "to"), Mistake(("routes", number, "to"), text))
    if mistakes or routes is None:
        raise file.error(list(mistakes.values()))
    return routes


def mention_of(text: str) -> str | None:
    """Return a Slack id as a mention that notifies; None for other text."""
    if text in ("here", "channel", "everyone"):
        return f"<!{text}>"
    if text[:1] in ("U", "W") and text.isalnum():
        return f"<@{text}>"
    if text[:1] == "S" and text.isalnum():
        return f"<!subteam^{text}>"
    return None


def _is_in(patterns: tuple[str, ...], values: tuple[str, ...]) -> bool:
    return not patterns or any(fnmatchcase(value.lower(), pattern.lower()) for pattern in patterns for value in values)
