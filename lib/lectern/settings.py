"""Settings of the two roles: what both share, what each has of its own, and where they are read from."""

import hashlib
import json
import os
import socket
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv6Address
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, PrivateAttr, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from lectern import urls, windows
from lectern.allowlist import Allowlist
from lectern.errors import LecternError, Misuse
from lectern.i18n import ENGLISH, Text, found_wrong, languages, msgid, translated
from lectern.old_config import OldConfig
from lectern.states import Role
from lectern.windows import Windows
from lectern.wire.fields import a_name


# Settings of both roles. Sources, later wins: defaults, the teacher's old JSON, .env, their own file, environment.
class Cost(StrEnum):
    """What a changed setting waits for, once the process has read it anew."""

    LIVE = msgid("live")
    NEXT_DOWNLOAD = msgid("next download")
    NEXT_CLASS = msgid("next class")
    RESTART = "restart"


T = TypeVar("T")
Live = Annotated[T, Cost.LIVE]
NextDownload = Annotated[T, Cost.NEXT_DOWNLOAD]
NextClass = Annotated[T, Cost.NEXT_CLASS]
AtRestart = Annotated[T, Cost.RESTART]
"""Types of settings: each setting declares by its type what a change costs."""


@dataclass(frozen=True)
class Change:
    """A setting that its sources now give another value; secrets are not shown."""

    name: str
    before: str
    after: str
    cost: Cost

    def __str__(self) -> str:
        when = Text("needs a restart") if self.cost is Cost.RESTART else self.cost
        return Text(
            "{name} {before} -> {after}: {when}", name=self.name, before=self.before, after=self.after, when=when
        )


BACKUP_DIR = Path("/var/backups/lectern")
"""Where `lectern backup` writes by default."""


def own_file() -> Path:
    """The file of LECTERN_SETTINGS; else what a rollout has put beside the ``venv`` by which the program is called.

    Raises Misuse if LECTERN_SETTINGS names a file that does not exist; the other file need not exist.
    """
    told = os.environ.get("LECTERN_SETTINGS")
    if told and not Path(told).is_file():
        raise Misuse("LECTERN_SETTINGS={told}: there is no such file. Correct the variable, or unset it.", told=told)
    return Path(told or Path(sys.argv[0]).absolute().parent.parent.parent / "settings.env")


def no_utf_8(path: Path | str, error: UnicodeDecodeError) -> Misuse:
    """The error of the settings in *path*: an editor has saved, for example, its comments as GBK."""
    line = error.object.count(b"\n", 0, error.start) + 1
    return Misuse(
        "{path}: line {line} is not UTF-8, so no program can load it. Save it as UTF-8.", path=path, line=line
    )


RENAMED = {
    "ecs_cooldown_s": "ecs_aside_s",
    "inbox_max_attempts": "inbox_tries",
    "message_retention_s": "keep_messages_s",
    "event_retention_s": "keep_events_s",
    "class_retention_s": "keep_classes_s",
    "as_run_retention_s": "keep_as_run_s",
    "partition_policy": "on_control_lost",
}
"""The settings whose names changed, and their old names, which are still read."""


def by_new_names(written: Mapping[str, T]) -> dict[str, T]:
    """What one source has *written*, by its new name, too, if it has only the old one."""
    return {**{new: written[old] for new, old in RENAMED.items() if old in written}, **written}


def _known_language(language: str) -> None:
    if language not in languages():
        raise ValueError(Text("must be one of {languages}", languages=", ".join(languages())))


def _checked(check: Callable[[str], object]) -> AfterValidator:
    return AfterValidator(lambda text: (check(text), text)[1])


def _no_rates(text: str) -> None:
    if "=" in text:
        raise ValueError("must be windows without rates, such as 00:00-06:30, 22:00-24:00")
    Windows.parsed(text)


def _an_address(bind: str) -> str:
    """*bind*, its IPv6 address in brackets also if it was written without: no URL can name it otherwise."""
    host, _, port = bind.rpartition(":")
    with suppress(ValueError):
        host = f"[{IPv6Address(host)}]"
    is_one = host and (":" not in host or host.startswith("[")) and port.isdecimal() and int(port) <= 65535
    if bind and not is_one:
        raise ValueError(msgid("must be host:port, or empty for none"))
    return bind and f"{host}:{port}"


Name = Annotated[str, AfterValidator(a_name)]
Bind = Annotated[str, AfterValidator(_an_address)]
exported: dict[str, str] = {}
"""What this process has put into its environment for Prefect, by setting; it is no source of settings."""


class Common(BaseSettings):
    """Settings that both roles need."""

    model_config = SettingsConfigDict(
        env_file=".env", extra="ignore", frozen=True, hide_input_in_errors=True, defer_build=True
    )
    role: ClassVar[Role]
    _given: dict[str, Any] = PrivateAttr(default_factory=dict)  # what `load` was given, for `reread`

    redis_url: AtRestart[SecretStr] = SecretStr("redis://127.0.0.1:6379/0")
    prefect_api_url: AtRestart[str] = "http://127.0.0.1:4200/api"
    prefect_api_auth_string: AtRestart[SecretStr | None] = None
    work_pool: AtRestart[str] = "resident"
    lectern_lang: Live[Annotated[str, _checked(_known_language)]] = "en"
    log_format: Live[Literal["text", "json"]] = "text"
    log_level: Live[Literal["DEBUG", "INFO", "WARNING", "ERROR"]] = "INFO"

    order_channel: AtRestart[str] = "order"
    cancel_channel: AtRestart[str] = "cancel"
    change_channel: AtRestart[str] = "change"
    transcoding_channel: AtRestart[str] = "transcoding"
    order_result_channel: AtRestart[str] = "order_result"
    change_result_channel: AtRestart[str] = "change_result"
    cancel_result_channel: AtRestart[str] = "cancel_result"
    class_event_channel: AtRestart[str] = "class_event"
    alarm_channel: AtRestart[str] = "alarm"
    waiting_key: AtRestart[str] = "{record_id}_{resolution}"
    streamer_stream: AtRestart[str] = "streamer:{name}"
    report_stream: AtRestart[str] = "streamer_report"
    dead_letter_stream: Live[str] = "dead_letter"
    streamers_key: AtRestart[str] = "streamers"

    batch_max: Live[int] = Field(5000, ge=1, le=5000)
    batch_wait_s: Live[float] = Field(0, ge=0, le=5)
    sweep_interval_s: Live[float] = Field(30, gt=0)
    poll_interval_s: AtRestart[float] = Field(1.0, gt=0)
    heartbeat_interval_s: Live[float] = Field(5, gt=0)
    run_heartbeat_s: AtRestart[float] = Field(30, gt=0)
    drain_timeout_s: Live[float] = Field(20, ge=0, le=20)  # supervisor ends a host 30 s after TERM
    inbox_max_attempts: Live[int] = Field(5, ge=1)
    inbox_lease_s: Live[float] = Field(60, gt=0)
    alarm_urls: Live[SecretStr | None] = None  # URLs of apprise services; they hold tokens
    runbook_url: Live[str | None] = None
    alarm_group_s: Live[float] = Field(60, ge=0)
    alarm_escalate_s: Live[float] = Field(900, gt=0)
    alarm_quiet_s: Live[float] = Field(300, gt=0)
    message_retention_s: Live[float] = Field(7 * 86400, gt=0)
    event_retention_s: Live[float] = Field(30 * 86400, gt=0)
    class_retention_s: Live[float] = Field(90 * 86400, gt=0)
    as_run_retention_s: Live[float] = Field(400 * 86400, gt=0)
    prune_interval_s: Live[float] = Field(600, gt=0)
    backup_dir: Live[Path] = BACKUP_DIR
    http_timeout_s: Live[float] = Field(10, gt=0)
    timezone: Live[Annotated[str, _checked(windows.time_zone)]] = ""
    ready_before_s: Live[float] = Field(7200, ge=0)

    @field_validator("*", mode="before")
    @classmethod
    def _empty_is_not_set(cls, value: Any, info: ValidationInfo) -> Any:  # noqa: ANN401 (what the field will hold)
        return None if value == "" and cls.model_fields[str(info.field_name)].default is None else value

    @field_validator("allowed_origins", "allowed_push_hosts", check_fields=False)
    @classmethod
    def _places(cls, text: str, info: ValidationInfo) -> str:
        Allowlist.listed(text, str(info.field_name).upper())
        return text

    @property
    def name(self) -> str:
        """The host's name; a streamer's name also names its stream."""
        return str(getattr(self, f"{self.role}_name"))

    @property
    def queue(self) -> str:
        """The host's work queue in Prefect."""
        return self.name

    @property
    def bind(self) -> str:
        """The ``host:port`` on which the host answers HTTP; empty if it does not."""
        return str(getattr(self, "api_bind" if self.role == "teacher" else "health_bind"))

    @property
    def silent_after_s(self) -> float:
        """Seconds after which what a streamer said last is too old to be believed."""
        return 3 * self.heartbeat_interval_s + 2

    @property
    def alarm_services(self) -> str:
        """The service URLs of ALARM_URLS, separated by blanks; empty if there are none."""
        return self.alarm_urls.get_secret_value().strip() if self.alarm_urls is not None else ""

    @property
    def webhook_channels(self) -> tuple[str, ...]:
        """The channels whose messages are posted to EVENT_WEBHOOK_URL, too."""
        results = self.order_result_channel, self.change_result_channel, self.cancel_result_channel
        return *results, self.class_event_channel

    @property
    def database_url(self) -> str:
        """SQLAlchemy URL."""
        url: SecretStr = getattr(self, f"{self.role}_database_url")
        return url.get_secret_value()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """First wins here: arguments, environment, their own file and .env, the old JSON config."""
        assert isinstance(env_settings, EnvSettingsSource)
        assert isinstance(dotenv_settings, DotEnvSettingsSource)
        own = exported.items()
        env_settings.env_vars = {name: text for name, text in env_settings.env_vars.items() if (name, text) not in own}
        files = dotenv_settings.env_file or ()
        several: Sequence[str | Path] = [files] if isinstance(files, str | Path) else files  # the last one wins
        written = [DotEnvSettingsSource(settings_cls, one) for one in reversed(several)]
        for source in (env_settings, *written):
            source.env_vars = by_new_names(source.env_vars)
        return init_settings, env_settings, *written, OldConfig(settings_cls)

    @classmethod
    def load(cls, **given: Any) -> Self:  # noqa: ANN401 (field values)
        """The settings; raises Misuse that names each wrong or missing variable, or a file that cannot be read."""
        files: tuple[str | Path, ...] = (".env",)
        try:
            files = (".env", own_file())
            found = cls(**{"_env_file": files, **by_new_names(given)})  # the later one wins
        except OSError as error:  # whoever types a command need not be the user of the host's file
            raise Misuse("{path}: cannot be read: {reason}", path=error.filename, reason=error.strerror) from error
        except UnicodeDecodeError as error:
            read = (one for one in map(Path, files) if one.is_file() and one.read_bytes() == error.object)
            raise no_utf_8(next(read, ".env"), error) from error
        except ValidationError as error:
            faults = found_wrong(error.errors(include_url=False, include_input=False), "settings", str.upper)
            raise Misuse(
                "Settings are wrong or missing: {faults}. Set them in the environment or in .env.", faults=faults
            ) from error
        found._given = given
        return found

    def reread(self) -> Self:
        """The settings as their sources have them now; raises Misuse as `load` does."""
        return self.load(**self._given)

    @classmethod
    def cost(cls, name: str) -> Cost:
        """What a change of the setting *name* costs."""
        return next(one for one in cls.model_fields[name].metadata if isinstance(one, Cost))

    def changes(self, new: "Common") -> list[Change]:
        """The settings that are others in *new*, in the order of their names."""
        both = ((name, getattr(self, name), getattr(new, name)) for name in sorted(type(self).model_fields))
        return [
            Change(name.upper(), shown(before), shown(after).replace("(secret)", "(another secret)"), self.cost(name))
            for name, before, after in both
            if before != after
        ]

    def taking(self, new: Self) -> Self:
        """The settings *new*, with the old value of each that needs a restart."""
        names = [name for name in type(self).model_fields if self.cost(name) is Cost.RESTART]
        return new.model_copy(update={name: getattr(self, name) for name in names})

    @property
    def digest(self) -> str:
        """The same for the same values, of which secrets are left out: a digest could be used to guess them."""
        values = {name: shown(getattr(self, name)) for name in type(self).model_fields}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def shown(value: object) -> str:
    """A setting's value as people may see it."""
    if isinstance(value, SecretStr):
        return "(secret)"
    return f"{value:.12g}" if isinstance(value, float) else urls.redact(str(value))


GIBIBYTE = 1024**3
_NO_SECRETS = frozenset({"", "CHANGE-ME", "CHANGEME"})


def _is_shared(given: dict[str, Any]) -> bool:
    """Whether several teachers can share the database, which PostgreSQL allows."""
    return "teacher_database_url" in given and given["teacher_database_url"].get_secret_value().startswith("postgres")


class TeacherSettings(Common):
    """Settings of the teacher, the control host."""

    role: ClassVar[Role] = "teacher"
    teacher_database_url: AtRestart[SecretStr] = SecretStr("sqlite:///teacher.db")  # can hold a password
    teacher_name: AtRestart[Name] = Field(
        default_factory=lambda given: socket.gethostname() if _is_shared(given) else "teacher"
    )
    teacher_queue: AtRestart[Name] = Field(
        default_factory=lambda given: "teacher" if _is_shared(given) else str(given.get("teacher_name", "teacher"))
    )
    teacher_config: Live[Path | None] = None
    oss_transcode_url: Live[str | None] = None
    transcode_sign_key: Live[SecretStr]
    on_transcode_timeout: Live[Literal["refuse", "ecs"]] = "refuse"
    transcoding_time_out_s: Live[float] = Field(120, gt=0)
    order_warn_time_out_s: Live[float] = Field(86400, gt=0)
    max_attempts_a_day: Live[int] = Field(5, ge=1)
    ecs_hosts: Live[str] = ""
    ecs_ssh_key: Live[Path | None] = None
    ecs_known_hosts: Live[Path | None] = None
    ecs_work_root: Live[str] = "~/lectern-work"
    ecs_ffmpeg: Live[str] = "ffmpeg"
    ecs_ffprobe: Live[str] = "ffprobe"
    ecs_wget: Live[str] = "wget"
    ecs_curl: Live[str] = "curl"
    max_ecs_jobs: Live[int] = Field(2, ge=1)
    ecs_cooldown_s: Live[float] = Field(600, gt=0)
    ecs_loudness_lufs: Live[float | None] = Field(None, ge=-36, le=-6)
    keyframe_interval_s: Live[float] = Field(2, ge=0.1, le=60)
    upload_url: Live[str | None] = None
    public_url: Live[str | None] = None
    oss_region: Live[str | None] = None
    oss_endpoint: Live[str | None] = None
    oss_access_key_id: Live[SecretStr | None] = None
    oss_access_key_secret: Live[SecretStr | None] = None
    allowed_origins: Live[str] = ""
    api_bind: AtRestart[Bind] = "127.0.0.1:8800"
    site_name: Live[str] = Field("lectern", min_length=1, max_length=60)
    event_webhook_url: Live[str | None] = None
    event_webhook_secret: Live[SecretStr | None] = None  # whsec_ and base64
    streamer_lost_after_s: Live[float] = Field(60, gt=0)
    streamer_load_slack: Live[float] = Field(1.25, ge=1)
    transcode_windows: Live[Annotated[str, _checked(_no_rates)]] = ""
    on_late: Live[Literal["refuse", "slate"]] = "refuse"

    @classmethod
    def to_look(cls) -> Self:
        """Settings for commands that only read, and so need no TRANSCODE_SIGN_KEY."""
        try:
            return cls.load()
        except Misuse:
            return cls.load(transcode_sign_key=SecretStr("not needed to look"))

    @field_validator("transcode_sign_key")
    @classmethod
    def _a_secret(cls, key: SecretStr) -> SecretStr:
        if key.get_secret_value().strip().upper() in _NO_SECRETS:
            raise ValueError(msgid("must be a secret that the transcoder knows too; write a long random one"))
        return key

    @field_validator("public_url")
    @classmethod
    def _anybodys(cls, url: str | None) -> str | None:
        if url and urls.http(url).text and "@" in urlsplit(url).netloc:
            raise ValueError(msgid("must have no user and no password: the platform fetches recordings by it"))
        return url

    @property
    def queue(self) -> str:
        """The teacher's work queue in Prefect; teachers that share a database share the queue."""
        return self.teacher_queue

    @property
    def shared(self) -> bool:
        """Whether other teachers may be at work on the same rows."""
        return self.teacher_database_url.get_secret_value().startswith("postgres")

    @property
    def windows(self) -> Windows:
        """When recordings are transcoded by ECS that need not be ready at once."""
        return Windows.parsed(self.transcode_windows, self.timezone)


_LEAST_HOST_RATE = 64 * 1024
"""Least HOST_RATE, in bytes a second: no class is sent in less, and nothing would ever be downloaded."""


def _carries_a_class(rate: str) -> None:
    if windows.rate_bytes(rate) < _LEAST_HOST_RATE:
        raise ValueError(msgid("is in bytes a second, such as 12m, and must carry at least one class: 64k"))


class StreamerSettings(Common):
    """Settings of a streamer, a push host; the documented names of the old program are kept."""

    role: ClassVar[Role] = "streamer"
    shared: ClassVar[bool] = False  # nobody else works on its rows
    streamer_name: AtRestart[Name] = Field(default_factory=socket.gethostname)
    streamer_database_url: AtRestart[SecretStr] = SecretStr("sqlite:///task_list.db")
    video_root: AtRestart[Path] = Path("/home/video")
    wget_path: NextDownload[str] = "/usr/bin/wget"
    download_rate: Live[str] = Field("1000k", pattern=windows.RATE)
    host_rate: Live[Annotated[str, _checked(_carries_a_class)]] = Field("0", pattern=windows.RATE)
    max_video_num: Live[int] = Field(1000, ge=1)
    max_video_size: Live[float] = Field(1000, gt=0, allow_inf_nan=False)
    max_downloads: Live[int] = Field(4, ge=1)
    download_windows: Live[Annotated[str, _checked(Windows.parsed)]] = ""
    on_late: Live[Literal["refuse", "slate"]] = "refuse"
    download_tries: NextDownload[int] = Field(4, ge=1, le=10)  # the backoff doubles: the tenth comes after 17 minutes
    download_timeout_s: NextDownload[float] = Field(6 * 3600, gt=0)
    allowed_origins: Live[str] = ""
    allowed_push_hosts: NextClass[str] = ""
    broadcast_lead_s: NextClass[float] = Field(300, ge=0)
    playout_dir: AtRestart[Path] = Path("/var/lib/lectern/playout")
    playout_socket: AtRestart[Path | None] = None
    slate: NextClass[Path | None] = None
    lease_s: AtRestart[float] = Field(45, ge=0)  # 0: it never expires
    partition_policy: Live[Literal["ask peers", "stop", "push"]] = "ask peers"
    health_bind: AtRestart[Bind] = "127.0.0.1:8801"
    health_address: Live[Bind] = ""  # host:port at which other streamers reach it; empty: determined automatically

    @property
    def playout_socket_path(self) -> Path:
        """The socket on which the playout answers."""
        return self.playout_socket or self.playout_dir / "playout.sock"

    @property
    def download_rate_bytes(self) -> float:
        """Bytes a second that a download may take; infinite without a limit."""
        return windows.rate_bytes(self.download_rate)

    @property
    def host_rate_bytes(self) -> float:
        """Bytes a second that pushes and downloads may take together; infinite without a limit."""
        return windows.rate_bytes(self.host_rate)

    @property
    def windows(self) -> Windows:
        """When recordings are downloaded that need not come at once, and at which rate all together."""
        return Windows.parsed(self.download_windows, self.timezone)

    @property
    def max_bytes(self) -> int:
        """MAX_VIDEO_SIZE, documented in G, in bytes."""
        return int(self.max_video_size * GIBIBYTE)


Settings = TeacherSettings | StreamerSettings


def in_own_language(lines: Iterable[str]) -> list[str]:
    """*lines* in the language of this host; in English if its settings cannot be read."""
    try:
        language = Common.load().lectern_lang
    except LecternError:
        language = ENGLISH
    return [translated(line, language) for line in lines]
