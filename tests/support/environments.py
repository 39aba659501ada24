"""A targets.yml with every way of signing in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from infrastructure.registration import DeclaredSetup, declare
from infrastructure.targets.target_file import Targets, load_targets
from tests.support.sign_ins import SignIn


@dataclass(frozen=True)
class Environments:
    """A targets file, and the variables that it names.

    Attributes:
        path: the file.
        environ: the variables, all set.
        sign_ins: what each of its targets is about, by name.
    """

    path: Path
    environ: dict[str, str]
    sign_ins: dict[str, SignIn]

    def load(self) -> Targets:
        """Return the file's content."""
        return load_targets(self.path, self.environ)

    def declared(self) -> DeclaredSetup:
        """Return what the file asks for, but for the automations: they would call the real Slack and PagerDuty."""
        return replace(declare(self.load(), self.environ), automations=())
