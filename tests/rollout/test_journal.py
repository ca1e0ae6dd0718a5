"""The journal says what cannot be seen; a torn line was never written; two rollouts never overlap."""

import json
import os
import resource
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from functools import partial
from multiprocessing.context import ForkServerProcess
from multiprocessing.synchronize import Event
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lectern.errors import CallAPerson, Misuse, TryAgain
from lectern.playout.control_socket import PlayoutUnreachable
from lectern.rollout import journal as journal_module
from lectern.rollout import on_air, preflight, rollback, window
from lectern.rollout.journal import RolloutJournal, locked
from lectern.rollout.spec import WANTED, Installed
from tests.rollout.host import Host
from tests.stage.forked import PROCESSES


@pytest.fixture
def journal(tmp_path: Path) -> RolloutJournal:
    return RolloutJournal(tmp_path / "journal.jsonl", "streamer")


def noted(journal: RolloutJournal, *lines: str) -> None:
    for line in lines:
        id_, step, state = line.split()
        journal.note(id_, step, state)  # type: ignore[arg-type]  # the lines below have the words of the type


WINDOW, COMMITTED = "streamer-a window begin", "streamer-a committed done"
NEXT_WINDOW, NEXT_COMMITTED = "streamer-b window begin", "streamer-b committed done"
BACK, ROLLEDBACK = "streamer-a rollback begin", "streamer-a rolledback done"


@pytest.mark.parametrize(
    ("lines", "state"),
    [
        ((), "untouched"),
        (("streamer-a backup begin", "streamer-a backup done"), "untouched"),
        ((WINDOW,), "half"),
        ((WINDOW, "streamer-a stop begin", "streamer-a stop done"), "half"),
        ((WINDOW, COMMITTED), "finished"),
        ((WINDOW, BACK), "half"),
        ((WINDOW, BACK, ROLLEDBACK), "rolledback"),
        ((WINDOW, COMMITTED, BACK), "half"),
        ((WINDOW, COMMITTED, BACK, ROLLEDBACK), "rolledback"),
        ((WINDOW, BACK, ROLLEDBACK, WINDOW), "half"),
        ((WINDOW, BACK, ROLLEDBACK, WINDOW, COMMITTED), "finished"),
        ((WINDOW, COMMITTED, NEXT_WINDOW, NEXT_COMMITTED), "untouched"),
        ((WINDOW, COMMITTED, NEXT_WINDOW, "streamer-b rollback begin", "streamer-b rolledback done"), "finished"),
        ((NEXT_WINDOW,), "untouched"),
    ],
)
def test_how_far_a_rollout_is(journal: RolloutJournal, lines: tuple[str, ...], state: str) -> None:
    """A finished one that another stands upon does not stand here any more: it would have to be done anew."""
    noted(journal, *lines)
    assert journal.state("streamer-a") == state


def test_a_note_is_a_line_of_json_for_nobody_else_to_read_and_on_the_disk_when_it_returns(
    journal: RolloutJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    journal.note("streamer-a", "window", "begin", {"states": {"x": "RUNNING"}})
    assert synced == [str(journal.path), str(journal.path.parent)]
    (line,) = journal.path.read_text().splitlines()
    wanted = {"id": "streamer-a", "step": "window", "state": "begin", "detail": {"states": {"x": "RUNNING"}}}
    assert json.loads(line).items() >= wanted.items()
    assert stat.S_IMODE(journal.path.stat().st_mode) == 0o600


@settings(deadline=None)
@given(cut=st.integers(1, 200), rest=st.sampled_from([b"", b"\0\0\0", b"{", b'{"at": 1}']))
def test_a_crash_tears_the_last_line_alone(cut: int, rest: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    journal = RolloutJournal(tmp_path_factory.mktemp("j") / "journal.jsonl", "streamer")
    noted(journal, WINDOW, "streamer-a stop begin")
    whole = journal.path.read_bytes()
    journal.note("streamer-a", "stop", "done", "x" * 100)
    torn = journal.path.read_bytes()[: len(whole) + cut]
    journal.path.write_bytes(torn.rstrip(b"\n") + rest)
    assert [note.step for note in journal.notes()] == ["window", "stop"]
    journal.note("streamer-a", "copy", "begin")
    assert [note.step for note in journal.notes()] == ["window", "stop", "copy"]


def test_a_line_that_is_not_the_last_and_can_not_be_read_calls_a_person(journal: RolloutJournal) -> None:
    noted(journal, WINDOW)
    journal.path.write_bytes(b"garbage\n" + journal.path.read_bytes())
    with pytest.raises(CallAPerson, match="line 1 cannot be read"):
        journal.notes()


def test_a_note_for_which_the_disk_has_only_half_the_room_is_none(journal: RolloutJournal) -> None:
    """The system writes what fits, and reports that as a success: the step must not be done without its note."""
    noted(journal, WINDOW)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (journal.path.stat().st_size + 20, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            noted(journal, COMMITTED)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert journal.state("streamer-a") == "half"
    noted(journal, COMMITTED)
    assert journal.state("streamer-a") == "finished"


def test_the_round_of_a_rollout_begins_with_its_last_window(journal: RolloutJournal) -> None:
    between = ("streamer-a stop begin", BACK, ROLLEDBACK, "streamer-b backup done")
    noted(journal, WINDOW, *between, WINDOW, "streamer-a copy begin")
    assert [note.step for note in journal.round("streamer-a")] == ["window", "copy"]


def test_reading_makes_no_file_and_each_role_has_its_history(journal: RolloutJournal) -> None:
    """On a host that is both, what was done as the one does not count as the other's."""
    assert journal.state("streamer-a") == "untouched"
    assert not journal.path.exists()
    noted(journal, WINDOW, COMMITTED, "teacher-a window begin", "teacher-a committed done", "teacher-b window begin")
    as_teacher = RolloutJournal(journal.path, "teacher")
    assert (journal.history().last, journal.state("streamer-a")) == ("streamer-a", "finished")
    assert (as_teacher.history().standing, as_teacher.history().half) == (("teacher-a",), "teacher-b")


def _hold(folder: str, work: str, ready: Event) -> None:
    with locked(Path(folder), work=work):
        ready.set()
        time.sleep(600)


@contextmanager
def held(folder: Path, work: str = "") -> Iterator[ForkServerProcess]:
    """Another process has the lock; in the end it is killed."""
    ready = PROCESSES.Event()
    holder = PROCESSES.Process(target=_hold, args=(str(folder), work, ready))
    holder.start()
    try:
        assert ready.wait(60)
        yield holder
    finally:
        holder.kill()
        holder.join()


def test_a_second_rollout_is_refused_in_words_and_waits_no_longer_than_it_is_told(tmp_path: Path) -> None:
    """One that was killed holds no lock. A rollback ends only a window: whoever makes a backup has nothing to undo."""
    with held(tmp_path / "rollout") as holder:
        with (
            pytest.raises(TryAgain, match=rf"another rollout is at work on this host \(process {holder.pid}\)"),
            locked(tmp_path / "rollout", timeout_s=0.3, ends_window=True),
        ):
            pass
        assert holder.is_alive()
    with locked(tmp_path / "rollout", timeout_s=20):
        assert stat.S_IMODE((tmp_path / "rollout").stat().st_mode) == 0o700


def test_a_preflight_refuses_while_the_window_of_another_operator_is_at_work(host: Host) -> None:
    """Else the second one would find no lock, fail, and take back what the first one does."""
    wanted = host.parsed()
    assert not [*preflight.other_rollout(wanted)]
    with locked(wanted.rollout_dir, work="window"):
        (unbegun,) = preflight.other_rollout(wanted)
        RolloutJournal.of(wanted).note(wanted.id, "window", "begin")
        (refusal,) = preflight.other_rollout(wanted)
    assert "nothing is stopped yet" in unbegun
    assert f"{wanted.id}: another rollout is at work on this host (process {os.getpid()})" in refusal
    RolloutJournal.of(wanted).note(wanted.id, "committed", "done")
    assert not [*preflight.other_rollout(wanted)]
    with locked(wanted.rollout_dir):  # by a backup, for which the next step waits
        assert not [*preflight.other_rollout(wanted)]


@pytest.mark.parametrize("earlier", [(WINDOW, COMMITTED), (WINDOW, BACK, ROLLEDBACK)], ids=["finished", "rolled back"])
def test_what_an_earlier_rollout_came_to_is_no_answer_for_one_that_was_not_begun(
    tmp_path: Path, earlier: tuple[str, ...]
) -> None:
    """Its process gave up, as nobody asked it for the first task in time; a playbook that asks then must not go on."""
    asked = Installed(role="streamer", root=tmp_path)
    asked.rollout_dir.mkdir()
    for backed_up in ("streamer-a", "streamer-b"):
        noted(RolloutJournal.of(asked), *earlier, f"{backed_up} backup begin", f"{backed_up} backup done")
        with pytest.raises(Misuse, match="nothing was begun"):
            window.ended(asked, "stop")


def test_whoever_confirms_by_hand_has_as_long_for_the_first_task_as_for_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person who reads on for a minute before the stop would find that nobody is left to do it."""
    monkeypatch.setattr(window, "FIRST_WORD_S", 0.0)
    asked = Installed(role="streamer", root=tmp_path)
    asked.rollout_dir.mkdir()
    with window._listening(asked) as listener, socket.socket(socket.AF_UNIX) as person:
        with chdir(asked.rollout_dir):
            person.connect(window.SOCKET)
        person.sendall(b'{"task": "stop"}\n')
        agent = window.RolloutAgent(listener, by_hand=True, check=lambda: None)
        agent.wait("stop")
        assert agent.asking is not None
        agent.reply({})


def test_who_names_the_release_that_was_taken_back_is_told_of_it_until_another_one_is_begun(host: Host) -> None:
    """Though the release before is at work again."""
    older, newer, newest = (host.parsed(version=version) for version in ("2.0.0", "2.0.1", "2.0.2"))
    for one in (older, newer, newest):
        one.backup_dir.mkdir(parents=True)
        (one.backup_dir / WANTED).write_text(one.model_dump_json())
    journal, asked = RolloutJournal.of(older), Installed(role="streamer", root=host.root, version="2.0.1")
    noted(journal, f"{older.id} window begin", f"{older.id} committed done", f"{newer.id} window begin")
    journal.note(newer.id, "rolledback", "done", {"backup": newer.id})
    noted(journal, f"{newest.id} backup done")
    assert journal_module.looked_at(asked).id == newer.id
    assert journal_module.looked_at(asked.model_copy(update={"version": ""})).id == older.id
    noted(journal, f"{newest.id} window begin", f"{newest.id} committed done")
    with pytest.raises(Misuse, match=r"lectern 2\.0\.2 is at work on this host, and 2\.0\.1 was named"):
        journal_module.looked_at(asked)


def test_a_rollback_that_is_typed_again_takes_back_nothing_more(host: Host) -> None:
    """Whoever lost its answer, or confirms it, types it again; below a change of settings stands its own release."""
    base, changed = host.parsed(), host.parsed({"MAX_VIDEO_NUM": "7"})
    journal, asked = RolloutJournal.of(base), Installed(role="streamer", root=host.root, version="2.0.0")
    for one in (base, changed):
        one.backup_dir.mkdir(parents=True)
        (one.backup_dir / WANTED).write_text(one.model_dump_json())
        noted(journal, f"{one.id} window begin", f"{one.id} committed done")

    def goes(asked: Installed) -> str:
        found = journal_module.standing(asked)
        return found if isinstance(found, str) else found.id

    assert goes(asked) == changed.id
    journal.note(changed.id, "rolledback", "done", {"backup": changed.id})
    assert goes(asked).startswith(f"{changed.id} is rolled back already; nothing was changed. {base.id}, of the same")
    assert goes(asked.model_copy(update={"further": True})) == base.id
    noted(journal, f"{base.id} rollback begin")
    assert goes(asked) == base.id, "one that was cut off goes on"


def test_a_run_that_fails_takes_back_nothing_that_another_operator_goes_on_with(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both saw the host half done; what only one of them could open, or has finished, is not the other's."""
    monkeypatch.setattr(rollback, "locked", partial(locked, timeout_s=0.3))
    wanted = host.parsed(half_only=True)
    with held(wanted.rollout_dir, journal_module.WINDOW) as holder:
        noted(RolloutJournal.of(wanted), f"{wanted.id} window begin")
        with pytest.raises(TryAgain, match=rf"another rollout is at work on this host \(process {holder.pid}\)"):
            rollback.run(wanted)
        assert holder.is_alive()
    noted(RolloutJournal.of(wanted), f"{wanted.id} committed done")
    answer = rollback.run(wanted)
    assert (answer.changed, answer.more["state"]) == (False, "finished")


STRICT: dict[str, dict[str, Any]] = {
    "role": {"role": "walrus"},
    "surprise": {"surprise": 1},
    "root: must be an absolute path": {"root": "relative"},
    "no name of a setting": {"env": {"A-B": "hidden"}},
    "no regular expression": {"record_patterns": ["("]},
    "file name": {"old_programs": ["../x.conf"]},
}


def test_what_is_wanted_is_read_strictly_and_no_value_is_shown(host: Host) -> None:
    for words, changed in STRICT.items():
        with pytest.raises(Misuse, match=words) as raised:
            host.parsed(**changed)
        assert "hidden" not in raised.value.message


def test_a_streamer_without_a_lease_goes_back_though_a_class_should_be_on_air(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It airs nothing, which is why a rollout takes it back.

    One whose playout does not answer may still push; and under a half-done rollout the old program may run again.
    """
    wanted, now = host.parsed(), time.time()
    status: dict[str, Any] = {"lease_until": 900.0, "boot_now": 900.0, "classes": []}
    host.book("live", now - 60, now + 600)
    wanted.rollout_dir.mkdir()
    journal = RolloutJournal.of(wanted)

    def answers(_: Path, do: str) -> dict[str, Any]:
        if not status:
            raise PlayoutUnreachable(f"no playout answers {do}")
        return status

    monkeypatch.setattr(on_air, "_asked", answers)
    noted(journal, f"{wanted.id} window begin")
    (sentence,) = on_air.cut_now(wanted, now)
    assert "class 'live'" in sentence
    noted(journal, f"{wanted.id} committed done")
    assert on_air.cut_now(wanted, now) == []
    status["boot_now"] = 700.0
    assert on_air.cut_now(wanted, now) == [sentence]
    status.clear()
    assert on_air.cut_now(wanted, now) == [sentence]


@pytest.mark.parametrize("check", [False, True])
def test_a_streamer_without_a_playout_is_not_rolled_out_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, check: bool
) -> None:
    """It would air nothing. Before its first rollout it need not have one."""
    monkeypatch.setattr(on_air, "_asked", Mock(side_effect=PlayoutUnreachable("no playout answers there")))
    wanted: Any = SimpleNamespace(version="2.0.0", env={}, code_dir=tmp_path, root=tmp_path)
    with pytest.raises(CallAPerson, match=r"no playout answers there\. Start it \(systemctl start lectern-playout\)"):
        on_air.upgrade_playout(wanted, check=check)


def test_a_playout_that_is_gone_after_its_upgrade_or_was_started_again_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a rollback, in which the playout goes back last, would end before its own end. No session went on then."""
    answers: dict[str, dict[str, Any]] = {"hello": {"release": "2.0.1"}}

    def asked(_: Path, do: str) -> dict[str, Any]:
        if do not in answers:
            raise PlayoutUnreachable("no playout answers there")
        return answers[do]

    monkeypatch.setattr(on_air, "_asked", asked)
    wanted: Any = SimpleNamespace(version="2.0.0", env={}, code_dir=tmp_path, root=tmp_path)
    with pytest.raises(CallAPerson, match="no playout answers there"):
        on_air.upgrade_playout(wanted)
    answers["status"] = {"release": "2.0.0", "worker": {"taken_over": None}}
    (said,) = on_air.upgrade_playout(wanted).said
    assert said.endswith("started again meanwhile, and all its sessions are new.")
