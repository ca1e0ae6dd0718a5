"""What a rollout wants of one host: parsed once from the JSON that the playbook sends."""

import hashlib
import json
import re
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from lectern.errors import CallAPerson, Misuse
from lectern.i18n import found_wrong

WANTED = "wanted.json"
"""The file, in the backup of a rollout, of what it wanted."""
HOW_NOT_WHAT = {"restore_database", "health_timeout_s", "quiet_minutes", "keep"}
HOW_NOT_WHAT |= {"even_on_air", "unmatched_rules", "other_database", "half_only", "further"}
"""Fields that say how to roll out, not what: with other values of them it is still the same rollout."""
_UNWRITABLE = re.compile("[\0\ud800-\udfff]")
_DOCUMENTED = ("wget_path", "DOWNLOAD_RATE", "MAX_VIDEO_NUM", "MAX_VIDEO_SIZE")
"""A streamer's parameters that the rollout note adds to the old program's ``.env``."""
T = TypeVar("T")


def _must_be(what: str, is_so: Callable[[str], bool]) -> AfterValidator:
    def checked(value: T) -> T:
        if not value or not is_so(str(value)):
            raise ValueError(f"must be {what}")
        return value

    return AfterValidator(checked)


Absolute = Annotated[Path, _must_be("an absolute path", lambda it: it.startswith("/"))]
Inside = Annotated[str, _must_be("a path inside code_dir", lambda it: it[0] != "/" and ".." not in it.split("/"))]
FileName = Annotated[str, _must_be("a file name without a folder", lambda it: "/" not in it and it not in {".", ".."})]


class KeyRule(BaseModel):
    """How keys are renamed: patterns with fields in braces, in the form that `lectern rekey` takes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    old: str
    new: str


class Installed(BaseModel):
    """Names a rollout: the last one of *role* on this host; if *version* is given, it must be of that version."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    role: Literal["teacher", "streamer"]
    root: Absolute
    version: str = ""
    restore_database: bool = False
    even_on_air: bool = False
    further: bool = False
    """Whether a rollback goes on to the rollout of the same version below the one that was rolled back last."""
    half_only: bool = False
    """Whether a rollback takes back only what is half done, and that no process is at work on: that is another's."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the JSON that the playbook sends; raises Misuse that names each fault without its value."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            faults = found_wrong(error.errors(include_url=False, include_input=False), "all of it")
            raise Misuse(
                "What is wanted of this host cannot be read: {faults}. Correct the inventory.", faults=faults
            ) from error

    @property
    def rollout_dir(self) -> Path:
        """The folder of the journal, the lock and the backups."""
        return self.root / "rollout"

    @property
    def backups_dir(self) -> Path:
        """The folder of the backups, with one folder for each rollout."""
        return self.rollout_dir / "backups"

    def backup_of(self, id_: str) -> Path:
        """The backup of the rollout *id_*; a rollback that was cut off at its very end has already set it aside."""
        folder = self.backups_dir / id_
        return folder if folder.exists() else max(self.backups_dir.glob(f"{id_}.used-*"), default=folder)


class Spec(Installed):
    """The wanted state of one host. Secrets are in it: it is never printed."""

    model_config = ConfigDict(extra="forbid")

    name: str
    version: FileName
    code_dir: Absolute
    programs_dir: Absolute
    user: str
    supervisorctl: list[str] = Field(min_length=1)
    program: str = Field(pattern=r"^[A-Za-z0-9_.-]+$")
    program_conf: str
    old_programs: list[FileName]
    env: dict[str, str] = Field(repr=False)
    env_file: Inside = ".env"
    config_file: Inside | None = None
    config: dict[str, int | str] = {}
    database: Absolute
    video_root: Absolute | None = None
    old_video_roots: list[Absolute] = []
    record_patterns: list[str] = []
    redis_url: str = Field(repr=False)
    rekey: list[KeyRule] = []
    order_key: str | None = None
    waiting_key: str = "{record_id}_{resolution}"
    prefect_api_url: str
    health_url: str
    health_timeout_s: float = Field(60, gt=0)
    quiet_minutes: float = Field(30, ge=0)
    keep: int = Field(5, ge=1)
    unmatched_rules: bool = False
    """Whether a person has confirmed that the inventory's rules need not match any key."""
    other_database: bool = False
    """Whether a person has confirmed that classes may stay behind in the former database."""

    again: int = Field(0, ge=0)
    """How many rollouts of the same stand below another one on this host; `journal.named` finds it out."""

    @field_validator("env")
    @classmethod
    def _writable(cls, env: dict[str, str]) -> dict[str, str]:
        for name, value in env.items():
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                raise ValueError(f"{name!r:.60} is no name of a setting")
            if _UNWRITABLE.search(value):
                raise ValueError(f"the value of {name} holds a character that no file of settings can hold")
        return env

    @field_validator("record_patterns")
    @classmethod
    def _find_the_record(cls, patterns: list[str]) -> list[str]:
        for pattern in patterns:
            try:
                groups = re.compile(pattern).groupindex
            except re.error as error:
                raise ValueError(f"{pattern!r} is no regular expression ({error})") from error
            if "record_id" not in groups:
                raise ValueError(f"{pattern!r} has no group (?P<record_id>...)")
        return patterns

    @model_validator(mode="after")
    def _belong_together(self) -> "Spec":
        if self.role == "streamer" and self.video_root is None:
            raise ValueError("a streamer needs video_root")
        if f"{self.program}.conf" in self.old_programs:
            raise ValueError(f"{self.program}.conf is the new program's file and cannot be among old_programs")
        return self

    @classmethod
    def of_backup(cls, folder: Path) -> "Spec":
        """What the rollout with its backup in *folder* wanted; raises CallAPerson if that cannot be read.

        Fields that a newer release has added are left out. Raises Misuse if one is wrong.
        """
        file = folder / WANTED
        try:
            text = file.read_text(encoding="utf-8")
        except OSError as error:
            raise CallAPerson(
                "{file}: it cannot be read ({strerror}). Find the backup {name}.",
                file=file,
                strerror=error.strerror,
                name=folder.name,
            ) from error
        with suppress(ValueError):  # parsing names what is wrong
            text = json.dumps({name: value for name, value in json.loads(text).items() if name in cls.model_fields})
        return cls.parse(text)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what is wanted, secrets included, without the fields that say how to roll out."""
        fields = self.model_dump(mode="json", exclude={*HOW_NOT_WHAT})
        return hashlib.sha256(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    @cached_property
    def id(self) -> str:
        """The rollout's name, the same at every call, so that a resume finds its own backup."""
        return f"{self.role}-{self.version}-{self.digest[:8]}"

    @property
    def documented(self) -> dict[str, str]:
        """The settings that are lines of the old program's ``.env``."""
        return {name: self.env[name] for name in _DOCUMENTED if name in self.env and self.role == "streamer"}

    @property
    def own(self) -> dict[str, str]:
        """All other settings, which the program's own file holds."""
        return {name: value for name, value in self.env.items() if name not in self.documented}

    @property
    def instance(self) -> Path:
        """The folder that this rollout runs from: the release, its settings, its supervisor file."""
        return self.root / "instances" / self.id

    @property
    def release(self) -> Path:
        """The folder of the unpacked release."""
        return self.root / "releases" / self.version

    @property
    def current(self) -> Path:
        """The link to the instance that runs."""
        return self.root / "current"

    @property
    def backup_dir(self) -> Path:
        """The folder of this rollout's backup."""
        return self.backups_dir / self.id

    @property
    def conf(self) -> Path:
        """The new program's supervisor file."""
        return self.programs_dir / f"{self.program}.conf"

    @property
    def old_confs(self) -> list[Path]:
        """The old programs' supervisor files."""
        return [self.programs_dir / name for name in self.old_programs]

    @property
    def env_path(self) -> Path:
        """The old program's settings file; if it is a link, its target."""
        return (self.code_dir / self.env_file).resolve()

    @property
    def config_path(self) -> Path | None:
        """The teacher's old JSON config; if it is a link, its target. None if there is none."""
        return None if self.config_file is None else (self.code_dir / self.config_file).resolve()
