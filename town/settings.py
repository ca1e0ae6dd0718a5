"""What the programs of a town see, the demo's and that of the tests."""

import os
import tempfile
from pathlib import Path

from town import ports, programs
from town.origin import Origin
from town.oss_transcoder import OssTranscoder
from town.programs import Programs
from town.sshd import SshServer

CACHE_NUM = 12
"""How many renditions the demo's streamer may keep: few, so that its cache can be filled."""

_BATCHES = (
    "TASK_RUN_RECORDER_BATCH_SIZE",
    "TASK_RUN_RECORDER_READ_BATCH_SIZE",
    "EVENT_PERSISTER_BATCH_SIZE",
    "EVENT_PERSISTER_READ_BATCH_SIZE",
    "TRIGGERS_READ_BATCH_SIZE",
)
"""The server's own batches: with one row a transaction, SQLite is the bottleneck."""


def environment(root: Path, found: Programs) -> dict[str, str]:
    """What all processes of a town see: nothing of the user's settings, everything below *root*."""
    kept = {name: os.environ[name] for name in ("LANG", "LC_ALL", "TZ") if name in os.environ}
    return {
        **kept,
        "PATH": programs.path(found),
        "HOME": str(root),
        "PREFECT_HOME": str(root / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_LOGGING_LEVEL": "WARNING",
    }


def of_servers(redis_port: int, prefect_port: int) -> dict[str, str]:
    """Where the demo's Redis and Prefect server are, and what the latter is told."""
    return {
        "PREFECT_API_URL": f"http://{ports.HOST}:{prefect_port}/api",
        **{f"PREFECT_SERVER_SERVICES_{name}": "50" for name in _BATCHES},
        "PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_LOOP_SECONDS": "600",
        "REDIS_URL": f"redis://{ports.HOST}:{redis_port}/0",
    }


def of_any_host(root: Path, found: Programs, oss: OssTranscoder, ssh: SshServer, key: str) -> dict[str, str]:
    """The settings of teachers and streamers in any town, whose files are below *root*."""
    return {
        "TEACHER_DATABASE_URL": f"sqlite:///{root}/teacher.db",
        "OSS_TRANSCODE_URL": oss.url,
        "TRANSCODE_SIGN_KEY": key,
        "ECS_HOSTS": ssh.url,
        "ECS_SSH_KEY": str(ssh.client_key),
        "ECS_KNOWN_HOSTS": str(ssh.known_hosts),
        "ECS_WORK_ROOT": str(root / "ecs"),
        "ECS_FFMPEG": found.ffmpeg,
        "ECS_WGET": found.wget,
        "WGET_PATH": found.wget,
        "ALLOWED_ORIGINS": ports.HOST,
        "ALLOWED_PUSH_HOSTS": ports.HOST,
    }


def of_hosts(
    root: Path, found: Programs, origin: Origin, oss: OssTranscoder, ssh: SshServer, key: str
) -> dict[str, str]:
    """The settings of the demo's teacher and streamer."""
    socket = Path(tempfile.mkdtemp(prefix="lectern-demo-")) / "playout.sock"  # a socket's path has to be short
    return {
        **of_any_host(root, found, oss, ssh, key),
        "UPLOAD_URL": origin.url,
        "PUBLIC_URL": origin.url,
        "STREAMER_NAME": "streamer1",
        "STREAMER_DATABASE_URL": f"sqlite:///{root}/task_list.db",
        "VIDEO_ROOT": str(root / "video"),
        "PLAYOUT_DIR": str(root / "playout"),
        "PLAYOUT_SOCKET": str(socket),
        "DOWNLOAD_RATE": "20m",
        "MAX_VIDEO_NUM": str(CACHE_NUM),
        "MAX_VIDEO_SIZE": "2",
        "SWEEP_INTERVAL_S": "5",
        "DRAIN_TIMEOUT_S": "5",
        "API_BIND": f"{ports.HOST}:{ports.free_port()}",
        "HEALTH_BIND": f"{ports.HOST}:{ports.free_port()}",
    }


def of_pace(slowness: float) -> dict[str, str]:
    """The settings by which the demo's hosts wait for programs, on a machine that runs them so many times as slowly."""
    waits_s = {"TRANSCODING_TIME_OUT_S": 20, "BROADCAST_LEAD_S": 12, "LEASE_S": 45, "STREAMER_LOST_AFTER_S": 30}
    return {name: f"{seconds * slowness:g}" for name, seconds in waits_s.items()}
