"""The checks of ``lectern doctor``: each finding says how a thing is, and what to type if it is not well."""

import asyncio
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
from redis.exceptions import NoPermissionError, ResponseError

from lectern import words
from lectern.cli import origins
from lectern.cli.terms import on_bus
from lectern.effects.files import disk, tls
from lectern.effects.redis import address
from lectern.effects.redis.bus import Bus
from lectern.effects.rows import airings, cache, incidents, oss_requests, schema
from lectern.effects.rows.tables.engine import open_database
from lectern.effects.rows.tables.look import looking, open_to_look
from lectern.errors import OSS_REFUSES, LecternError, TryAgain
from lectern.model.tables import teacher
from lectern.playout import client as playout
from lectern.playout.sanitize import cleaned
from lectern.settings import Settings, StreamerSettings, TeacherSettings
from lectern.shared_settings import Common
from lectern.shown import shown

LOOK_S = 5.0
MAX_SKEW_S = 2.0


@dataclass(frozen=True)
class Finding:
    """The result of one check: *what* was checked, how it is, and what to type if it is not well."""

    what: str
    is_well: bool
    said: str
    to_type: str = ""


def of_settings(settings: Settings) -> Iterator[Finding]:
    """The settings by their sources."""
    sources = origins.by_source(origins.origins(settings))
    if not sources:
        said = f"all are the defaults; {origins.ENV_FILE.absolute()} is not there or sets nothing"
        yield Finding("settings", is_well=False, said=said, to_type="cd to the folder of the host's .env, or set them")
    for source, named in sources.items():
        yield Finding("settings", is_well=True, said=f"from {source}: {', '.join(named)}")
    for said in origins.gone():
        yield Finding("settings", is_well=False, said=said, to_type="take it out of the file, or of the environment")


def of_database(settings: Settings) -> Finding:
    """Whether the database exists, is sound, and has the schema of this release."""
    try:
        schema.check(open_database(settings.database_url), settings.role)
    except LecternError as error:
        return Finding("database", is_well=False, said=error.message, to_type=f"lectern init {settings.role}")
    return Finding("database", is_well=True, said=f"{_where(settings.database_url)} is as this release needs it")


def _where(url: str) -> str:
    return str(Path(url.removeprefix("sqlite:///")).absolute()) if url.startswith("sqlite:///") else shown(url)


def of_redis(settings: Common) -> Iterator[Finding]:
    """Whether Redis answers and takes writes, and how far this host's clock is from its."""
    url = settings.redis_url.get_secret_value()
    where = shown(url)

    async def look(bus: Bus) -> tuple[float, str]:
        now = await bus.now()
        try:
            await bus.try_write()
        except TryAgain as error:
            why = error.__cause__
            if not isinstance(why, ResponseError):
                raise
            return now, "" if isinstance(why, NoPermissionError) else str(why)  # it may have our keys one by one
        return now, ""

    async def looked() -> tuple[float, str]:
        async with asyncio.timeout(LOOK_S):
            found: tuple[float, str] = await on_bus(settings, look)
            return found

    before = time.time()
    try:
        shared, refusal = asyncio.run(looked())
    except (LecternError, TimeoutError) as error:
        why = error.__cause__ or error.message if isinstance(error, LecternError) else "no answer in time"
        said = f"{where}: {why}"
        yield Finding("redis", is_well=False, said=said, to_type=address.command(url, "ping"))
        return
    said = f"{where} answers, but takes no writes: {refusal}" if refusal else f"{where} answers"
    yield Finding("redis", is_well=not refusal, said=said, to_type=address.command(url, "INFO"))
    skew_s = (before + time.time()) / 2 - shared
    said = f"{abs(skew_s):.1f} s from the clock of Redis' host"
    yield Finding("clock", is_well=abs(skew_s) <= MAX_SKEW_S, said=said, to_type="timedatectl")


def of_prefect(settings: Common) -> Finding:
    """Whether the Prefect server answers, and lets this host in."""
    url = settings.prefect_api_url.rstrip("/")
    secret = settings.prefect_api_auth_string
    user, _, password = secret.get_secret_value().partition(":") if secret else ("", "", "")
    try:
        auth = httpx.BasicAuth(user, password) if secret else None
        answer = httpx.get(f"{url}/admin/version", auth=auth, timeout=LOOK_S, trust_env=False)
        version = str(answer.raise_for_status().json())
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        said = f"{shown(url)} {_why(error)}. Classes are aired without it."
        return Finding("prefect", is_well=False, said=said, to_type=f"curl {shown(url)}/health")
    return Finding("prefect", is_well=True, said=f"{shown(url)} answers, version {version}")


def _why(error: Exception) -> str:
    """How a server failed to answer as it should, as the end of a sentence."""
    match error:
        case httpx.HTTPStatusError(response=answer) if answer.status_code in {401, 403}:
            return f"does not let this host in (HTTP {answer.status_code})"
        case httpx.HTTPStatusError(response=answer):
            return f"answers HTTP {answer.status_code} {cleaned(answer.reason_phrase)}"
        case httpx.TimeoutException():
            return f"does not answer in {LOOK_S:.0f} s"
        case httpx.ConnectError():
            return "cannot be reached: nobody answers there"
        case httpx.HTTPError():
            return f"breaks off: {str(error) or type(error).__name__}"
        case httpx.InvalidURL():
            return "is no URL"
    return "answers something else than JSON of ours"


def of_oss(settings: TeacherSettings) -> Iterator[Finding]:
    """Whether the OSS transcoder can be reached, and how it took the last request.

    No request is known that would try the key and book no transcoding.
    """
    url = settings.oss_transcode_url
    if url is None:
        return
    try:
        httpx.head(url, timeout=LOOK_S, trust_env=False, verify=tls.context())
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        yield Finding("OSS transcoder", is_well=False, said=f"{shown(url)} {_why(error)}", to_type="curl -I URL")
        return
    key = "TRANSCODE_SIGN_KEY is not tried here, because each request is a transcoding"
    with looking(open_to_look(settings.database_url, settings.role), settings.role) as connection:
        refused = incidents.open_of(connection, teacher.journal, OSS_REFUSES.number)
        taken = oss_requests.last_taken(connection)
    if refused is not None:
        said = f"{shown(url)} answers, and refused the last request: {refused}"
        to_type = "correct TRANSCODE_SIGN_KEY, and restart the teacher"
        yield Finding("OSS transcoder", is_well=False, said=said, to_type=to_type)
        return
    last = "no request was taken yet" if taken is None else f"it took the last request at {words.moment(taken)}"
    yield Finding("OSS transcoder", is_well=True, said=f"{shown(url)} answers; {key}; {last}")


def of_process(settings: Settings) -> Finding:
    """Whether this host's resident process runs and is well."""
    to_type = f"supervisorctl status; supervisorctl start lectern-{settings.role}"
    if not settings.bind or settings.bind.endswith(":0"):
        return Finding("process", is_well=True, said="answers nowhere, by its settings: it was not asked")
    try:
        said = httpx.get(f"http://{settings.bind}/health", timeout=LOOK_S, trust_env=False).json()
        wrong = "; ".join(said["wrong"])
        version = f"release {said.get('version')}, up since {words.moment(float(said.get('since', 0)))}"
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        return Finding("process", is_well=False, said=f"http://{settings.bind}/health {_why(error)}", to_type=to_type)
    return Finding("process", is_well=not wrong, said=wrong or version, to_type=to_type)


def of_programs(settings: StreamerSettings) -> Iterator[Finding]:
    """Whether the programs that a streamer starts can be run."""
    for name, program in (("wget", settings.wget_path), ("ffmpeg", "ffmpeg")):
        found = shutil.which(program)
        to_type = f"apt-get install {name}"
        said = f"{found or program}{'' if found else ' cannot be run'}"
        yield Finding(f"program {name}", is_well=found is not None, said=said, to_type=to_type)


def of_disk(settings: StreamerSettings) -> Finding:
    """Whether the disk has room for a cache as large as MAX_VIDEO_SIZE."""
    root = settings.video_root
    if not root.is_dir():
        return Finding("disk", is_well=False, said=f"{root} is no folder", to_type=f"mkdir -p {root}")
    free, used = disk.free_bytes(root), 0
    try:
        engine = open_to_look(settings.database_url, "streamer")
        with looking(engine, "streamer") as connection:
            used = cache.used(connection, root).size_bytes
    except LecternError:
        pass  # the finding on the database reports that
    wanted = max(settings.max_bytes - used, 0)
    said = f"{root}: {words.size(free)} free; the cache has {words.size(used)} of {words.size(settings.max_bytes)}"
    if free >= wanted:
        return Finding("disk", is_well=True, said=said)
    why = f"{said}: it is full {words.size(wanted - free)} before MAX_VIDEO_SIZE" if free else f"{root} takes nothing"
    return Finding("disk", is_well=False, said=why, to_type="df -h; then lower MAX_VIDEO_SIZE, or make room")


def of_playout(socket: Path) -> Finding:
    """Whether the playout, which airs classes, answers."""

    async def ask() -> dict[str, object]:
        async with asyncio.timeout(LOOK_S), await playout.Client.connect(socket) as ours:
            return await ours.ask("status", timeout_s=LOOK_S)

    try:
        found = asyncio.run(ask())
    except (playout.Unreachable, playout.Refused, TimeoutError) as error:
        why = str(error) or "no answer in time"
        return Finding("playout", is_well=False, said=why, to_type="systemctl status lectern-playout")
    return Finding("playout", is_well=True, said=f"release {found.get('release')} answers at {socket}")


def push_urls(settings: StreamerSettings) -> list[str]:
    """The push URLs of the classes that are not over; empty if the database cannot be read."""
    try:
        with looking(open_to_look(settings.database_url, "streamer"), "streamer") as connection:
            return [one.push_url for one in airings.live(connection)]
    except LecternError:
        return []  # the finding on the database reports that
