"""What can go wrong, sorted by what the caller should do, and the table of error codes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from lectern.i18n import Text, msgid, translated
from lectern.urls import redact

# The error codes of the wire: one table that holds the words of each. A new code is a row here, its
# Chinese in the catalogue, and a heading in RUNBOOK.md and RUNBOOK.zh.md.


class Severity(StrEnum):
    """How urgent a code is for the operations team."""

    NOTICE = msgid("notice")
    WARNING = msgid("warning")
    CRITICAL = msgid("critical")


@dataclass(frozen=True)
class ErrorCode:
    """A code of the wire: defined once, with what its reader should do."""

    number: int
    severity: Severity
    meaning: Text
    platform_should: Text
    endangers: bool = field(default=False, kw_only=True)  # a class that its alarm names: each new name is sent at once
    says: Mapping[str, str] = field(default_factory=dict, kw_only=True, repr=False, compare=False)
    """Sentences of its alarms and refusals, with their Chinese; the gaps are those of `chinese_account`."""

    @property
    def runbook(self) -> str:
        """The heading in RUNBOOK.md."""
        return f"{self.number}: {self.meaning}"

    def runbook_in(self, language: str) -> str:
        """The heading in the RUNBOOK of *language*."""
        return f"{self.number}: {translated(self.meaning, language)}"


NOTICE, WARNING, CRITICAL = Severity
_MOVE = Text("Move the class, or book it with another resolution and a new class_id.")
_AGAIN = Text("Book it again with a new class_id.")
_CORRECT = Text("Correct the booking and send it with a new class_id.")
_CALL = Text("Call the operations team.")

# Each code in lines of its own: what it is, what it means and what the platform should do, its sentences.
# fmt: off
TRANSCODE_TIMED_OUT = ErrorCode(207, CRITICAL,
    Text("transcoding timed out"), _MOVE)
TRANSCODE_FAILED = ErrorCode(208, CRITICAL,
    Text("transcoding failed"), Text("{first} {second}", first=_AGAIN, second=Text("A new attempt is then made.")))
ATTEMPTS_SPENT = ErrorCode(209, CRITICAL,
    Text("too many transcoding attempts"),
    Text("{first} {second}", first=_MOVE, second=Text("A person can retry the rendition.")),
    says={"{x} failed {n} times today": "{x} 今天已失败 {n} 次"})
NO_TRANSCODER = ErrorCode(210, CRITICAL,
    Text("no transcoder can take the rendition"), _MOVE, says={
        "the booking names no source": "约课里没有可以转码的录像 URL",
        "neither OSS nor ECS transcoding is set up": "OSS 和 ECS 转码都没有配置"})
ORPHANED_WAITER = ErrorCode(211, CRITICAL,
    Text("a class waits that nobody booked here"), _AGAIN, endangers=True,
    says={"its booking is not known here": "这里没有它的约课"})
HOST_ASIDE = ErrorCode(212, WARNING,
    Text("an ECS host is put aside"), Text("Nothing; the other hosts go on."),
    says={"failed {n} times in a row, it gets no job for {n2} s: {s}": "连续失败 {n} 次，{n2} 秒内不派任务：{s}"})
NO_ECS_ROOM = ErrorCode(213, WARNING,
    Text("no room on an ECS host"), Text("Nothing; another host is taken."))
UPLOAD_FAILED = ErrorCode(214, CRITICAL,
    Text("a rendition could not be uploaded"), _CALL)
HALF_A_RECORDING = ErrorCode(215, CRITICAL,
    Text("the recording lacks its picture or its sound"), Text("Replace the recording."), says={
        "has sound ({r}), but no picture": "有声音（{r}），没有画面",
        "has a picture ({r}), but no sound": "有画面（{r}），没有声音"})
OSS_REFUSES = ErrorCode(216, WARNING,
    Text("the OSS transcoder refuses this teacher"), Text("Nothing; ECS hosts transcode meanwhile."))
DISK_FULL = ErrorCode(316, CRITICAL,
    Text("disk full"), Text("Move the class; the streamers' caches are full."), endangers=True, says={
        "no room for {x} ({r}): booked classes need {n} of {n2} rendition (MAX_VIDEO_NUM)":
            "{x}（{r}）放不下：约了的课占用 {n2} 个视频（MAX_VIDEO_NUM）中的 {n} 个",
        "no room for {x} ({r}): booked classes need {n} of {n2} renditions (MAX_VIDEO_NUM)":
            "{x}（{r}）放不下：约了的课占用 {n2} 个视频（MAX_VIDEO_NUM）中的 {n} 个",
        "no room for {x} ({r}): booked classes need {r2} of {r3} (MAX_VIDEO_SIZE)":
            "{x}（{r}）放不下：约了的课占用 {r3}（MAX_VIDEO_SIZE）中的 {r2}",
        "no room for {x} ({r}): booked classes need {r2} of {r3} that the disk has room for":
            "{x}（{r}）放不下：约了的课占用磁盘能容纳的 {r3} 中的 {r2}",
        "no room for {x} ({r}): it is larger than the whole cache, {r2} (MAX_VIDEO_SIZE)":
            "{x}（{r}）放不下：比整个缓存的 {r2}（MAX_VIDEO_SIZE）还大",
        "no room for {x} ({r}): it is larger than the {r2} that the disk has room for":
            "{x}（{r}）放不下：比磁盘能容纳的 {r2} 还大",
        "the next place for it is free at {d}": "{d} 起有空位放它",
        "the disk cannot be written: {s}": "磁盘写不进去：{s}",
        "cannot be written: {s}": "写不进去：{s}"})
NO_STREAMER = ErrorCode(317, CRITICAL,
    Text("no streamer takes classes"), _AGAIN, endangers=True, says={
        "no streamer was heard of lately": "近来没有任何推流端的消息",
        "no streamer takes classes: {s} is drained": "没有推流端可以接课：{s} 正在腾空",
        "no streamer takes classes: {s} are drained": "没有推流端可以接课：{s} 正在腾空"})
DOWNLOAD_FAILED = ErrorCode(318, CRITICAL,
    Text("the recording could not be downloaded"), Text("Check the URL, then book."), endangers=True)
BAD_RECORDING = ErrorCode(319, CRITICAL,
    Text("the recording is not playable"), Text("Replace the recording."), endangers=True)
FORBIDDEN_ORIGIN = ErrorCode(320, WARNING,
    Text("the recording's origin is not allowed"), _CORRECT)
AIRING_BROKEN = ErrorCode(321, CRITICAL,
    Text("the class could not be aired to its end"), _CALL, endangers=True, says={
        "it is not on air: {s}": "没有推流成功：{s}",
        "it is tried again until its end": "会一直重试到下课",
        "it falls behind the clock, and {n} s of it were skipped: its receiver takes less than it is sent":
            "落后于时钟，跳过了 {n} 秒：接收方收得比推的慢",
        "the playout does not take it: {s}": "播出进程不接受它：{s}",
        "the playout does not know it as it is booked": "播出进程不知道这节课，或者知道的不是预订的内容",
        "its timetable is full": "它的课表满了",
        "it has no lease, although this streamer holds one": "它没有租约，尽管这个推流端持有租约",
        "no receiver takes it yet": "还没有接收方收它",
        "{x} never said how it ended": "{x} 一直没有报告是怎么结束的"})
STREAMER_LOST = ErrorCode(322, CRITICAL,
    Text("a streamer is lost"), Text("Nothing; its classes are moved to others."), says={
        "not heard of for {n} s": "已有 {n} 秒没有心跳",
        "{n} class to be moved to others": "{n} 节课转给别的推流端",
        "{n} classes to be moved to others": "{n} 节课转给别的推流端",
        "{n} class stays with it, because {s}": "{n} 节课留在它那里，因为{s}",
        "{n} classes stay with it, because {s}": "{n} 节课留在它那里，因为{s}",
        "its lease has no end": "它的租约没有期限",
        "no streamer is alive that it asks before it goes on alone": "没有它会先去询问的存活推流端"})
NOT_MOVED = ErrorCode(323, CRITICAL,
    Text("a class lost its streamer, and no other can take it"),
    Text("Move the class, it is not aired."), endangers=True, says={
        "no other streamer can take it": "没有别的推流端能接手",
        "{x} is lost": "{x} 失联",
        "{x} is drained": "{x} 正在腾空"})
NOT_READY_FOR_START = ErrorCode(324, CRITICAL,
    Text("a class is not ready for its start"),
    Text("Wait for the operations team, or move the class."), endangers=True, says={
        "{x} begins in {t} and is not ready with {y}: {s}": "{x} {t}后上课，{y} 还没有就绪：{s}",
        "{x} should have begun {t} ago and is not ready with {y}: {s}": "{x} 应在{t}前上课，{y} 还没有就绪：{s}",
        "{x} does not have it yet": "{x} 还没有它"})
FORBIDDEN_PUSH_HOST = ErrorCode(325, WARNING,
    Text("the push host is not allowed"), _CORRECT, says={
        "{x} is no allowed push host": "{x} 不是允许的推流主机",
        "to push there, set {y}": "要推到那里，请设置 {y}"})
NO_RECORDING = ErrorCode(326, CRITICAL,
    Text("a class is on air without its recording"), _CALL, endangers=True, says={
        "its slate is sent: {s}": "正在推垫片：{s}",
        "its slate is sent from its start on: {s}": "上课时会推垫片：{s}",
        "nothing will be sent, there is no slate: {s}": "上课时什么都不会推，没有垫片：{s}",
        "nothing is sent, there is no slate: {s}": "什么都没有推，没有垫片：{s}",
        "its recording cannot be had again: {s}": "录像无法重新取得：{s}"})
PLAYOUT_AWAY = ErrorCode(327, CRITICAL,
    Text("the playout of a streamer is not there"), _CALL, says={
        "its lease is over, although this streamer holds one": "它的租约已到期，尽管这个推流端持有租约",
        "{n} class should be on air": "{n} 节课应在播出",
        "{n} classes should be on air": "{n} 节课应在播出"})
DEAD_AIR = ErrorCode(328, WARNING,
    Text("a recording is black, frozen, silent or too short"), Text("Look at the recording; replace a bad one."),
    says={
        "its recording {x} is faulty: {s}": "录像 {x} 有问题：{s}",
        "it ends {t} before its class": "比课早结束{t}"})
AIRED_WITH_GAPS = ErrorCode(329, WARNING,
    Text("a class was aired with gaps"), Text("Have the class repeated if what is missing matters."), says={
        "{t} of {t2} were not sent: {s}": "{t2}里有{t}没有推送：{s}",
        "{c}-{c2} {s}": "{c} 至 {c2} {s}",
        "the push was refused: {s}": "推流被拒绝：{s}",
        "the push broke off: {s}": "推流中断：{s}",
        "there was nothing to send: {s}": "没有可推的内容：{s}",
        "the slate was sent: {s}": "推的是垫片：{s}",
        "the slate was sent": "推的是垫片",
        "its receiver took less than it was sent": "接收方收得比推的慢",
        "its streamer held no lease": "推流端没有租约",
        "the playout was not there": "播出进程不可用",
        "it was moved to another streamer": "正转到别的推流端",
        "it was booked too late": "约课太晚",
        "its recording was over": "录像已播完",
        "no reason is known": "原因不明",
        "{n} gap": "{n} 处缺失",
        "{n} gaps": "{n} 处缺失",
        "{n} more gap": "另有 {n} 处缺失",
        "{n} more gaps": "另有 {n} 处缺失"})
MALFORMED = ErrorCode(400, WARNING,
    Text("malformed booking"), Text("Correct the booking and send it again."))
NOT_BOOKED = ErrorCode(404, WARNING,
    Text("a change of a class that is not booked"), Text("Book the class."),
    says={"nobody has booked it here": "这里没人约过它"})
CONFLICT = ErrorCode(409, WARNING,
    Text("the booking contradicts another booking"),
    Text("Cancel the other booking, or change this one; then use a new class_id."), says={
        "{x} is pushed to the same URL, and overlaps for {t}": "{x} 推到同一个地址，时间重叠 {t}",
        "it is booked already with other content: {r}": "已经约过，内容不同：{r}",
        "the first booking stands, it is {s}": "以第一次约课为准，它{s}"})
ENDED = ErrorCode(410, WARNING,
    Text("the class has already ended"), _CORRECT, says={
        "it ended before its answer could be sent": "答复还没能发出，课就结束了",
        "it ended before its rendition was there": "视频还没有，课就结束了",
        "{x} did not say in time that it is ready": "{x} 没有及时报告就绪",
        "it ends in {t}, so it cannot be changed any more": "{t}后下课，不能再改",
        "its end has passed, so it cannot be changed any more": "下课时间已过，不能再改",
        "the class was over before its change was in force": "更改生效之前，课就结束了"})
CANCELLED = ErrorCode(411, NOTICE,
    Text("the class was cancelled"), _AGAIN)
URL_MISSING = ErrorCode(501, CRITICAL,
    Text("transcoded already, but the booking lacks the URL"), Text("Add the URL to video_url_list."),
    says={"{x} is transcoded, but video_url_list lacks it": "{x} 已转码，但 video_url_list 里没有"})
UNKNOWN_RENDITION = ErrorCode(502, WARNING,
    Text("a result for a rendition nobody asked for"), Text("Check the transcoder."),
    says={
        "a result came, and nobody asked for it": "来了一个结果，但没有人请求过",
        "a result came, and nobody asked for it. {n} class waits on the list {y}, and nobody answers: type {r}":
            "来了一个结果，但没有人请求过。{n} 节课在 list {y} 上等，没有人会答复：请执行 {r}",
        "a result came, and nobody asked for it. {n} classes wait on the list {y}, and nobody answers: type {r}":
            "来了一个结果，但没有人请求过。{n} 节课在 list {y} 上等，没有人会答复：请执行 {r}"})
STALE_WAITING = ErrorCode(503, CRITICAL,
    Text("a class waits longer than it may"), _CALL, endangers=True, says={
        "{x} has waited for {y} for more than {t}": "{x} 等 {y} 已超过{t}",
        "its change has waited for {y} for more than {t}": "更改等 {y} 已超过{t}",
        "{x} waited for {y}": "{x} 在等 {y}"})
DEAD_LETTER = ErrorCode(504, WARNING,
    Text("a message could not be read"), Text("Check the producer."),
    says={"the message is not JSON: {s}": "消息不是 JSON：{s}"})
REFUSED_BY_REDIS = ErrorCode(505, CRITICAL,
    Text("Redis refuses a key or a channel"), _CALL, says={
        "Redis refuses messages for {y}: {s}": "Redis 拒收发往 {y} 的消息：{s}",
        "Redis does not let {y} be read: {s}": "Redis 不让读 {y}：{s}"})
NOT_HANDLED = ErrorCode(506, CRITICAL,
    Text("a booking could not be handled"), Text("{first} {second}", first=_AGAIN, second=_CALL))
WORK_FAILED = ErrorCode(507, CRITICAL,
    Text("a part of a host does not work"), Text("Nothing; the part is tried again."),
    says={"{y}: {o} does not work: {s}": "{y}：“{o}”不工作：{s}"})
REDIS_AWAY = ErrorCode(508, CRITICAL,
    Text("Redis is away"), Text("Nothing; it is handled when Redis is back."), says={
        "Redis has not answered for {n} s: {s}": "Redis 已有 {n} 秒没有应答：{s}",
        "no answer in time": "没有按时应答"})
# fmt: on

OK = 0
"""The code of an answer with result *success*."""

CODES: dict[int, ErrorCode] = {one.number: one for one in list(globals().values()) if isinstance(one, ErrorCode)}
"""All of them, by their numbers."""


class Caught:
    """A context in which an error harms nothing behind it: it is kept in *error*. Errors of *through* are raised."""

    def __init__(self, *through: type[BaseException]) -> None:
        self.error: Exception | None = None
        self._through = through

    def __enter__(self) -> "Caught":
        """Begin."""
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        """Keep *error*, unless it must end more than this: a cancel, and what *through* names."""
        if not isinstance(error, Exception) or isinstance(error, self._through):
            return False
        self.error = error
        return True


class LecternError(Exception):
    """Anything that went wrong: the thing, what happened, what was found.

    The text goes to logs, alarms and answers, so user, password and query are removed from each URL in it, and in
    each value of a `Text`.
    """

    def __init__(self, message: str, code: ErrorCode | None = None) -> None:
        message = message.masked(redact) if isinstance(message, Text) else redact(message)
        super().__init__(message)
        self.message = message
        self.code = code


class TryAgain(LecternError):
    """Passing trouble (network, a busy server): the same call can succeed later."""


class FallBack(LecternError):
    """This way is closed for now: take the next one of the ladder."""


class Refuse(LecternError):
    """It cannot be done: tell whoever asked, with the code."""

    def __init__(self, message: str, code: ErrorCode) -> None:
        super().__init__(message, code)
        self.code: ErrorCode = code


class CallAPerson(LecternError):
    """A state that no program can repair; nothing was changed."""


class Misuse(LecternError):
    """A wrong setting or command line: the text says what to type. Exit code 2."""


class Malformed(LecternError):
    """A message that cannot be read; *class_id* is set if at least that could be read."""

    def __init__(self, message: str, class_id: str | None = None) -> None:
        super().__init__(message, MALFORMED)
        self.class_id = class_id


class ForbiddenMove(CallAPerson):
    """A state change that the tables of states.py do not have."""

    def __init__(self, thing: str, old: str, new: str) -> None:
        super().__init__(f'{thing}: may not go from "{old}" to "{new}"')
