"""Settings of both roles. Sources, later wins: defaults, the teacher's old JSON, .env, their own file, environment."""

import os
import sys
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from lectern.errors import Misuse
from lectern.old_config import OldConfig
from lectern.places import Places
from lectern.states import Role
from lectern.wire import a_name

BACKUP_DIR = Path("/var/backups/lectern")
"""Where `lectern backup` writes by default."""


def own_file() -> Path:
    """The file of LECTERN_SETTINGS; else what a rollout has put beside the ``venv`` by which the program is called.

    Raises Misuse if LECTERN_SETTINGS names a file that does not exist; the other file need not exist.
    """
    told = os.environ.get("LECTERN_SETTINGS")
    if told and not Path(told).is_file():
        raise Misuse(f"LECTERN_SETTINGS={told}: there is no such file. Correct the variable, or unset it.")
    return Path(told or Path(sys.argv[0]).absolute().parent.parent.parent / "settings.env")


class Common(BaseSettings):
    """Settings that both roles need."""

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", frozen=True, hide_input_in_errors=True)
    role: ClassVar[Role]

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
    drain_timeout_s: float = Field(20, ge=0, le=20)  # supervisor ends a host 30 s after TERM
    inbox_tries: int = Field(5, ge=1)
    inbox_lease_s: float = Field(60, gt=0)
    alarm_urls: SecretStr | None = None  # URLs of apprise services; they hold tokens
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

    @field_validator("*", mode="before")
    @classmethod
    def _empty_is_not_set(cls, value: Any, info: ValidationInfo) -> Any:  # noqa: ANN401 (what the field will hold)
        return None if value == "" and cls.model_fields[str(info.field_name)].default is None else value

    @field_validator("teacher_name", "teacher_queue", "streamer_name", check_fields=False)
    @classmethod
    def _nameable(cls, name: str) -> str:
        return a_name(name)

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

    @property
    def name(self) -> str:
        """The host's name; a streamer's name also names its stream."""
        return str(getattr(self, f"{self.role}_name"))

    @property
    def queue(self) -> str:
        """The host's work queue in Prefect."""
        return self.name

    @property
    def alarm_services(self) -> str:
        """The service URLs of ALARM_URLS, separated by blanks; empty if there are none."""
        return self.alarm_urls.get_secret_value().strip() if self.alarm_urls is not None else ""

    @property
    def shared(self) -> bool:
        """Whether other hosts may work on the same rows."""
        return False

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
        return init_settings, env_settings, dotenv_settings, OldConfig(settings_cls)

    @classmethod
    def load(cls, **given: Any) -> Self:  # noqa: ANN401 (field values)
        """The settings; raises Misuse that names each wrong or missing variable."""
        given.setdefault("_env_file", (".env", own_file()))  # the later one wins
        try:
            return cls(**given)
        except ValidationError as error:
            faults = "; ".join(
                f"{'.'.join(map(str, one['loc'])).upper() or 'settings'}: {one['msg'].removeprefix('Value error, ')}"
                for one in error.errors(include_url=False, include_input=False)
            )
            raise Misuse(f"Settings are wrong or missing: {faults}. Set them in the environment or in .env.") from error
