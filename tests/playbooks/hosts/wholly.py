"""Whether a host is wholly old or wholly new: what a person would look at, and all that must not have changed."""

import json
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import redis

from tests.playbooks.hosts import old_world
from tests.playbooks.hosts.host import Host, differences

NEW_VERSION = "2.0.0"
MILLISECONDS = {"order_warn_time_out": 86_400_000, "transcoding_time_out": 120_000}


class Before:
    def __init__(self, host: Host, client: redis.Redis | None = None) -> None:
        self.host = host
        self._client = client
        self.states = host.states()
        self.files: dict[str, Any] = host.snapshot(root=False)["files"]
        self.rows = self._old_rows()
        self.keys = old_world.keys_of(client) if client is not None else {}
        self.download_rate = "1000k"

    def _old_rows(self) -> list[list[Any]]:
        if self.host.places.role == "teacher":
            return []
        columns = "class_id, video_url, push_url, start_time, end_time, teacher_name"
        return self.host.rows(f"SELECT {columns} FROM task_list WHERE class_id LIKE 'old-%' ORDER BY class_id")

    def not_old(self, *, aired_since: bool = False) -> list[str]:
        """Where the host is not as it was; the database may have more tables, columns and rows.

        Where the new program has *aired_since*, the recordings that it downloaded may be there, too.
        """
        found = differences({"states": self.states}, {"states": self.host.states()})
        now, videos = self.host.snapshot(root=False)["files"], self.host.places.video_root
        if aired_since:
            kept = {path for path in now if path in self.files or not PurePosixPath(path).is_relative_to(videos)}
            now = {path: now[path] for path in kept}
        found += differences(self.files, now)
        return found + self._says(self.host.places.old_version) + self._rows_lost() + self._keys_not_old()

    def not_new(self) -> list[str]:
        """Where the host is not as it should be after the rollout."""
        at = self.host.places
        states = {**self.states, at.program: "RUNNING"}
        del states[at.old_program]
        found = differences({"states": states}, {"states": self.host.states()})
        found += self._says(NEW_VERSION) + self._rows_lost()
        now = self.host.snapshot()["files"]
        link = now.get(f"{at.root}/current", ["nothing"])
        if not str(link[-1]).startswith(f"instances/{at.role}-{NEW_VERSION}-"):
            found.append(f"current leads to {link[-1]}")
        found += [f"{at.old_conf} is still there"] if str(at.old_conf) in now else []
        found += [] if f"{at.programs_dir}/{at.program}.conf" in now else [f"there is no {at.program}.conf"]
        found += self._files_not_new(now)
        return found + (self._streamer_not_new() if at.role == "streamer" else self._teacher_not_new())

    def _files_not_new(self, now: Mapping[str, Any]) -> list[str]:
        """All files of the old code are as they were; .env and the JSON config are looked at by what is in them."""
        at = self.host.places
        edited = {str(at.old_conf), f"{at.code_dir}/.env", f"{at.code_dir}/config/default.json"}
        kept = {
            path: facts
            for path, facts in self.files.items()
            if path not in edited and not PurePosixPath(path).is_relative_to(at.video_root)
        }
        return [f"{path}: {facts} -> {now.get(path)}" for path, facts in kept.items() if now.get(path) != facts]

    def _says(self, version: str) -> list[str]:
        found = self.host.answer()
        return [] if found == version else [f"the page says {found!r}, not {version!r}"]

    def _rows_lost(self) -> list[str]:
        if self.host.places.role == "teacher":
            return []
        lost, now = self.host.lost(), self._old_rows()
        return [f"{len(lost)} rows are lost"] * bool(lost) + [f"{row} is lost" for row in self.rows if row not in now]

    def _keys_not_old(self) -> list[str]:
        """The old keys as they were, and none under its new name; the new program's own keys may stay."""
        if self._client is None:
            return []
        now = old_world.keys_of(self._client)
        left = [key for key in map(renamed, self.keys) if key not in self.keys and key in now]
        return differences(self.keys, {key: now.get(key) for key in self.keys}) + [f"key {key} is left" for key in left]

    def _streamer_not_new(self) -> list[str]:
        at = self.host.places
        text = self.host.read(at.code_dir / ".env").decode()
        kept = [one for one in old_world.dotenv(at).decode().splitlines() if not one.startswith("wget_path")]
        found = [f".env: the line {line!r} is gone" for line in kept if line not in text]
        found += [f".env: there is {name}" for name in ("STREAMER_NAME", "VIDEO_ROOT") if name in text]
        for name, value in {"wget_path": at.wget, "DOWNLOAD_RATE": self.download_rate, "MAX_VIDEO_NUM": "1000"}.items():
            if f"\n{name}={value}\n" not in f"{text}\n":
                found.append(f".env: there is no {name}={value}")
        adopted = {row[0] for row in self.host.rows("SELECT class_id FROM class_list")}
        due = {name for name, (_, in_s) in old_world.booked(self.host.tag).items() if in_s > 0}
        return found + [f"class {one} was not adopted" for one in sorted(due - adopted)]

    def _teacher_not_new(self) -> list[str]:
        at = self.host.places
        config = json.loads(self.host.read(at.code_dir / "config" / "default.json"))
        found = [
            f"config: {name} is {config.get(name)}" for name, want in MILLISECONDS.items() if config.get(name) != want
        ]
        assert self._client is not None
        wanted = {renamed(key): (kind, *rest) for key, (kind, *rest) in self.keys.items()}
        now = old_world.keys_of(self._client)
        return found + differences(wanted, {key: now.get(key) for key in wanted})


def renamed(key: str) -> str:
    """What the inventory's rule makes of a key."""
    parts = key.split(":")
    return f"{parts[1]}_{parts[2]}" if len(parts) == 3 and parts[0] == "waiting" and parts[1].isdigit() else key
