"""The sentences of a class's account in English and in Chinese, whole ones and those with gaps."""

from collections.abc import Mapping

WORDS: Mapping[str, str] = {
    "on air": "正在上课",
    "not on air": "未上课",
    "ready": "已就绪",
    "received": "已收到",
    "waiting": "等待中",
    "placed": "推流端准备中",
    "aired": "已下课",
    "aired with gaps": "已下课，有缺失",
    "broken": "中断",
    "refused": "已拒绝",
    "cancelled": "已取消",
    "not booked": "未约课",
    "RUNBOOK.md: redis: no heartbeat": "RUNBOOK.zh.md: redis: no heartbeat（心跳发不到 Redis）",
    "RUNBOOK.md: messages wait in the inbox": "RUNBOOK.zh.md: messages wait in the inbox（消息在收件箱里等）",
    "aired whole": "完整播出",
    "not aired": "没有播出",
    "its end has come": "到了下课时间",
    "its recording is over": "录像播完了",
    "none": "无",
    "waits": "在等转码",
    "prepare: cached already": "准备：已在缓存里",
    "prepare: being downloaded already": "准备：已在下载",
    "prepare: to be downloaded": "准备：要下载",
    "changed": "已更改",
    "evicted": "已移出缓存",
    "released": "已释放",
    "connected": "已连接",
    "push broke off": "推流中断",
    "push refused": "推流被拒绝",
    "slate": "推垫片",
    "nothing to send": "没有可推的内容",
    "recording again": "恢复推录像",
    "fell behind": "落后",
    "checked: ready": "课前检查：已就绪",
    "nothing is black, frozen or silent for long": "没有长时间的黑屏、静止或静音",
    "it goes on at the clock's position": "从当前时间对应的位置继续",
    "its playout does not have it yet": "播出进程里还没有它",
    "its time is over": "时间已过",
    "reconnected once": "重连 1 次",
    "Redis does not answer": "Redis 无应答",
    "Its answer is being sent.": "答复正在发送。",
    "Nothing comes next.": "没有后续。",
    "It was aired to its end. Nothing is to be done.": "课已播完，无需处理。",
    "It was cancelled; its rendition is released.": "课已取消，它的视频已释放。",
    "It was cancelled and is not aired. To have it all the same, book it with a new class_id.": (
        "课已取消，不会播出。仍要上课，请用新的 class_id 重新约课。"
    ),
    "Its time is over; its end will be noted within a minute.": "时间已过，一分钟内会记下它的结束。",
    "It is about to be decided. If this stays so for a minute, restart the teacher.": (
        "马上就会处理。一分钟后还是这样，就重启虚拟老师。"
    ),
    "Look at its recording there, and have it replaced if that is not meant.": (
        "检查录像的这些位置；如果本来不该这样，请平台更换录像。"
    ),
    "transcoding": "转码中",
    "success": "成功",
    "failed": "失败",
    "timed_out": "超时",
    "none is alive": "没有存活的",
    "does not answer": "没有应答",
    "not known, because Redis does not answer": "不清楚，因为 Redis 没有应答",
    "drained": "正在腾空",
    "its disk takes nothing": "磁盘写不进去",
    "its process hangs": "进程卡住了",
    "1 message waits": "1 条消息在等",
    "It was ready and lost its file: its teacher gives it to another streamer, or raises alarm 323.": (
        "课就绪之后丢了文件：虚拟老师会把它交给别的推流端，否则报警 323。"
    ),
}

FORMS: Mapping[str, str] = {
    "lost, not heard of for {t}": "失联，已有 {t} 没有消息",
    "stopped, not heard of for {t}": "已停止，已有 {t} 没有消息",
    "{n} class booked": "已约 {n}",
    "{n} classes booked": "已约 {n}",
    "{n} on air, {n2} class booked": "正在上课 {n}，已约 {n2}",
    "{n} on air, {n2} classes booked": "正在上课 {n}，已约 {n2}",
    "not aired: {s}": "没有播出：{s}",
    "the slate was sent for {n} s": "推了 {n} 秒垫片",
    "the slate was sent for {n} s: {s}": "推了 {n} 秒垫片：{s}",
    "no result of the old transcoding in time": "老程序的转码没有按时返回结果",
    "no result of the {w} transcoding in time": "{w} 转码没有按时返回结果",
    "transcoding of {x} timed out": "{x} 转码超时",
    "it ended {t} ago": "已在{t}前结束",
    "{n} class": "{n} 节课",
    "{n} classes": "{n} 节课",
    "of {n} class nobody here knows": "{n} 节课在这里无从得知",
    "of {n} classes nobody here knows": "{n} 节课在这里无从得知",
    "{n} class should be on air and is not": "{n} 节课应上课而未上课",
    "{n} classes should be on air and are not": "{n} 节课应上课而未上课",
    "{x} in {t} on {y}, {s}": "{x}，{t}后，在 {y}，{s}",
    "{x} in {t}, {s}": "{x}，{t}后，{s}",
    "1 rendition, by their deadline:": "1 个视频：",
    "{n} renditions, by their deadline:": "{n} 个视频，按期限：",
    "{n} renditions, the nearest to their deadline:": "{n} 个视频，期限最近的：",
    "{x}: {w}, attempt {n}, {t} to its deadline": "{x}：{w}，第 {n} 次，离期限还有{t}",
    "{x}: {w}, attempt {n}, no deadline": "{x}：{w}，第 {n} 次，没有期限",
    "the oldest is {x}, for {t}": "最久的是 {x}，已等{t}",
    "{c}, last at {c2}: {s}": "{c}，最近 {c2}：{s}",
    "{n} messages wait": "{n} 条消息在等",
    "the oldest unsent message is {t} old": "最久未发的消息已等{t}",
    "{x}: {n} on air, {n2} class booked": "{x}：正在上课 {n}，已约 {n2}",
    "{x}: {n} on air, {n2} classes booked": "{x}：正在上课 {n}，已约 {n2}",
    "cache: {r} of {r2}, {n} of {n2} renditions": "缓存：{r} / {r2}，{n} / {n2} 个视频",
    "cache: {r} of {r2}": "缓存：{r} / {r2}",
    "cache: not known": "缓存：未知",
    "{n} open alarm": "{n} 个报警",
    "{n} open alarms": "{n} 个报警",
    "begins in {t}": "{t}后上课",
    "ready on {x}": "在 {x} 上已就绪",
    "not on air: {s}": "未上课：{s}",
    "{s}: nobody here knows whether the class is on air": "{s}：这里无法得知课是否在上",
    "{x} has been silent for {t}": "{x} 已有{t}没有心跳",
    "{x} has said nothing yet": "{x} 还没有发来任何消息",
    "reconnected {n} times": "重连 {n} 次",
    "1 attempt to connect failed, the last because: {s}": "连接失败 1 次，原因：{s}",
    "{n} attempts to connect failed, the last because: {s}": "连接失败 {n} 次，最近一次的原因：{s}",
    "it waits for {x}": "在等 {x}",
    "{x} does not have its recording yet": "{x} 还没有它的录像",
    "nothing of it was sent yet by {x}": "{x} 还没有推流",
    "not ready, checked at {c}: {s}": "未就绪，检查于 {c}：{s}",
    "ready, checked at {c}": "已就绪，检查于 {c}",
    "{c} on {x}, last at {c2}: {s}": "{c}，{x}，最近 {c2}：{s}",
    "{d} to {d2} {z} ({t})": "{d} 至 {d2} {z}（{t}）",
    "nothing recorded from {p} to {p2}": "{p} 至 {p2} 没有录下任何内容",
    "black from {p} to {p2}": "{p} 至 {p2} 黑屏",
    "frozen and silent from {p} to {p2}": "{p} 至 {p2} 画面静止且没有声音",
    "silent from {p} to {p2}": "{p} 至 {p2} 没有声音",
    "{n} more places": "另有 {n} 处",
    "very quiet ({n} LUFS)": "声音太小（{n} LUFS）",
    "very loud ({n} LUFS)": "声音太大（{n} LUFS）",
    "{t} of the recording, {c} to {c2}": "录像 {t}，{c} 至 {c2}",
    "connected: session {n} is ready to publish": "已连接：会话 {n} 可以推流",
    "on air at {n} s, session {n2}": "开始播出：{n} 秒处，会话 {n2}",
    "push broke off: {s}": "推流中断：{s}",
    "push refused: {s}": "推流被拒绝：{s}",
    "{s} (so far {n} times)": "{s}（到目前为止 {n} 次）",
    "slate: {s}": "推垫片：{s}",
    "nothing to send: {s}": "没有可推的内容：{s}",
    "recording again: {s}": "恢复推录像：{s}",
    "it goes on at {n} s": "从 {n} 秒处继续",
    "lease over: session {n} was ended": "租约到期：会话 {n} 已结束",
    "fell behind: {n} s late": "落后：晚了 {n} 秒",
    "not sent until {c}, {t}: {s}": "没有推送，到 {c}，共{t}：{s}",
    "{s}, {n} times until {c}": "{s}，到 {c} 共 {n} 次",
    "the last: {s}": "最后一次：{s}",
    "alarm: {s}": "报警：{s}",
    "placed on {x}": "交给 {x}",
    "backup placed on {x}": "备用推流交给 {x}",
    "moved from {x} to {x2}: {s}": "从 {x} 转到 {x2}：{s}",
    "answered with success: {s}": "答复成功：{s}",
    "answered with 410: {s}": "答复 410：{s}",
    "prepared anew: {s}": "重新准备好：{s}",
    "changed by change {n}": "按更改 {n} 更改",
    "change {n} is asked for": "要求更改 {n}",
    "change {n} is prepared: waits for {x} to confirm it": "更改 {n} 已准备好，等 {x} 确认",
    "change in force": "更改已生效",
    "change refused: {n}: {s}": "更改被拒绝：{n}：{s}",
    "refused: {n}: {s}": "已拒绝：{n}：{s}",
    "broken: {s}": "中断：{s}",
    "aired: {s}": "已下课：{s}",
    "aired with gaps: {s}": "已下课，有缺失：{s}",
    "cancel confirmed: {s}": "取消已确认：{s}",
    "cancel told again to {x}": "再次通知 {x} 取消",
    "closed late: {s}": "事后关闭：{s}",
    "its file is lost: {s}": "文件丢失：{s}",
    "checked: not ready: {s}": "课前检查：未就绪：{s}",
    "looked through: {s}": "已检查录像：{s}",
    "recording faults: {s}": "录像问题：{s}",
    "download failed: {n}: {s}": "下载失败：{n}：{s}",
    "downloaded: {v}, {n} s": "已下载：{v}，{n} 秒",
    "transcoding begins: {w}, attempt {n}": "开始转码：{w}，第 {n} 次",
    "{t} of the slate": "垫片 {t}",
    "{n} session": "{n} 个会话",
    "{n} sessions": "{n} 个会话",
    "On the host of {x}, see whether its program runs: supervisorctl status. There, lectern explain {y} says more.": (
        "到 {x} 所在的主机上看程序是否在运行：supervisorctl status。在那里执行 lectern explain {y} 能看到更多。"
    ),
    "It is on air for another {t}. To end it: lectern cancel {y}": "还要上{t}。要让它下课：lectern cancel {y}",
    "It is not ready for its start: {s}": "上课前检查未通过：{s}",
    "It should be on air now: {s}.": "现在应该在上课：{s}。",
    "See whether the push host answers, on {x}: nc -vz {y} {z}. To end it: lectern cancel {y2}": (
        "在 {x} 上看推流地址的主机有没有应答：nc -vz {y} {z}。要让它下课：lectern cancel {y2}"
    ),
    "Its answer has not left for {t}: see whether Redis answers. It is sent as soon as it does.": (
        "答复已有{t}没有发出：看 Redis 有没有应答。Redis 一应答就会发送。"
    ),
    "A message about it has waited in the inbox for {t}: it is handled within a minute if its servers answer.": (
        "关于它的一条消息在收件箱里等了{t}：只要各服务有应答，一分钟内就会处理。"
    ),
    "A message about it has waited in the inbox for {t}, which is too long: ask this host's /health what is wrong.": (
        "关于它的一条消息在收件箱里等了{t}，太久了：看这台主机的 /health 说哪里不对。"
    ),
    "It is not booked: {s}": "没有约课：{s}",
    "{x} is being downloaded; then it is ready. `lectern cache ls` shows the download.": (
        "正在下载 {x}，下载完就绪。`lectern cache ls` 能看到下载。"
    ),
    "{x} is lost, as its teacher noted {t} ago. Its classes are moved to other streamers if possible.": (
        "{x} 失联：虚拟老师在{t}前就记下了。它的课会尽量转给别的推流端。"
    ),
    (
        "It waits for {x}, which downloads {y} unless it has it. "
        "Its answer comes then; the sweeper asks again until it does."
    ): ("在等 {x} 下载 {y}（已有则不用下载）。准备好就答复；没有答复会一直再问。"),
    "{x} has {y}. It is aired in {t}.": "{x} 上有 {y}。{t}后上课。",
    "{x} has {y}. Its time is over; its end will be noted within a minute.": (
        "{x} 上有 {y}。时间已过，一分钟内会记下它的结束。"
    ),
    "{x} has {y}.": "{x} 上有 {y}。",
    "It is aired in {t}.": "{t}后上课。",
    "It waits for {x}, which nobody is making: the sweeper settles it within a minute.": (
        "在等 {x}，但没有人在转码：一分钟内会处理。"
    ),
    "It waits for {x}: attempt {n}, by {b}.": "在等 {x}：第 {n} 次转码，由 {b}。",
    "It waits for {x}: attempt {n}, by {b}; without a result in {t} it is settled as timed out.": (
        "在等 {x}：第 {n} 次转码，由 {b}；{t}内没有结果就按超时处理。"
    ),
    (
        "It waits for {x}: attempt {n}, by {b}; without a result since {t}, so within a minute "
        "it is settled as timed out."
    ): ("在等 {x}：第 {n} 次转码，由 {b}；已超时{t}，一分钟内按超时处理。"),
    "Cause: {s}": "原因：{s}",
    "The platform should: {e}": "平台应：{e}",
    "In danger: it begins in {t}. To have it moved, cancel it (lectern cancel {y}) and tell the platform.": (
        "有风险：{t}后上课。要调课，先取消（lectern cancel {y}），再通知平台。"
    ),
    (
        "In danger: it should have begun {t} ago. "
        "To have it moved, cancel it (lectern cancel {y}) and tell the platform."
    ): ("有风险：{t}前就该上课了。要调课，先取消（lectern cancel {y}），再通知平台。"),
}
"""Sentences with gaps: {t} is a length of time, {s} another sentence, {e} a code's advice; others stay as they are."""
