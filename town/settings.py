"""What the programs of the demo see: nothing of the user's settings, and everything below one folder."""

import os
import tempfile
from pathlib import Path

from town import ports, programs
from town.origin import Origin
from town.oss_transcoder import OssTranscoder
from town.programs import Programs
from town.sshd import SshServer

STREAMER = "streamer1"
CACHE_NUM = 12
"""How many renditions the demo's streamer may keep: few, so that its cache can be filled."""

TIME_OUT_S = 20
_BATCHES = (
    "TASK_RUN_RECORDER_BATCH_SIZE",
    "TASK_RUN_RECORDER_READ_BATCH_SIZE",
    "EVENT_PERSISTER_BATCH_SIZE",
    "EVENT_PERSISTER_READ_BATCH_SIZE",
    "TRIGGERS_READ_BATCH_SIZE",
)
"""The server's own batches: with one row a transaction, SQLite is the bottleneck."""


def environment(root: Path, found: Programs, redis_port: int, prefect_port: int) -> dict[str, str]:
    """What all processes of the demo see: nothing of the user's settings, everything below *root*."""
    home = root / "home"
    home.mkdir(parents=True, exist_ok=True)
    kept = {name: os.environ[name] for name in ("LANG", "LC_ALL", "TZ") if name in os.environ}
    return {
        **kept,
        "PATH": programs.path(found),
        "HOME": str(home),
        "PREFECT_HOME": str(root / "prefect"),
        "PREFECT_API_URL": f"http://{ports.HOST}:{prefect_port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_LOGGING_LEVEL": "WARNING",
        **{f"PREFECT_SERVER_SERVICES_{name}": "50" for name in _BATCHES},
        "PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_LOOP_SECONDS": "600",
        "REDIS_URL": f"redis://{ports.HOST}:{redis_port}/0",
    }


def of_hosts(
    root: Path, found: Programs, origin: Origin, oss: OssTranscoder, ssh: SshServer, key: str
) -> dict[str, str]:
    """The settings of the demo's teacher and streamer."""
    socket = Path(tempfile.mkdtemp(prefix="lectern-demo-")) / "playout.sock"  # a socket's path has to be short
    return {
        "TEACHER_DATABASE_URL": f"sqlite:///{root}/teacher.db",
        "OSS_TRANSCODE_URL": oss.url,
        "TRANSCODE_SIGN_KEY": key,
        "TRANSCODING_TIME_OUT_S": str(TIME_OUT_S),
        "ECS_HOSTS": ssh.url,
        "ECS_SSH_KEY": str(ssh.client_key),
        "ECS_KNOWN_HOSTS": str(ssh.known_hosts),
        "ECS_WORK_ROOT": str(root / "ecs"),
        "ECS_FFMPEG": found.ffmpeg,
        "ECS_WGET": found.wget,
        "UPLOAD_URL": origin.url,
        "PUBLIC_URL": origin.url,
        "STREAMER_NAME": STREAMER,
        "STREAMER_DATABASE_URL": f"sqlite:///{root}/task_list.db",
        "VIDEO_ROOT": str(root / "video"),
        "PLAYOUT_DIR": str(root / "playout"),
        "PLAYOUT_SOCKET": str(socket),
        "WGET_PATH": found.wget,
        "DOWNLOAD_RATE": "20m",
        "MAX_VIDEO_NUM": str(CACHE_NUM),
        "MAX_VIDEO_SIZE": "2",
        "ALLOWED_ORIGINS": ports.HOST,
        "ALLOWED_PUSH_HOSTS": ports.HOST,
        "BROADCAST_LEAD_S": "12",
        "SWEEP_INTERVAL_S": "5",
        "STREAMER_LOST_AFTER_S": "30",
        "DRAIN_TIMEOUT_S": "5",
        "API_BIND": f"{ports.HOST}:{ports.free_port()}",
        "HEALTH_BIND": f"{ports.HOST}:{ports.free_port()}",
    }
