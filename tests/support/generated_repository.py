"""Git repositories made for a test, and what git itself says of them."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path


class GeneratedRepository:
    """Run git in a folder, with people and times that a test chooses."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._clock = 1_600_000_000

    @classmethod
    def new(cls, folder: Path, *options: str) -> GeneratedRepository:
        """Make an empty repository whose branch is main."""
        folder.mkdir(parents=True)
        repository = cls(folder)
        repository.git("-c", "init.defaultBranch=main", "init", "--quiet", *options)
        return repository

    def git(self, *arguments: str, data: bytes | None = None, env: Mapping[str, str] | None = None) -> str:
        """Run git and return what it printed."""
        done = subprocess.run(
            ["git", *arguments],
            cwd=self.folder,
            env={**os.environ, **self._people("Ada Example", "ada@example.org"), **(env or {})},
            input=data,
            capture_output=True,
        )
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return done.stdout.decode(errors="replace")

    def write(self, name: str, content: str | bytes) -> None:
        """Write a file and stage it."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        self.git("add", "--", name)

    def commit(self, message: str, name: str = "Ada Example", email: str = "ada@example.org") -> str:
        """Commit what is staged, even if that is nothing, and return the hash."""
        self._clock += 3600
        options = ["--quiet", "--allow-empty", "--allow-empty-message", "--cleanup=verbatim", "--file=-"]
        self.git("commit", *options, data=message.encode(), env=self._people(name, email))
        return self.head

    def raw_commit(self, header: bytes, message: bytes) -> str:
        """Put a commit together byte by byte, as git itself would refuse to, and make it HEAD."""
        tree = self.git("rev-parse", "HEAD^{tree}").strip()
        parent = self.head
        content = f"tree {tree}\nparent {parent}\n".encode() + header + b"\n\n" + message
        made = self.git("hash-object", "-t", "commit", "-w", "--stdin", "--literally", data=content).strip()
        self.git("update-ref", "HEAD", made)
        return made

    @property
    def head(self) -> str:
        """Return the hash of HEAD."""
        return self.git("rev-parse", "HEAD").strip()

    def hashes(self) -> list[str]:
        """Return the hashes of all commits that HEAD reaches."""
        return self.git("rev-list", "HEAD").split()

    def changed_lines(self) -> dict[str, tuple[int, int, int]]:
        """Return files, insertions and deletions by hash, from `git log --shortstat`."""
        found: dict[str, tuple[int, int, int]] = {}
        for part in self.git("log", "--format=commit %H", "--shortstat").split("commit ")[1:]:
            numbers = [re.search(rf"(\d+) {word}", part) for word in ("files? changed", "insertion", "deletion")]
            files, insertions, deletions = (int(number[1]) if number else 0 for number in numbers)
            found[part[: part.index("\n")]] = (files, insertions, deletions)
        return found

    def shortlog(self) -> dict[tuple[str, str], int]:
        """Return commits by name and address, from `git shortlog -sne`."""
        lines = self.git("shortlog", "-sne", "HEAD").splitlines()
        people = [re.fullmatch(r" *(\d+)\t(.*) <(.*)>", line) for line in lines]
        return {(person[2], person[3]): int(person[1]) for person in people if person}

    def _people(self, name: str, email: str) -> dict[str, str]:
        moment = f"{self._clock} +0530"
        return {
            "GIT_AUTHOR_NAME": name,
            "GIT_AUTHOR_EMAIL": email,
            "GIT_AUTHOR_DATE": moment,
            "GIT_COMMITTER_NAME": "Committer",
            "GIT_COMMITTER_EMAIL": "committer@example.org",
            "GIT_COMMITTER_DATE": moment,
        }


def eventful_repository(folder: Path) -> GeneratedRepository:
    """Make a repository in which everything has happened that changes how commits are counted."""
    repository = GeneratedRepository.new(folder)
    repository.write("poem.txt", "".join(f"line {number}\n" for number in range(40)))
    repository.commit("Begin\n\nWith a body,\nof two lines.\n")
    repository.write("picture.bin", bytes(range(256)) * 8)
    repository.commit("Add a picture", "Bo Example", "bo@example.org")
    repository.git("mv", "poem.txt", "verse\twith tab.txt")
    repository.commit("Rename", "bo", "bo@old.example.org")
    repository.write("a folder/új\nline.txt", "one\ntwo\n")
    repository.commit("A name with a line break in it")
    repository.git("checkout", "--quiet", "-b", "side", "HEAD~2")
    repository.write("side.txt", "one\n")
    repository.commit("On the side", 'Quote " and tab\there', "q@example.org")
    repository.git("checkout", "--quiet", "main")
    repository.git("merge", "--quiet", "--no-ff", "-m", "Merge side", "side")
    repository.commit("")
    repository.commit("Nothing changed, twice over", "Bo Example", "bo@example.org")
    (repository.folder / "side.txt").chmod(0o755)
    repository.git("add", "side.txt")
    repository.commit("Only a mode")
    repository.write("picture.bin", bytes(range(255, -1, -1)) * 8)
    repository.write("side.txt", "ONE\nTWO\n")
    repository.commit("Binary and text", "Ada Example", "ADA@EXAMPLE.ORG")
    repository.git("rm", "--quiet", "side.txt")
    repository.commit("Remove")
    repository.write(".mailmap", "Bo Example <bo@example.org> <bo@old.example.org>\n")
    repository.commit("Say who is who")
    author = b"author Ren\xe9 <rene@example.org> 1500000000 +0200\n"
    committer = b"committer Committer <c@example.org> 1500000001 -0800\n"
    repository.raw_commit(author + committer + b"encoding ISO-8859-1", b"caf\xe9 says its header\n")
    return repository
