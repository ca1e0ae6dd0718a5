"""``lectern doctor`` and ``alarm test``: whether a host has all that it needs, and whether its alarms reach people."""

import asyncio
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import httpx
import typer
from dotenv import dotenv_values
from redis.exceptions import NoPermissionError, ResponseError

from lectern import formatting, health, urls
from lectern.allowlist import Allowlist
from lectern.cli import readers
from lectern.cli.options import Json, on_bus, painted, say, settings_of
from lectern.db import airings, cache, incidents, transcodings
from lectern.db.engine import NoDatabase, open_database
from lectern.errors import OSS_REFUSES, LecternError, Misuse, TryAgain
from lectern.i18n import Text, translator
from lectern.playout import control_socket as playout
from lectern.playout.sentences import cleaned
from lectern.redis import connection
from lectern.redis.client import Bus
from lectern.settings import RENAMED, Common, Settings, StreamerSettings, TeacherSettings, own_file, shown
from lectern.states import Role
from lectern.storage import disk, origin
from lectern.urls import redact_url

ENV_FILE = Path(".env")


def renamed() -> list[str]:
    """A sentence for each setting of this host that has another name now."""
    written = {name.upper() for its in _places().values() for name in its}
    old = {old.upper(): new.upper() for new, old in RENAMED.items()}
    return [f"{name} is now called {new}; the old name is still read" for name, new in old.items() if name in written]


def by_source(settings: Settings) -> dict[str, list[str]]:
    """The settings that are not their defaults, by their source, as ``NAME=value`` that people may see."""
    places = _places().items()
    written = {place: {one.upper() for one, value in its.items() if value is not None} for place, its in places}
    sources: dict[str, list[str]] = {}
    for field in sorted(settings.model_fields_set):
        name = field.upper()
        spelt = {name, RENAMED.get(field, field).upper()}
        source = next((place for place, names in written.items() if spelt & names), None)
        source = source or str(getattr(settings, "teacher_config", None) or "the command line")
        sources.setdefault(source, []).append(f"{name}={shown(getattr(settings, field))}")
    return sources


def _places() -> dict[str, Mapping[str, str | None]]:
    files = {str(one.absolute()): dotenv_values(one) for one in (own_file(), ENV_FILE)}
    return {"the environment": os.environ, **files}


LOOK_S = 5.0
MAX_SKEW_S = 2.0


@dataclass(frozen=True)
class Finding:
    """The result of one check: *what* was checked, how it is, and what to type if it is not well."""

    what: str
    is_well: bool
    said: str
    to_type: str = ""

    def lines(self) -> list[str]:
        """The finding for people."""
        sign = painted("✓", "green") if self.is_well else painted("✗", "bold red")
        more = [f"    --> {self.to_type}"] if self.to_type and not self.is_well else []
        return [f"{sign} {self.what}: {self.said}", *more]


def of_settings(settings: Settings) -> Iterator[Finding]:
    """The settings by their sources."""
    sources = by_source(settings)
    if not sources:
        said = f"all are the defaults; {ENV_FILE.absolute()} is not there or sets nothing"
        yield Finding("settings", is_well=False, said=said, to_type="cd to the folder of the host's .env, or set them")
    for source, named in sources.items():
        yield Finding("settings", is_well=True, said=f"from {source}: {', '.join(named)}")
    for said in renamed():
        yield Finding("settings", is_well=False, said=said, to_type="rename it in the file, or in the environment")


def of_database(settings: Settings) -> Finding:
    """Whether the database exists, is sound, and has the schema of this release."""
    from lectern.db import schema  # noqa: PLC0415 (Alembic takes long to load)

    try:
        schema.check(open_database(settings.database_url), settings.role)
    except LecternError as error:
        return Finding("database", is_well=False, said=error.message, to_type=f"lectern init {settings.role}")
    where = redact_url(settings.database_url)
    if where.startswith("sqlite:///"):
        where = str(Path(where.removeprefix("sqlite:///")).absolute())
    return Finding("database", is_well=True, said=f"{where} is as this release needs it")


def of_redis(settings: Common) -> Iterator[Finding]:
    """Whether Redis answers and takes writes, and how far this host's clock is from its."""
    url = settings.redis_url.get_secret_value()
    where = redact_url(url)

    async def look(bus: Bus) -> tuple[float, str]:
        refusal = ""
        try:
            await bus.try_write()
        except TryAgain as error:
            why = error.__cause__
            if not isinstance(why, ResponseError):
                raise
            refusal = "" if isinstance(why, NoPermissionError) else str(why)  # it may have our keys one by one
        before = time.time()  # what connecting and writing took is no difference of clocks
        shared = await bus.now()
        return (before + time.time()) / 2 - shared, refusal

    try:
        skew_s, refusal = on_bus(settings, look, LOOK_S)
    except LecternError as error:
        said = f"{where}: {str(error.__cause__ or error.message) or 'no answer in time'}"
        yield Finding("redis", is_well=False, said=said, to_type=connection.command(url, "ping"))
        return
    said = f"{where} answers, but takes no writes: {refusal}" if refusal else f"{where} answers"
    yield Finding("redis", is_well=not refusal, said=said, to_type=connection.command(url, "INFO"))
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
        said = f"{redact_url(url)} {_why(error)}. Classes are aired without it."
        return Finding("prefect", is_well=False, said=said, to_type=f"curl {redact_url(url)}/health")
    return Finding("prefect", is_well=True, said=f"{redact_url(url)} answers, version {version}")


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
    what, url = "OSS transcoder", settings.oss_transcode_url
    if url is None:
        return
    where = redact_url(url)
    try:
        httpx.head(url, timeout=LOOK_S, trust_env=False, verify=origin.trusted_authorities())
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        yield Finding(what, is_well=False, said=f"{where} {_why(error)}", to_type="curl -I URL")
        return
    said = f"{where} answers; TRANSCODE_SIGN_KEY is not tried here, because each request is a transcoding"
    refused = None
    with suppress(LecternError), readers.at(settings).looking() as connection:  # the database's finding says so
        at = transcodings.last_request_taken(connection)
        refused = incidents.open_of(connection, OSS_REFUSES.number)
        said += "; no request was taken yet" if at is None else f"; it took the last request at {formatting.moment(at)}"
    if refused is None:
        yield Finding(what, is_well=True, said=said)
        return
    to_type = "correct TRANSCODE_SIGN_KEY, then: lectern reload teacher"
    said = f"{where} answers, and refused the last request: {refused}"
    yield Finding(what, is_well=False, said=said, to_type=to_type)


def of_process(settings: Settings) -> Finding:
    """Whether this host's resident process runs and is well."""
    to_type = f"supervisorctl status; supervisorctl start lectern-{settings.role}"
    if not settings.bind or settings.bind.endswith(":0"):
        return Finding("process", is_well=True, said="answers nowhere, by its settings: it was not asked")
    try:
        said = httpx.get(f"http://{settings.bind}/health", timeout=LOOK_S, trust_env=False).json()
        wrong = "; ".join(said["wrong"])
        version = f"release {said.get('version')}, up since {formatting.moment(float(said.get('since', 0)))}"
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        return Finding("process", is_well=False, said=f"http://{settings.bind}/health {_why(error)}", to_type=to_type)
    return Finding("process", is_well=not wrong, said=wrong or version, to_type=to_type)


def of_programs(settings: StreamerSettings) -> Iterator[Finding]:
    """Whether the programs that a streamer starts can be run."""
    for name, program in (("wget", settings.wget_path), ("ffmpeg", "ffmpeg")):
        found = shutil.which(program)
        said = f"{found or program}{'' if found else ' cannot be run'}"
        yield Finding(f"program {name}", is_well=found is not None, said=said, to_type=f"apt-get install {name}")


def of_disk(settings: StreamerSettings) -> Finding:
    """Whether the disk has room for a cache as large as MAX_VIDEO_SIZE."""
    root = settings.video_root
    try:
        if not root.is_dir():
            return Finding("disk", is_well=False, said=f"{root} is no folder", to_type=f"mkdir -p {root}")
    except OSError as error:  # a folder above it is closed to who types this
        return Finding("disk", is_well=False, said=f"{root}: {error.strerror}", to_type=f"namei -l {root}")
    free, used = disk.free_bytes(root), 0
    with suppress(LecternError), readers.at(settings).looking() as connection:  # the database's finding says so
        used = cache.used(connection, root).size_bytes
    wanted = max(settings.max_bytes - used, 0)
    size = formatting.size
    said = f"{root}: {size(free)} free; the cache has {size(used)} of {size(settings.max_bytes)}"
    if free >= wanted:
        return Finding("disk", is_well=True, said=said)
    why = f"{said}: it is full {size(wanted - free)} before MAX_VIDEO_SIZE" if free else f"{root} takes nothing"
    return Finding("disk", is_well=False, said=why, to_type="df -h; then lower MAX_VIDEO_SIZE, or make room")


def of_playout(socket: Path) -> Finding:
    """Whether the playout, which airs classes, answers."""
    try:
        found = asyncio.run(asyncio.wait_for(playout.asked(socket, "status"), LOOK_S))
    except (playout.PlayoutUnreachable, playout.RequestRefused, TimeoutError) as error:
        why = str(error) or "no answer in time"
        return Finding("playout", is_well=False, said=why, to_type="systemctl status lectern-playout")
    return Finding("playout", is_well=True, said=f"release {found.get('release')} answers at {socket}")


app = typer.Typer()
alarm = typer.Typer(no_args_is_help=True, help="Whether alarms reach people.")
app.add_typer(alarm, name="alarm")
MOST_HOSTS = 20


@app.command()
def doctor(
    role: Annotated[Role | None, typer.Argument(help="What this host is, if its database does not say.")] = None,
    as_json: Json = False,
) -> None:
    """Look at all that this host needs; a line each, with what to type. Exit code 1 if something is not well."""
    found = [one for each in roles(role) for one in _of(each)]
    fields = {"well": all(one.is_well for one in found), "findings": [vars(one) for one in found]}
    say(as_json, fields, [line for one in found for line in one.lines()])
    raise typer.Exit(0 if fields["well"] else 1)


def roles(role: Role | None, command: str = "doctor") -> list[Role]:
    """The roles of this host, or the one that was typed after *command*; raises Misuse if there is none.

    A role whose settings are wrong is one of them: nobody knows which database it has, and who loads them says why.
    """
    if role is not None:
        return [role]
    looked = readers.each()
    missing = [one.message for one in looked.values() if isinstance(one, NoDatabase)]
    if len(missing) == len(looked):
        raise Misuse(
            "{error} Say what this host is: lectern {command} teacher, or lectern {command} streamer",
            error=Text("No database is here. {missing}", missing=" ".join(missing)),
            command=command,
        )
    return [each for each, its in looked.items() if not isinstance(its, NoDatabase)]


def _of(role: Role) -> Iterator[Finding]:
    try:
        settings = settings_of(role)
    except LecternError as error:
        how = "write them into settings.env or .env, see README.md"
        yield Finding("settings", is_well=False, said=error.message, to_type=how)
        return
    yield Finding(role, is_well=True, said=settings.name)
    yield from of_settings(settings)
    yield of_database(settings)
    yield from of_redis(settings)
    yield of_prefect(settings)
    yield of_process(settings)
    if isinstance(settings, TeacherSettings):
        yield from of_oss(settings)
        yield from _ecs_hosts(settings)
        return
    yield from of_programs(settings)
    yield of_disk(settings)
    yield of_playout(settings.playout_socket_path)
    yield from _push_hosts(settings)


def _ecs_hosts(settings: TeacherSettings) -> Iterator[Finding]:
    from lectern.ecs import ssh, transcode  # noqa: PLC0415 (paramiko takes long to load)

    try:
        transcode.check_ecs(settings)
    except Misuse as error:
        how = "correct it in settings.env or .env: the teacher does not start with it"
        yield Finding("ECS hosts", is_well=False, said=error.message, to_type=how)
        return
    key, known = settings.ecs_ssh_key or Path(), settings.ecs_known_hosts or Path()

    async def look(host: ssh.SshHost) -> str | None:
        async with ssh.connect(host, key, known, timeout_s=LOOK_S) as connection:
            done = await connection.run([settings.ecs_ffmpeg, "-version"], timeout_s=LOOK_S)
            return None if done.returncode == 0 else f"{settings.ecs_ffmpeg} cannot be run there"

    for one, host in transcode.hosts(settings).items():
        to_type = f"ssh -i {key} -o UserKnownHostsFile={known} -p {host.port} {host.user}@{host.name} ffmpeg -version"
        try:
            why = asyncio.run(look(host))
        except LecternError as error:
            why = error.message
        yield Finding(
            "ECS host", is_well=why is None, said=f"{one}: {why or 'lets us in, and has ffmpeg'}", to_type=to_type
        )


def _push_hosts(settings: StreamerSettings) -> Iterator[Finding]:
    """Whether the servers answer that booked classes will be pushed to, up to MOST_HOSTS of them."""
    servers: dict[tuple[str, int], str] = {}
    texts: list[str] = []
    with suppress(LecternError), readers.at(settings).looking() as connection:  # the database's finding says so
        texts = [one.push_url for one in airings.live(connection)]
    for text in texts:
        with suppress(ValueError):  # it was refused, or its streamer's check says so
            url = urls.push(text)
            servers.setdefault((url.host, url.port), text)
    allowed = Allowlist.listed(settings.allowed_push_hosts, "ALLOWED_PUSH_HOSTS").and_also(servers)
    for (host, port), text in list(servers.items())[:MOST_HOSTS]:
        why = asyncio.run(health.unreachable(text, timeout_s=LOOK_S, allowed=allowed))
        said = f"{host}:{port} {'answers' if why is None else f'cannot be reached: {why}'}"
        yield Finding("push host", is_well=why is None, said=said, to_type=f"nc -vz {host} {port}")


@alarm.command("test")
def send_test(as_json: Json = False) -> None:
    """Send a test alarm to each service of ALARM_URLS; exit code 1 if one does not take it."""
    from lectern import notify  # noqa: PLC0415 (apprise takes long to load)

    settings = Common.load()
    urls = settings.alarm_services
    if not urls:
        raise Misuse(Text("ALARM_URLS is not set: name services as apprise writes them, for example dingtalk://TOKEN"))
    names = [name for name, _ in notify.services(urls)]
    t = translator(settings.lectern_lang)
    title, text = t("lectern test alarm"), t("This is a test of {at:moment}: nothing is wrong.", at=time.time())
    refused = notify.send(urls, title, text, resolved=True)
    say(as_json, {"services": names, "refused": refused}, [f"{name}: took it" for name in names if name not in refused])
    if refused:
        raise LecternError(
            "{refused}: did not take it. Is the address right, and can this host reach it?", refused=", ".join(refused)
        )
