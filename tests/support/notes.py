"""A reporter that keeps what a run says to a person."""

from __future__ import annotations


class Notes:
    """Keep what a run says."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def stage(self, text: str) -> None: ...

    def event(self, event: object) -> None: ...

    def note(self, text: str) -> None:
        self.said.append(text)
