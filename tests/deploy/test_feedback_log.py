"""The feedback log: what is acknowledged stays, what is damaged is seen, and what must go is gone."""

import io
import os
import tempfile
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploy import disk
from deploy.errors import UnavailableError, UsageError
from deploy.feedback import Event, FeedbackLog, Limits, LogBusyError, Shown, ShownItem, read
from deploy.feedback.reader import Damage, summarize
from deploy.feedback.records import encode_record
from deploy.feedback.upkeep import forget, prune
from deploy.feedback.writer import LOCK, Writer, open_tail, segment_numbers, segment_path
from deploy.lines import MAX_LINE, decode_line, encode_line, scan_lines
from tests.deploy.power import power_cuts

SETTINGS = settings(
    max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
SMALL = Limits(segment_bytes=1000, max_bytes=100_000)


def shown(number: int, user: str | None = "ana", at: float = 1000.0) -> Shown:
    items = [ShownItem(id=f"i{number}", score=0.1), ShownItem(id="é\n", score=None)]
    return Shown(request_id=f"r{number}", user=user, release="shop@0123456789ab", items=items, time=at + number)


def clicked(number: int, at: float = 1000.0) -> Event:
    return Event(request_id=f"r{number}", item_id=f"i{number}", event="click", ts=at + number, time=at + number)


def lines(*records: Shown | Event) -> bytes:
    return b"".join(encode_record(record) for record in records)


def fill(folder: Path, *records: Shown | Event, limits: Limits = SMALL) -> None:
    with FeedbackLog(folder, limits) as log:
        for record in records:
            log.append(record)


class TestLines:
    @SETTINGS
    @given(st.lists(st.binary(max_size=50).map(lambda data: data.replace(b"\n", b"")), max_size=5))
    def test_round_trip(self, payloads):
        data = b"".join(encode_line(payload) for payload in payloads)
        assert [payload for _, payload in scan(data)] == payloads
        assert [place for place, _ in scan(data)][-1:] == ([len(data)] if payloads else [])

    @SETTINGS
    @given(data=st.data())
    def test_any_change_of_a_line_is_seen(self, data):
        line = encode_line(data.draw(st.binary(max_size=40)).replace(b"\n", b""))
        place = data.draw(st.integers(0, len(line) - 1))
        flipped = line[:place] + bytes([line[place] ^ data.draw(st.integers(1, 255))]) + line[place + 1 :]
        assert decode_line(flipped) is None
        assert decode_line(line[:place]) is None
        assert decode_line(line[:place] + line[place + 1 :]) is None
        # and the line after it is still found
        assert list(scan(flipped + line))[-1][1] is not None or flipped[-1:] != b"\n"

    @SETTINGS
    @given(st.binary(max_size=300))
    def test_any_bytes_are_read_without_a_crash(self, data):
        found = list(scan(data))
        assert all(payload is None or encode_line(payload) in data for _, payload in found)
        assert (found[-1][0] if found else 0) == len(data)

    def test_a_long_line_is_not_held(self):
        with pytest.raises(ValueError, match="at most"):
            encode_line(bytes(MAX_LINE))
        good = encode_line(b"good")
        found = list(scan(b"x" * (3 * MAX_LINE + 5) + b"\n" + good))
        assert [payload for _, payload in found] == [None, b"good"]

    def test_upper_case_digits_are_another_line(self):
        line = next(line for number in range(99) if (line := encode_line(b"%d" % number))[:16] != line[:16].upper())
        assert decode_line(line[:16].upper() + line[16:]) is None


def scan(data: bytes) -> list[tuple[int, bytes | None]]:
    return list(scan_lines(io.BytesIO(data)))


class TestLog:
    def test_what_is_appended_is_read(self, tmp_path):
        records = [shown(1), clicked(1), shown(2, user=None)]
        fill(tmp_path / "log", *records)
        damage = Damage()
        assert list(read(tmp_path / "log", damage)) == records and not damage
        fill(tmp_path / "log", clicked(2))  # opened again
        assert list(read(tmp_path / "log")) == [*records, clicked(2)]
        with pytest.raises(UsageError, match="no such feedback log"):
            list(read(tmp_path / "none"))

    def test_segments_and_bounded_disk(self, tmp_path):
        records = [shown(number) for number in range(200)]
        limits = Limits(segment_bytes=2000, max_bytes=10_000)
        with FeedbackLog(tmp_path, limits) as log:
            for record in records:
                log.append(record)
                assert sum(path.stat().st_size for path in tmp_path.glob("*.log")) <= limits.max_bytes
            assert log.dropped_segments > 5 and log.committed == 200
        kept = list(read(tmp_path, damage := Damage()))
        assert 10 < len(kept) < 60 and kept == records[-len(kept) :] and not damage
        with pytest.raises(UsageError, match="max_bytes"):
            Limits(segment_bytes=10, max_bytes=15)

    def test_threads_share_syncs_and_keep_their_order(self, tmp_path, monkeypatch):
        syncs, real = [], os.fsync
        monkeypatch.setattr(os, "fsync", lambda descriptor: (syncs.append(1), time.sleep(0.002), real(descriptor))[2])
        with FeedbackLog(tmp_path, Limits()) as log:
            begun = len(syncs)

            def work(worker: int) -> None:
                for number in range(20):
                    log.append(clicked(worker * 1000 + number))

            threads = [threading.Thread(target=work, args=[worker]) for worker in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert log.committed == 160 and log.groups == len(syncs) - begun < 100
        numbers = [int(record.request_id[1:]) for record in read(tmp_path)]
        for worker in range(8):
            assert [n % 1000 for n in numbers if n // 1000 == worker] == list(range(20))

    def test_an_acknowledgement_comes_after_the_sync(self, tmp_path, monkeypatch):
        gate, real = threading.Event(), os.fsync
        with FeedbackLog(tmp_path) as log:
            monkeypatch.setattr(os, "fsync", lambda descriptor: (gate.wait(5), real(descriptor))[1])
            future = log.submit(clicked(1))
            assert not future.done()
            gate.set()
            future.result(5)

    def test_a_full_queue_refuses_at_once(self, tmp_path, monkeypatch):
        gate, real = threading.Event(), os.fsync
        with FeedbackLog(tmp_path, Limits(pending_bytes=1000)) as log:
            monkeypatch.setattr(os, "fsync", lambda descriptor: (gate.wait(5), real(descriptor))[1])
            futures = []
            with pytest.raises(LogBusyError):
                for number in range(100):
                    futures.append(log.submit(clicked(number)))
            assert futures[-1].cancel()  # a client that went away is not waited for
            gate.set()
            for future in futures[:-1]:
                future.result(5)
        assert len(list(read(tmp_path))) == len(futures) - 1
        with pytest.raises(UnavailableError, match="closed"):
            log.submit(clicked(1))

    def test_a_failed_sync_is_told_and_not_built_upon(self, tmp_path, monkeypatch):
        with FeedbackLog(tmp_path) as log:
            log.append(clicked(1))
            with monkeypatch.context() as patch:
                patch.setattr(disk, "sync", fail)
                with pytest.raises(UnavailableError, match="Input/output"):
                    log.append(clicked(2))
            log.append(clicked(3))
            assert (log.failed, log.committed) == (1, 2)
        assert segment_numbers(tmp_path) == [1, 2]
        assert clicked(1) in (found := list(read(tmp_path))) and clicked(3) in found

    def test_a_full_disk_is_told_and_passes(self, tmp_path, monkeypatch):
        with FeedbackLog(tmp_path) as log:
            log.append(clicked(1))
            with monkeypatch.context() as patch:
                patch.setattr(disk, "write_all", no_room)
                for _ in range(3):
                    with pytest.raises(UnavailableError, match="No space"):
                        log.append(clicked(2))
            log.append(clicked(3))
        assert list(read(tmp_path)) == [clicked(1), clicked(3)]
        assert segment_numbers(tmp_path) == [1, 2]

    def test_a_folder_that_cannot_be_written(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(UsageError, match="cannot be written"):
            FeedbackLog(tmp_path / "file" / "log")

    def test_the_longest_record_fits(self, tmp_path):
        items = [ShownItem(id="\x01" * 256, score=-1.7976931348623157e308)] * 1000
        record = Shown(
            request_id="\x01" * 64,
            user="\x01" * 256,
            release="\x01" * 200,
            items=items,
            time=0.1,
            experiment="\x01" * 64,
        )
        fill(tmp_path, record, limits=Limits())
        assert list(read(tmp_path)) == [record]

    def test_several_processes_append(self, tmp_path):
        first, second = (Writer(tmp_path, Limits(segment_bytes=600, max_bytes=10**6)) for _ in range(2))
        for number in range(30):
            (first if number % 3 else second).commit(lines(clicked(number)), 1)
        # another died in the middle of a line
        with segment_path(tmp_path, segment_numbers(tmp_path)[-1]).open("ab") as stream:
            stream.write(lines(clicked(30))[:20])
        for number in range(31, 40):
            (second if number % 2 else first).commit(lines(clicked(number)), 1)
        first.close()
        second.close()
        damage = Damage()
        assert [record.request_id for record in read(tmp_path, damage)] == [f"r{n}" for n in range(40) if n != 30]
        assert not damage and len(segment_numbers(tmp_path)) > 3


def fail(*_: object) -> None:
    raise OSError(5, "Input/output error")


def no_room(descriptor: int, data: bytes) -> None:
    os.write(descriptor, data[: len(data) // 2])
    raise OSError(28, "No space left on device")


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A log of several segments. Tests must not change it."""
    folder = tmp_path_factory.mktemp("log")
    fill(folder, *(shown(number) for number in range(10)))
    assert len(segment_numbers(folder)) >= 3
    return folder


class TestDamage:
    @pytest.fixture(autouse=True)
    def no_syncs(self, monkeypatch):
        """What is written here need not last."""
        monkeypatch.setattr(os, "fsync", lambda _: None)

    @SETTINGS
    @given(data=st.data())
    def test_a_change_in_an_ended_segment_is_seen(self, data, filled, tmp_path_factory):
        """One byte flipped, or the end cut off, at any place: counted, and nothing invented."""
        folder = tmp_path_factory.mktemp("changed")
        for path in filled.glob("*.log"):
            (folder / path.name).write_bytes(path.read_bytes())
        path = segment_path(folder, data.draw(st.sampled_from(segment_numbers(folder)[:-1])))
        whole, original = path.read_bytes(), list(read(filled))
        place = data.draw(st.integers(0, len(whole) - 1))
        if data.draw(st.booleans()):
            path.write_bytes(whole[:place])
        else:
            path.write_bytes(
                whole[:place] + bytes([whole[place] ^ data.draw(st.integers(1, 255))]) + whole[place + 1 :]
            )
        damage = Damage()
        found = list(read(folder, damage))
        assert damage, (place, path.name)
        assert all(record in original for record in found)
        assert len(found) >= len(original) - (6 if path.stat().st_size < len(whole) else 2)

    @SETTINGS
    @given(data=st.data())
    def test_a_torn_tail_is_cut_when_it_is_opened(self, data, tmp_path_factory):
        folder = tmp_path_factory.mktemp("torn")
        whole = lines(*(shown(number) for number in range(4)))
        fill(folder, *(shown(number) for number in range(4)), limits=Limits())
        path = segment_path(folder, 1)
        begin = len(path.read_bytes()) - len(whole)
        keep = data.draw(st.integers(0, begin + len(whole)))
        path.write_bytes(path.read_bytes()[:keep] + data.draw(st.binary(max_size=60)))
        fill(folder, clicked(9), limits=Limits())
        damage = Damage()
        found = list(read(folder, damage))
        assert found[-1] == clicked(9) and found[:-1] == [shown(number) for number in range(4)][: len(found) - 1]
        ends = [begin + len(lines(*(shown(number) for number in range(count)))) for count in range(5)]
        assert len(found) - 1 == sum(end <= keep for end in ends[1:])
        assert not damage

    @SETTINGS
    @given(st.binary(max_size=400))
    def test_any_file_is_opened_and_read(self, garbage):
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            segment_path(folder, 1).write_bytes(garbage)
            (folder / "notes.log").write_text("not a segment")
            assert list(read(folder)) == []
            fill(folder, clicked(1))
            assert list(read(folder)) == [clicked(1)]
            assert forget(folder, "ana") == 0 and prune(folder, 0.0) == 0

    def test_a_newer_versions_record_is_skipped_and_counted(self, tmp_path):
        fill(tmp_path, clicked(1))
        with segment_path(tmp_path, 1).open("ab") as stream:
            stream.write(encode_line(b'{"kind":"later"}') + lines(clicked(2)))
        damage = Damage()
        assert list(read(tmp_path, damage)) == [clicked(1), clicked(2)] and damage == Damage(lines=1)


class TestUpkeep:
    def test_a_user_is_forgotten(self, tmp_path):
        records = [
            record
            for number in range(12)
            for record in (shown(number, user="ana" if number % 2 else "ben"), clicked(number))
        ]
        with FeedbackLog(tmp_path, SMALL) as log:
            for record in records:
                log.append(record)
            assert forget(tmp_path, "ana") == 12
            log.append(clicked(100))  # the server goes on
        damage = Damage()
        found = list(read(tmp_path, damage))
        assert found == [*(r for r in records if int(r.request_id[1:]) % 2 == 0), clicked(100)] and not damage
        assert b"ana" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())
        assert forget(tmp_path, "ana") == 0
        assert forget(tmp_path, "ben") == 12 and list(read(tmp_path)) == [clicked(100)]

    def test_old_records_go(self, tmp_path):
        fill(tmp_path, *(shown(number) for number in range(20)))
        assert prune(tmp_path, 1000.0) == 0
        assert prune(tmp_path, 1007.5) == 8
        assert list(read(tmp_path, damage := Damage())) == [shown(number) for number in range(8, 20)] and not damage
        assert prune(tmp_path, 5000.0) == 12 and list(read(tmp_path)) == []
        fill(tmp_path, shown(1))
        assert summarize(tmp_path, Damage())["shown"] == 1

    def test_a_server_prunes_by_itself(self, tmp_path):
        fill(tmp_path, shown(1, at=0.0), shown(2, at=86_400.0 * 9))
        with FeedbackLog(tmp_path, Limits(retain_days=5.0), clock=lambda: 86_400.0 * 10) as log:
            log.append(clicked(3, at=86_400.0 * 10))  # upkeep comes before the first group
        assert [record.request_id for record in read(tmp_path)] == ["r2", "r3"]

    def test_damaged_lines_go_with_a_user(self, tmp_path):
        fill(tmp_path, shown(1), shown(2, user="ben"), clicked(2))
        path = segment_path(tmp_path, 1)
        path.write_bytes(path.read_bytes().replace(b'"user":"ana"', b'"user":"anb"'))
        forget(tmp_path, "nobody")
        assert b"anb" not in path.read_bytes()
        assert list(read(tmp_path)) == [shown(2, user="ben"), clicked(2)]


class TestPowerCuts:
    def test_no_acknowledged_record_is_lost(self, monkeypatch):
        """Appending over three segments, cut at every call: what was acknowledged is read, and appending goes on."""
        acknowledged: list[Shown | Event] = []
        limits = Limits(segment_bytes=700, max_bytes=10_000)

        def act(root: Path) -> None:
            acknowledged.clear()
            writer = Writer(root, limits)
            try:
                for number in range(4):
                    group = [shown(number), clicked(number)]
                    writer.commit(lines(*group), 2)
                    acknowledged.extend(group)
            finally:
                writer.close()

        everything = [record for number in range(4) for record in (shown(number), clicked(number))]
        cuts = 0
        monkeypatch.setattr("os.fsync", lambda _: None)  # nothing is asked of this machine's disk
        for cuts, done, world in power_cuts(monkeypatch, lambda root: None, act):  # noqa: ARG005, B007
            found = list(read(world))
            assert found[: len(acknowledged)] == acknowledged and found == everything[: len(found)]
            assert not done or found == everything
            fill(world, clicked(99), limits=limits)
            damage = Damage()
            again = list(read(world, damage))
            assert again[: len(acknowledged)] == acknowledged and again[-1] == clicked(99) and not damage
        assert cuts > 15

    def test_forgetting_loses_nobody_else(self, monkeypatch):
        def prepare(root: Path) -> None:
            answers = [shown(number, "ana" if number % 2 else "ben") for number in range(6)]
            fill(root, *answers, *(clicked(number) for number in range(6)))  # events in later segments than answers

        def act(root: Path) -> None:
            forget(root, "ana")

        bens = [*(shown(number, "ben") for number in (0, 2, 4)), *(clicked(number) for number in (0, 2, 4))]
        monkeypatch.setattr("os.fsync", lambda _: None)
        for _, done, world in power_cuts(monkeypatch, prepare, act):
            found = list(read(world))
            assert [record for record in found if record in bens] == bens
            assert not done or found == bens
            forget(world, "ana")
            assert list(read(world)) == bens


def test_the_lock_is_held_for_one_commit(tmp_path):
    with FeedbackLog(tmp_path) as log:
        with disk.lock(tmp_path / LOCK):
            future = log.submit(clicked(1))
            with pytest.raises(TimeoutError):
                future.result(0.05)
        future.result(5)
    with disk.lock(tmp_path / LOCK):
        tail = open_tail(tmp_path)
    assert tail is not None and tail.records == 1
    tail.close()


def test_what_nobody_waits_for_goes_with_what_somebody_does(tmp_path):
    """Nine answers and the event that follows: one sync for all but, at most, the first; then one for what is left."""
    with FeedbackLog(tmp_path) as log:
        waiting = [log.submit(shown(number), awaited=False) for number in range(9)]
        log.append(clicked(8))
        assert all(one.done() for one in waiting) and log.committed == 10 and log.groups <= 2
        log.submit(shown(9), awaited=False).result(timeout=10)  # nothing follows it
        assert log.committed == 11
        log.submit(shown(10), awaited=False)
    assert [record.request_id for record in read(tmp_path)] == [*(f"r{n}" for n in range(9)), "r8", "r9", "r10"]
