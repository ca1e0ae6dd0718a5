"""The sentences of alarms in Chinese; what stands in their gaps is said as `chinese_account` says it."""

from collections.abc import Mapping

WORDS: Mapping[str, str] = {
    "it is tried again until its end": "会一直重试到下课",
    "its rendition is not there yet": "视频还没有",
    "its file is gone": "文件不见了",
    "nothing pins its rendition": "没有课占用它的视频",
    "this streamer holds no lease: it does not reach Redis or its teacher": (
        "这台推流端没有租约：连不上 Redis 或虚拟老师"
    ),
    "it is not made yet": "还没有转出来",
    "it is downloaded again": "正在重新下载",
    "it is not on the disk": "不在磁盘上",
    "a result came, and nobody asked for it": "来了一个结果，但没有人请求过",
    "its booking is not known here": "这里没有它的约课",
    "no other streamer can take it": "没有别的推流端能接手",
    "no streamer is alive that it asks before it goes on alone": "没有它会先去询问的存活推流端",
    "its lease has no end": "它的租约没有期限",
    "it ended before its rendition was there": "视频还没有，课就结束了",
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
    "it is not on air: {r}": "没有推流成功：{r}",
    "it falls behind the clock, and {n} s of it were skipped: its receiver takes less than it is sent": (
        "落后于时钟，跳过了 {n} 秒：接收方收得比推的慢"
    ),
    "the message is not JSON: {r}": "消息不是 JSON：{r}",
    "its slate is sent: {r}": "正在推垫片：{r}",
    "nothing is sent, there is no slate: {r}": "什么都没有推，没有垫片：{r}",
    "the playout does not take it: {r}": "播出进程不接受它：{r}",
    "its recording cannot be had again: {r}": "录像无法重新取得：{r}",
    "its file is lost and cannot be had again: {r}": "文件丢失，无法重新取得：{r}",
    "its file is lost: {s}": "文件丢失：{s}",
    "its file has {n} bytes, not {n2}": "文件有 {n} 字节，应为 {n2}",
    "its file cannot be read: {r}": "文件读不出来：{r}",
    "its file is damaged: {r}": "文件损坏：{r}",
    "its push URL cannot be reached: {r}": "推流地址连不上：{r}",
    "this host's clock is off by {r} s": "这台主机的时钟差 {r} 秒",
    "{x} does not have it yet": "{x} 还没有它",
    "{x} begins in {t} and is not ready with {y}: {s}": "{x} {t}后上课，{y} 还没有就绪：{s}",
    "{x} should have begun {t} ago and is not ready with {y}: {s}": "{x} 应在{t}前上课，{y} 还没有就绪：{s}",
    "{x} waited for {y}": "{x} 在等 {y}",
    "{x} has waited for {y} for more than {t}": "{x} 等 {y} 已超过{t}",
    "{x} did not say in time that it is ready": "{x} 没有及时报告就绪",
    "{x} never said how it ended": "{x} 一直没有报告是怎么结束的",
    "{x} is lost": "{x} 失联",
    "{x} is drained": "{x} 正在腾空",
    "not heard of for {n} s": "已有 {n} 秒没有心跳",
    "{n} class to be moved to others": "{n} 节课转给别的推流端",
    "{n} classes to be moved to others": "{n} 节课转给别的推流端",
    "{n} class stays with it, because {s}": "{n} 节课留在它那里，因为{s}",
    "{n} classes stay with it, because {s}": "{n} 节课留在它那里，因为{s}",
    "{n} class refused": "{n} 节课约课失败",
    "{n} classes refused": "{n} 节课约课失败",
    "{n} class should be on air": "{n} 节课应在播出",
    "{n} classes should be on air": "{n} 节课应在播出",
    "no room for {x} ({r}): booked classes need {n} of {n2} rendition (MAX_VIDEO_NUM)": (
        "{x}（{r}）放不下：约了的课占用 {n2} 个视频（MAX_VIDEO_NUM）中的 {n} 个"
    ),
    "no room for {x} ({r}): booked classes need {n} of {n2} renditions (MAX_VIDEO_NUM)": (
        "{x}（{r}）放不下：约了的课占用 {n2} 个视频（MAX_VIDEO_NUM）中的 {n} 个"
    ),
    "no room for {x} ({r}): booked classes need {r2} of {r3} (MAX_VIDEO_SIZE)": (
        "{x}（{r}）放不下：约了的课占用 {r3}（MAX_VIDEO_SIZE）中的 {r2}"
    ),
    "no room for {x} ({r}): booked classes need {r2} of {r3} that the disk has room for": (
        "{x}（{r}）放不下：约了的课占用磁盘能容纳的 {r3} 中的 {r2}"
    ),
    "no room for {x} ({r}): it is larger than the whole cache, {r2} (MAX_VIDEO_SIZE)": (
        "{x}（{r}）放不下：比整个缓存的 {r2}（MAX_VIDEO_SIZE）还大"
    ),
    "no room for {x} ({r}): it is larger than the {r2} that the disk has room for": (
        "{x}（{r}）放不下：比磁盘能容纳的 {r2} 还大"
    ),
    "the next place for it is free at {d}": "{d} 起有空位放它",
    "its recording {x} has dead air: {s}": "录像 {x} 有黑屏、静止或静音：{s}",
    "failed {n} times in a row, it gets no job for {n2} s: {r}": "连续失败 {n} 次，{n2} 秒内不派任务：{r}",
    "the disk is full or read-only: {r}": "磁盘已满或只读：{r}",
    "{r} does not work: {r2}": "{r} 不工作：{r2}",
}
