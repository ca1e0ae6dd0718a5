"""The page's own words, in English and Chinese."""

from collections.abc import Mapping

LANGUAGES = ("en", "zh")

CHINESE: Mapping[str, str] = {
    "timetable": "课表",
    "runbook": "运维手册",
    "other language": "English",
    "on air": "正在上课",
    "should be on air and is not": "应上课而未上课",
    "not on air": "未上课",
    "not known": "状态未知",
    "not booked": "未约课",
    "on its way": "准备中",
    "ready": "已就绪",
    "aired": "已下课",
    "aired with gaps": "已下课，有缺失",
    "broken": "中断",
    "refused": "已拒绝",
    "cancelled": "已取消",
    "received": "已收到",
    "waiting": "等待转码",
    "placed": "推流端准备中",
    "who waits": "等待中",
    "nearest deadline": "最近期限",
    "result is due": "转码期限",
    "waits for": "在等什么",
    "and more": "另有 {} 节课",
    "class": "课程",
    "institution": "机构",
    "rendition": "视频",
    "streamer": "推流端",
    "state": "状态",
    "time": "时间",
    "recording": "录像",
    "push URL": "推流地址",
    "last error": "最近错误",
    "readiness": "课前检查",
    "as run": "实际播出",
    "not sent": "没有推送",
    "as-run of yesterday": "昨天的实际播出",
    "classes in all; lectern report has them all": "节课；全部见 lectern report",
    "recording faults": "录像问题",
    "open alarm": "未恢复的报警",
    "begins": "上课时间",
    "why": "原因",
    "since": "开始于",
    "position": "播放位置",
    "the platform should": "平台应",
    "incidents": "报警",
    "streamers": "推流端",
    "drained": "正在腾空",
    "stopped": "已停止",
    "lost": "失联",
    "its process hangs": "进程卡住了",
    "its disk takes nothing": "磁盘写不进去",
    "booked": "已约",
    "cache": "缓存",
    "alarms": "报警数",
    "code": "代码",
    "times": "次数",
    "last": "最近",
    "host": "主机",
    "message": "内容",
    "classes": "课程",
    "what happened": "经过",
    "what comes next": "接下来",
    "before": "前一天",
    "after": "后一天",
    "today": "今天",
    "page": "页",
    "as of": "截至",
    "nothing": "无",
    "no answer from Redis": "Redis 无应答，无法得知正在上课的情况",
    "silent": "无心跳",
    "calendar": "日历订阅",
    "bookings of the last 24 hours": "最近 24 小时的约课",
    "cache ahead": "未来 24 小时课程占用的缓存（GB）",
    "needed by classes": "课程占用",
    "limit": "上限",
    "needed at most": "最多占用",
    "sent ahead": "未来 24 小时同时推流（Mbit/s）",
    "others": "其他",
    "ready or aired": "已就绪或已下课",
    "with gaps": "有缺失",
    "under way": "处理中",
    "no class of this name": "没有这门课",
    "a token is needed": "需要访问令牌",
    "how to get a token": "请运维团队在虚拟老师的主机上执行：",
}


class PageWords(dict[str, str]):
    """A page's words by key; a key without a translation is its own word."""

    def __missing__(self, key: str) -> str:
        return _ENGLISH.get(key, key)


_ENGLISH = {
    "who waits": "waiting",
    "and more": "and {} more",
    "cache ahead": "what classes need of the caches in the next 24 hours (GB)",
    "sent ahead": "sent at once in the next 24 hours (Mbit/s)",
    "other language": "中文",
    "no answer from Redis": "Redis does not answer, so nobody here knows what is on air",
    "a token is needed": "You need a token to look at this page",
    "how to get a token": "The operations team makes one on the teacher's host:",
    "no class of this name": "There is no such class here, or it is not yours",
    "before": "the day before",
    "after": "the day after",
}


def of(language: str) -> PageWords:
    """The page's words in *language*: Chinese for ``zh``, else English."""
    return PageWords(CHINESE if language == "zh" else {})
