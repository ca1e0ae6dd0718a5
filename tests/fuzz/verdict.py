"""What came of it: complaints, and numbers by kind."""

import statistics
from collections import Counter
from collections.abc import Sequence

from tests.fuzz.good import counted
from tests.fuzz.kinds import KINDS, TWO_WAYS
from tests.fuzz.session import WHO, Session
from tests.fuzz.watch import READY

SHOWN = 10


def complaints(session: Session) -> list[str]:
    """All that is wrong, in words."""
    answers, found = session.ledger.answers, list(session.goods.aired_wrongly())
    for class_id, good in session.goods.made.items():
        said = answers.get(class_id, [])
        if not said:
            found.append(f"{class_id} ({good.kind}) was not answered")
        elif len(set(said)) > 1 or not set(said) <= good.expects:
            found.append(f"{class_id} ({good.kind}) was answered {said}, not {sorted(good.expects)}")
        elif len(said) != (2 if good.kind == "twice" else 1):
            found.append(f"{class_id} ({good.kind}) was answered {len(said)} times")
    for class_id, kind in session.ledger.kinds.items():
        said = answers.get(class_id, [])
        if not said:
            found.append(f"{class_id} (odd: {kind}) was not answered")
        elif len(set(said)) > 1 and kind not in TWO_WAYS:
            found.append(f"{class_id} (odd: {kind}) was answered in two ways: {said}")
    found += [f"{who} is not ready: {said}" for who, said in session.watch.last.items() if said != READY]
    return found


def kinds(session: Session) -> list[str]:
    """Sent by kind, and what came of it."""
    ledger, goods = session.ledger, session.goods
    rows = [
        (kind, ledger.sent[kind], ledger.by_kind(kind), ledger.letters[kind]) for kind in KINDS if ledger.sent[kind]
    ]
    for kind, number in sorted(counted(goods).items()):
        ids = [one.class_id for one in goods.made.values() if one.kind == kind]
        codes = Counter(ledger.answers[one][0][1] for one in ids if ledger.answers.get(one))
        rows.append((f"good: {kind}", number, codes, 0))
    return [
        f"{kind}: {number:,} sent, {codes.total():,} answered, refused: {_codes(codes)}; {letters:,} dead letters"
        for kind, number, codes, letters in rows
    ]


def _codes(codes: Counter[int]) -> str:
    return ", ".join(f"{code}: {number:,}" for code, number in sorted(codes.items()) if code) or "-"


def lines(session: Session, seconds: float) -> list[str]:
    """How the hosts bore it."""
    alive = sum(session.stage.residents[who].exit_code is None for who in WHO)
    canaries = list(session.canaries_s.values()) or [0.0]
    watch = session.watch
    return [
        f"processes alive: {alive} of {len(WHO)}; answers that they were not ready: {len(watch.not_ready)}",
        *sorted({f"  {who} {said}" for _, who, said in watch.not_ready})[:SHOWN],
        f"canaries: {len(canaries):,}, median {statistics.median(canaries):.2f} s, worst {max(canaries):.2f} s",
        *(f"{who}: {watch.size(who)[0] / 1024**2:.0f} MiB, {watch.size(who)[1]} open files" for who in WHO[:alive]),
        f"{seconds:.0f} s",
    ]


def summary(found: Sequence[str]) -> list[str]:
    """The first complaints, and how many there are."""
    more = [f"… {len(found) - SHOWN} more"] if len(found) > SHOWN else []
    return [*found[:SHOWN], *more]
