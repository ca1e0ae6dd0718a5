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
    "the recording is missing": "没有录像文件",
    "the recording is not opened in time: the disk is slow, or hangs": "录像没有按时打开：磁盘太慢，或没有反应",
}

FORMS: Mapping[str, str] = {
    "occurred once since {c}": "自 {c} 起发生 1 次",
    "occurred {n} times since {c}": "自 {c} 起发生 {n} 次",
    "still going on, occurred {n} times since {c}": "仍在继续，自 {c} 起发生 {n} 次",
    "resolved: occurred once, at {c}": "已恢复：{c} 发生 1 次",
    "resolved: occurred {n} times, since {c}": "已恢复：自 {c} 起发生 {n} 次",
    "new: {r}": "新增：{r}",
    "first message: {a}": "最早一条：{a}",
    "the newest: {a}": "最新一条：{a}",
    "the recording is broken: it cannot be read from byte {n} on": "录像损坏：从第 {n} 字节起读不出来",
    "the recording ends after {n} s, which is too early": "录像在第 {n} 秒就结束了，太早",
    "the recording cannot be read: {r}": "录像读不出来：{r}",
    "the recording cannot be aired: {r}": "录像不能播出：{r}",
    "its file is lost and cannot be had again: {s}": "文件丢失，无法重新取得：{s}",
    "its file is lost: {s}": "文件丢失：{s}",
    "its file has {n} bytes, not {n2}": "文件有 {n} 字节，应为 {n2}",
    "its file cannot be read: {r}": "文件读不出来：{r}",
    "its file is damaged: {r}": "文件损坏：{r}",
    "its push URL cannot be reached: {r}": "推流地址连不上：{r}",
    "this host's clock is off by {r} s": "这台主机的时钟差 {r} 秒",
    "{n} class refused": "{n} 节课约课失败",
    "{n} classes refused": "{n} 节课约课失败",
}

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
