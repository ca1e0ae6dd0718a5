"""Words of alarms in Chinese that no single code has: reasons, what a group of alarms says, and what stands beside."""

from collections.abc import Mapping

WORDS: Mapping[str, str] = {
    "its rendition is not there yet": "视频还没有",
    "its file is gone": "文件不见了",
    "nothing pins its rendition": "没有课占用它的视频",
    "this streamer holds no lease: it does not reach Redis or its teacher": (
        "这台推流端没有租约：连不上 Redis 或虚拟老师"
    ),
    "it is not made yet": "还没有转出来",
    "it is downloaded again": "正在重新下载",
    "it is not on the disk": "不在磁盘上",
    "it was cancelled": "课已取消",
    "no reason was given": "没有说原因",
    "not aired to its end: nobody knows how much of it was sent": "没有播到下课：不知道播出了多少",
    "it was not reached yet": "还没有连上",
    "the worker of the playout ended": "播出进程的 worker 结束了",
    "the playout's worker ended before it answered": "播出进程的 worker 没有答复就结束了",
    "the playout's worker ended, or did not answer": "播出进程的 worker 结束了，或没有答复",
    "see their logs": "看它们的日志",
    "see RUNBOOK.md": "见 RUNBOOK.zh.md",
}

FORMS: Mapping[str, str] = {
    "{s}; first message: {s2}; the newest: {s3}": "{s}；最早一条：{s2}；最新一条：{s3}",
    "{s}; first message: {s2}": "{s}；最早一条：{s2}",
    "occurred once since {c}": "自 {c} 起发生 1 次",
    "occurred {n} times since {c}": "自 {c} 起发生 {n} 次",
    "still going on, occurred {n} times since {c}": "仍在继续，自 {c} 起发生 {n} 次",
    "resolved: occurred once, at {c}": "已恢复：{c} 发生 1 次",
    "resolved: occurred {n} times, since {c}": "已恢复：自 {c} 起发生 {n} 次",
    "new: {r} and {n} more": "新增：{r} 等，另有 {n} 节",
    "new: {r}": "新增：{r}",
    "{k} {s}": "{k} {s}",
    "see {y}": "见 {y}",
    "{m} is missing": "没有{m}文件",
    "{m} is not opened in time: the disk is slow, or hangs": "{m}没有按时打开：磁盘太慢，或没有反应",
    "{m} is not read in time: the disk is slow, or hangs": "{m}没有按时读出：磁盘太慢，或没有反应",
    "{m} is broken: it cannot be read from byte {n} on": "{m}损坏：从第 {n} 字节起读不出来",
    "{m} ends after {n} s, which is too early": "{m}在第 {n} 秒就结束了，太早",
    "{m} cannot be read: {s}": "{m}读不出来：{s}",
    "{m} cannot be aired: {s}": "{m}不能播出：{s}",
    "its file is lost and cannot be had again: {s}": "文件丢失，无法重新取得：{s}",
    "its file is lost: {s}": "文件丢失：{s}",
    "its file has {n} bytes, not {n2}": "文件有 {n} 字节，应为 {n2}",
    "its file cannot be read: {s}": "文件读不出来：{s}",
    "its file is damaged: {s}": "文件损坏：{s}",
    "its push URL cannot be reached: {s}": "推流地址连不上：{s}",
    "this host's clock is off by {r} s": "这台主机的时钟差 {r} 秒",
    "its check failed: {s}": "检查出错：{s}",
    "it was refused: {s}": "被拒绝：{s}",
    "its download of {v} takes {t} at DOWNLOAD_RATE {y}": "按 DOWNLOAD_RATE {y} 下载 {v} 要 {t}",
    "{x} cannot be there before the class ends in {t}: {s}": "离下课还有 {t}，{x} 到不了：{s}",
    "the download of {x} was cancelled in the UI": "{x} 的下载在 UI 里被取消",
    "{s}, and no URL is known": "{s}，又没有它的 URL",
    "no playout answers there: {s}": "没有播出进程应答：{s}",
    "the playout is not there: {s}": "播出进程不可用：{s}",
    "the playout did not answer within {n} s": "播出进程 {n} 秒内没有应答",
    "a fault of the playout: {s}": "播出进程出错：{s}",
    "inbox {n}: not handled in {n2} runs": "收件箱第 {n} 条：{n2} 次 run 都没有处理成",
    "not handled in {n} runs": "{n} 次 run 都没有处理成",
    "the transcoding of {y}: failed": "{y} 转码失败",
    "{w} transcoding of {y}: failed": "{y} 的 {w} 转码失败",
    "task_list has {r} for a time. Write epoch seconds there. Until then the class is not aired.": (
        "task_list 里的时间是 {r}。请改成秒数；改好之前这节课不播。"
    ),
    "task_list has {r} for a time. Write epoch seconds there.": "task_list 里的时间是 {r}。请改成秒数。",
    "inbox, {r}": "收件箱里的 {r}",
    "class {x}": "课 {x}",
    "rendition {x}": "视频 {x}",
    "the download of {x}": "{x} 的下载",
    "the lease of {x}": "{x} 的租约",
    "away for more than {n} s: {s}": "已有 {n} 秒以上没有应答：{s}",
    "{n} class refused": "{n} 节课约课失败",
    "{n} classes refused": "{n} 节课约课失败",
}

PARTS: Mapping[str, str] = {
    "prefect": "Prefect",
    "channels": "收频道的消息",
    "messages of channels": "写下频道的消息",
    "streams": "收 stream 的消息",
    "streamers": "听推流端的心跳",
    "sweeps": "巡检",
    "recorder": "在 Prefect 里显示处理过的消息",
    "runs": "执行 run",
    "lock": "独占队列的锁",
    "alarms": "报警",
    "people": "把报警发给 ALARM_URLS",
    "notes": "补记",
    "retention": "清理过期数据",
    "readiness": "上课前检查",
    "lease": "租约",
    "playout": "与播出进程的连接",
    "reconcile": "核对磁盘与数据库",
    "timetable": "课表",
    "plan": "安排播出",
    "indexes": "录像的索引",
    "dead air": "检查黑屏和静音",
    "word": "报告自己的情况",
    "downloads": "下载",
    "what a heartbeat says": "心跳的内容",
    "peers": "互相照看的虚拟老师",
    "peers, note": "记下自己还在",
    "peers, sweep": "接手之后的巡检",
    "peers, adopt": "接手别人的 run",
}
"""The parts of a host, by the names that an alarm has for them."""

TERMS: Mapping[str, str] = {
    "resolved": "已恢复",
    "notice": "提示",
    "warning": "警告",
    "critical": "严重",
    "raised at": "报警时间",
    "classes": "课程",
    "RUNBOOK.md": "RUNBOOK.zh.md",
}
"""The words that an alarm has beside its own message."""

TEST = "lectern 测试报警", "这是 {} 的一条测试报警，没有出任何问题。"
"""The title and the text of a test alarm."""
