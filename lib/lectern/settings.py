"""Settings of the two roles; `lectern.shared_settings` has their sources, and what both roles share."""

import math
import socket
from pathlib import Path
from typing import Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator

from lectern import urls
from lectern.errors import Misuse
from lectern.shared_settings import Common
from lectern.states import Role

GIBIBYTE = 1024**3
_NO_SECRETS = frozenset({"", "CHANGE-ME", "CHANGEME"})


def _is_shared(given: dict[str, Any]) -> bool:
    """Whether several teachers can share the database, which PostgreSQL allows."""
    return "teacher_database_url" in given and given["teacher_database_url"].get_secret_value().startswith("postgres")


def _teacher_name(given: dict[str, Any]) -> str:
    """The default name: the host's if teachers can share the database, else always ``teacher``."""
    return socket.gethostname() if _is_shared(given) else "teacher"


def _teacher_queue(given: dict[str, Any]) -> str:
    return "teacher" if _is_shared(given) else str(given.get("teacher_name", "teacher"))


class TeacherSettings(Common):
    """Settings of the teacher, the control host."""

    role: ClassVar[Role] = "teacher"
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
        """Settings for commands that only read, and so need no TRANSCODE_SIGN_KEY."""
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
        if url and urls.http(url).text and "@" in urlsplit(url).netloc:
            raise ValueError("must have no user and no password: the platform fetches recordings by it")
        return url

    def refuse_half_ecs(self) -> None:
        """Raise Misuse if ECS hosts are named, and what they need is not."""
        needed = ("ecs_ssh_key", "ecs_known_hosts", "upload_url", "public_url")
        missing = [name.upper() for name in needed if not getattr(self, name)]
        if self.ecs_hosts and missing:
            raise Misuse(f"ECS_HOSTS is set, so {', '.join(missing)} must be set too.")

    @property
    def queue(self) -> str:
        """The teacher's work queue in Prefect; teachers that share a database share the queue."""
        return self.teacher_queue

    @property
    def shared(self) -> bool:
        """Whether other teachers may be at work on the same rows."""
        return self.teacher_database_url.get_secret_value().startswith("postgres")

    @property
    def bind(self) -> str:
        """The ``host:port`` on which the teacher answers HTTP; empty if it does not."""
        return self.api_bind


class StreamerSettings(Common):
    """Settings of a streamer, a push host; the documented names of the old program are kept."""

    role: ClassVar[Role] = "streamer"
    streamer_name: str = Field(default_factory=socket.gethostname)
    streamer_database_url: SecretStr = SecretStr("sqlite:///task_list.db")
    video_root: Path = Path("/home/video")
    wget_path: str = "/usr/bin/wget"
    download_rate: str = Field("1000k", pattern=r"^\d+(\.\d+)?[kKmMgG]?$")
    max_video_num: int = Field(1000, ge=1)
    max_video_size: float = Field(1000, gt=0, allow_inf_nan=False)
    max_downloads: int = Field(4, ge=1)
    download_tries: int = Field(4, ge=1, le=10)  # the backoff doubles: the tenth try comes after 17 minutes
    download_timeout_s: float = Field(6 * 3600, gt=0)
    allowed_origins: str = ""
    allowed_push_hosts: str = ""
    broadcast_lead_s: float = Field(300, ge=0)
    playout_dir: Path = Path("/var/lib/lectern/playout")
    playout_socket: Path | None = None
    slate: Path | None = None
    lease_s: float = Field(45, ge=0)  # 0: it never expires
    on_control_lost: Literal["ask peers", "stop", "push"] = "ask peers"
    health_bind: str = "127.0.0.1:8801"
    health_address: str = ""  # host:port at which other streamers reach it; empty: determined automatically

    @property
    def bind(self) -> str:
        """The ``host:port`` on which the streamer answers HTTP; empty if it does not."""
        return self.health_bind

    @property
    def playout_socket_path(self) -> Path:
        """The socket on which the playout answers."""
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
