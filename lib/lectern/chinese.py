"""The error codes in Chinese, in the words of RUNBOOK.zh.md, for people who are told of an alarm or a refusal."""

from collections.abc import Mapping
from typing import NamedTuple


class Wording(NamedTuple):
    """A code's meaning, and what the platform should do."""

    meaning: str
    platform_should: str


_MOVE = "调课，或换一个清晰度，用新的 class_id 重新约课。"
_AGAIN = "用新的 class_id 重新约课。"
_CORRECT = "改正约课，用新的 class_id 重新发送。"
_CALL = "联系运维团队。"

WORDINGS: Mapping[int, Wording] = {
    207: Wording("视频转码服务超时未完成", _MOVE),
    208: Wording("视频转码失败", f"{_AGAIN}届时会再转码一次。"),
    209: Wording("转码尝试次数过多", f"{_MOVE}这个视频可以由人工重试转码。"),
    210: Wording("没有可用的转码服务", _MOVE),
    211: Wording("有课在等转码，但这里没有它的约课", _AGAIN),
    212: Wording("一台 ECS 被暂停使用", "无需处理，其他 ECS 照常。"),
    213: Wording("ECS 磁盘空间不足", "无需处理，会换一台 ECS。"),
    214: Wording("转码后的视频上传失败", _CALL),
    215: Wording("录像缺少画面或声音", "更换录像。"),
    316: Wording("磁盘空间已满", "调课，推流端的缓存已满。"),
    317: Wording("没有存活的推流端", _AGAIN),
    318: Wording("录像下载失败", "检查 URL，再约课。"),
    319: Wording("录像无法播放", "更换录像。"),
    320: Wording("录像来源不在允许范围", _CORRECT),
    321: Wording("课没有完整播出", _CALL),
    322: Wording("推流端失联", "无需处理，它的课会转给别的推流端。"),
    323: Wording("课失去推流端，没有别的能接手", "调课，这节课播不了。"),
    324: Wording("课在上课前未就绪", "等运维团队处理，或调课。"),
    325: Wording("推流地址的主机不在允许范围", _CORRECT),
    326: Wording("正在上的课没有录像可播", _CALL),
    327: Wording("推流端的播出进程不可用", _CALL),
    328: Wording("录像有黑屏、静止或静音", "检查录像，有问题就更换。"),
    400: Wording("约课格式错误", "改正约课，重新发送。"),
    404: Wording("更改的课没有约过", "先约课。"),
    409: Wording("约课与另一条约课冲突", "取消另一条约课，或修改这一条；然后用新的 class_id。"),
    410: Wording("课已结束", _CORRECT),
    411: Wording("课已取消", _AGAIN),
    501: Wording("转码已成功，但约课时未发送该清晰度的视频 URL", "把 URL 加进 video_url_list。"),
    502: Wording("收到无人请求的视频的转码结果", "检查转码服务。"),
    503: Wording("约课等待超时", _CALL),
    504: Wording("消息无法解析", "检查发送方。"),
    505: Wording("Redis 拒绝访问某个键或频道", _CALL),
    506: Wording("约课无法处理", f"{_AGAIN}并联系运维团队。"),
    507: Wording("主机的某个部分不工作", "无需处理，这个部分会重试。"),
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


def heading(code: int) -> str:
    """The heading in RUNBOOK.zh.md of a known code."""
    return f"{code}: {WORDINGS[code].meaning}"
