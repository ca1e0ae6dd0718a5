"""Settings of both roles: defaults, the teacher's old JSON config, .env, environment; later wins."""

import math
import socket
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from lectern import urls
from lectern.errors import Misuse
from lectern.old_config import OldConfig
from lectern.places import Places
from lectern.wire import is_name

GIBIBYTE = 1024**3
BACKUP_DIR = Path("/var/backups/lectern")
"""Where `lectern backup` writes, if nobody says otherwise."""
_NO_SECRETS = frozenset({"", "CHANGE-ME", "CHANGEME"})


def _a_name(name: str) -> str:
    if not is_name(name):
        raise ValueError("must be 1 to 250 of the characters A-Z a-z 0-9 _ . : -")
    return name


class Common(BaseSettings):
    """What both roles need."""

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", frozen=True, hide_input_in_errors=True)

    redis_url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    prefect_api_url: str = "http://127.0.0.1:4200/api"
    prefect_api_auth_string: SecretStr | None = None
    work_pool: str = "resident"
    lectern_lang: Literal["en", "zh"] = "en"
    log_format: Literal["text", "json"] = "text"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    order_channel: str = "order"
    cancel_channel: str = "cancel"
    change_channel: str = "change"
    transcoding_channel: str = "transcoding"
    order_result_channel: str = "order_result"
    change_result_channel: str = "change_result"
    alarm_channel: str = "alarm"
    waiting_key: str = "{record_id}_{resolution}"
    streamer_stream: str = "streamer:{name}"
    report_stream: str = "streamer_report"
    dead_letter_stream: str = "dead_letter"
    streamers_key: str = "streamers"

    batch_max: int = Field(5000, ge=1, le=5000)
    batch_wait_s: float = Field(0, ge=0, le=5)
    sweep_interval_s: float = Field(30, gt=0)
    poll_interval_s: float = Field(1.0, gt=0)
    heartbeat_interval_s: float = Field(5, gt=0)
    run_heartbeat_s: float = Field(30, gt=0)
    drain_timeout_s: float = Field(20, ge=0)
    inbox_tries: int = Field(5, ge=1)
    inbox_lease_s: float = Field(60, gt=0)
    alarm_block: str | None = Field(default=None, pattern=r"^[a-z0-9-]+/[a-z0-9-]+$")
    alarm_urls: SecretStr | None = None  # of apprise; they hold tokens
    runbook_url: str | None = None
    alarm_group_s: float = Field(60, ge=0)
    alarm_escalate_s: float = Field(900, gt=0)
    alarm_quiet_s: float = Field(300, gt=0)
    keep_messages_s: float = Field(7 * 86400, gt=0)
    keep_events_s: float = Field(30 * 86400, gt=0)
    keep_classes_s: float = Field(90 * 86400, gt=0)
    keep_as_run_s: float = Field(400 * 86400, gt=0)
    prune_interval_s: float = Field(600, gt=0)
    backup_dir: Path = BACKUP_DIR
    http_timeout_s: float = Field(10, gt=0)

    @field_validator("allowed_origins", "allowed_push_hosts", check_fields=False)
    @classmethod
    def _places(cls, text: str, info: ValidationInfo) -> str:
        Places.listed(text, str(info.field_name).upper())
        return text

    @field_validator("api_bind", "health_bind", "health_address", check_fields=False)
    @classmethod
    def _an_address(cls, bind: str) -> str:
        host, _, port = bind.rpartition(":")
        if bind and not (host and port.isdecimal() and int(port) <= 65535):
            raise ValueError("must be host:port, or empty for none")
        return bind

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """First wins here: arguments, environment, .env, the old JSON config."""
        return init_settings, env_settings, dotenv_settings, OldConfig(settings_cls)

    @classmethod
    def load(cls, **given: Any) -> Self:  # noqa: ANN401 (field values)
        """The settings, or Misuse that names each wrong variable."""
        try:
            return cls(**given)
        except ValidationError as error:
            faults = "; ".join(
                f"{'.'.join(map(str, one['loc'])).upper() or 'settings'}: {one['msg'].removeprefix('Value error, ')}"
                for one in error.errors(include_url=False, include_input=False)
            )
            raise Misuse(f"Settings are wrong or missing: {faults}. Set them in the environment or in .env.") from error


def _is_shared(url: SecretStr) -> bool:
    return url.get_secret_value().startswith("postgres")


def _teacher_name(given: dict[str, Any]) -> str:
    """Several teachers on one database have several names; the only one has always been called so."""
    shared = "teacher_database_url" in given and _is_shared(given["teacher_database_url"])
    return socket.gethostname() if shared else "teacher"


def _teacher_queue(given: dict[str, Any]) -> str:
    shared = "teacher_database_url" in given and _is_shared(given["teacher_database_url"])
    return "teacher" if shared else str(given.get("teacher_name", "teacher"))


class TeacherSettings(Common):
    """The control host."""

    teacher_database_url: SecretStr = SecretStr("sqlite:///teacher.db")  # can hold a password
    teacher_name: str = Field(default_factory=_teacher_name)
    teacher_queue: str = Field(default_factory=_teacher_queue)
    teacher_config: Path | None = None
    oss_transcode_url: str | None = None
    transcode_sign_key: SecretStr
    on_transcode_timeout: Literal["refuse", "ecs"] = "refuse"
    transcoding_time_out_s: float = Field(120, gt=0)
    order_warn_time_out_s: float = Field(86400, gt=0)
    max_attempts_a_day: int = Field(5, ge=1)
    ecs_hosts: str = ""
    ecs_ssh_key: Path | None = None
    ecs_known_hosts: Path | None = None
    ecs_work_root: str = "~/lectern-work"
    ecs_ffmpeg: str = "ffmpeg"
    ecs_ffprobe: str = "ffprobe"
    ecs_wget: str = "wget"
    ecs_curl: str = "curl"
    max_ecs_jobs: int = Field(2, ge=1)
    ecs_aside_s: float = Field(600, gt=0)
    keyframe_interval_s: float = Field(2, ge=0.1, le=60)
    upload_url: str | None = None
    public_url: str | None = None
    oss_region: str | None = None
    oss_endpoint: str | None = None
    oss_access_key_id: SecretStr | None = None
    oss_access_key_secret: SecretStr | None = None
    allowed_origins: str = ""
    api_bind: str = "127.0.0.1:8800"
    streamer_lost_after_s: float = Field(60, gt=0)
    streamer_load_slack: float = Field(1.25, ge=1)

    @classmethod
    def to_look(cls) -> Self:
        """The settings of somebody who only looks, and so needs no secret of the transcoder's."""
        try:
            return cls.load()
        except Misuse:
            return cls.load(transcode_sign_key=SecretStr("not needed to look"))

    @field_validator("transcode_sign_key")
    @classmethod
    def _a_secret(cls, key: SecretStr) -> SecretStr:
        if key.get_secret_value().strip().upper() in _NO_SECRETS:
            raise ValueError("must be a secret that the transcoder knows too; write a long random one")
        return key

    @field_validator("public_url")
    @classmethod
    def _anybodys(cls, url: str | None) -> str | None:
        if not url:
            return None
        if urls.http(url).text and "@" in urlsplit(url).netloc:
            raise ValueError("must have no user and no password: the platform fetches recordings by it")
        return url

    @field_validator("teacher_name", "teacher_queue")
    @classmethod
    def _nameable(cls, name: str) -> str:
        return _a_name(name)

    @property
    def name(self) -> str:
        """The host's name."""
        return self.teacher_name

    @property
    def queue(self) -> str:
        """Its work queue in Prefect; teachers that share a database share it."""
        return self.teacher_queue

    @property
    def shared(self) -> bool:
        """Whether other teachers may be at work on the same rows."""
        return _is_shared(self.teacher_database_url)

    @property
    def bind(self) -> str:
        """Where it answers over HTTP; empty for nowhere."""
        return self.api_bind

    @property
    def database_url(self) -> str:
        """SQLAlchemy URL."""
        return self.teacher_database_url.get_secret_value()


class StreamerSettings(Common):
    """A push host; the documented names stay."""

    streamer_name: str = Field(default_factory=socket.gethostname)
    streamer_database_url: SecretStr = SecretStr("sqlite:///task_list.db")
    video_root: Path = Path("/home/video")
    wget_path: str = "/usr/bin/wget"
    download_rate: str = Field("1000k", pattern=r"^\d+(\.\d+)?[kKmMgG]?$")
    max_video_num: int = Field(1000, ge=1)
    max_video_size: float = Field(1000, gt=0)
    max_downloads: int = Field(4, ge=1)
    download_tries: int = Field(4, ge=1, le=10)  # the pauses double: the tenth try comes after 17 minutes
    download_timeout_s: float = Field(6 * 3600, gt=0)
    allowed_origins: str = ""
    allowed_push_hosts: str = ""
    broadcast_lead_s: float = Field(300, ge=0)
    playout: Literal["own", "ffmpeg"] = "own"
    playout_dir: Path = Path("/var/lib/lectern/playout")
    playout_socket: Path | None = None
    slate: Path | None = None
    lease_s: float = Field(45, ge=0)  # 0: without end
    on_control_lost: Literal["ask peers", "stop", "push"] = "ask peers"
    health_bind: str = "127.0.0.1:8801"
    health_address: str = ""  # where other streamers reach it; empty: found out

    @field_validator("streamer_name")
    @classmethod
    def _nameable(cls, name: str) -> str:
        return _a_name(name)

    @property
    def name(self) -> str:
        """The host's name: its stream."""
        return self.streamer_name

    @property
    def queue(self) -> str:
        """Its work queue in Prefect."""
        return self.streamer_name

    @property
    def shared(self) -> bool:
        """Whether others may be at work on the same rows: never."""
        return False

    @property
    def bind(self) -> str:
        """Where it answers over HTTP; empty for nowhere."""
        return self.health_bind

    @property
    def database_url(self) -> str:
        """SQLAlchemy URL."""
        return self.streamer_database_url.get_secret_value()

    @property
    def playout_socket_path(self) -> Path:
        """Where the playout answers."""
        return self.playout_socket or self.playout_dir / "playout.sock"

    @property
    def download_rate_bytes(self) -> float:
        """Bytes a second that a download may take, as wget reads them; 0 is no limit."""
        units = {"k": 1024.0, "m": 1024.0**2, "g": 1024.0**3}
        number = float(self.download_rate.rstrip("kKmMgG"))
        return (number or math.inf) * units.get(self.download_rate[-1].lower(), 1.0)

    @property
    def max_bytes(self) -> int:
        """MAX_VIDEO_SIZE, documented in G, in bytes."""
        return int(self.max_video_size * GIBIBYTE)


Settings = TeacherSettings | StreamerSettings
