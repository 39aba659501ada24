"""Which process runs which tests, and in what order: what takes long first, so that none is left alone with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

# Shorter tests need no note, and are taken to last so long.
_LONG_SECONDS, _SHORT_SECONDS = 0.5, 0.05


class Durations:
    """How long the tests took that took long, as far as this machine knows."""

    def __init__(self, path: Path) -> None:
        """Read what earlier sessions wrote to a file."""
        self._path = path
        self._now: dict[str, float] = {}
        try:
            self._known: dict[str, float] = json.loads(path.read_text())
        except (OSError, ValueError):
            self._known = {}

    def of(self, nodeid: str) -> float:
        """Return the seconds of a test."""
        return self._known.get(nodeid, _SHORT_SECONDS)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add a phase of a test."""
        self._now[report.nodeid] = self._now.get(report.nodeid, 0.0) + report.duration

    def pytest_sessionfinish(self) -> None:
        """Write down what took long."""
        others = {nodeid: seconds for nodeid, seconds in self._known.items() if nodeid not in self._now}
        long = {nodeid: round(seconds, 1) for nodeid, seconds in self._now.items() if seconds >= _LONG_SECONDS}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps(others | long, indent=0))


class ByFile(LoadScopeScheduling):
    """Keep what shares fixtures on one process: the tests of a file, and all that stand on the builds of the models.

    `--dist loadgroup` would do it with marks, but xdist 3.8 writes them where pytest 9.2 does not look any more.
    """

    def __init__(self, config: pytest.Config, log: Any, durations: Durations) -> None:
        """Take what xdist gives, and what is known."""
        super().__init__(config, log)
        self._durations = durations

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "tests/models" if file.startswith("tests/models/") else file

    def _assign_work_unit(self, node: Any) -> None:
        longest = max(self.workqueue, key=lambda scope: sum(map(self._durations.of, self.workqueue[scope])))
        self.workqueue.move_to_end(longest, last=False)
        super()._assign_work_unit(node)
