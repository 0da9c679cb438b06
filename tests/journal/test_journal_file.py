import resource
import stat

import orjson
import pytest

from in_the_way import IN_THE_WAY, everything, put_in_the_way
from lodestar_extproc.journal.journal_file import JournalFile


def a_file(folder, **changes) -> JournalFile:
    return JournalFile(folder / "journal.jsonl", **{"clock": lambda: 7.0} | changes)


def add(file: JournalFile, *lines: bytes) -> None:
    for line in lines:
        file.make_room()
        file.append(line)


def bodies(path) -> list[bytes]:
    """Its lines, less the headers."""
    return [line for line in path.read_bytes().splitlines() if b'"journal"' not in line]


def test_only_the_owner_may_read_it(tmp_path):
    file = a_file(tmp_path)
    add(file, b"one\n")

    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600


def test_a_file_begins_with_its_header(tmp_path):
    file = a_file(tmp_path)
    add(file, b"one\n", b"two\n")

    header, *rest = file.path.read_bytes().splitlines()
    assert orjson.loads(header)["opened_s"] == 7.0
    assert rest == [b"one", b"two"]


def test_the_salt_is_new_for_every_file_and_written_nowhere(tmp_path):
    file = a_file(tmp_path, max_bytes=1)
    salts = []
    for _ in range(3):
        add(file, b"x\n")
        salts.append(file.salt)

    assert len(set(salts)) == 3
    everything = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    for salt in salts:
        assert salt not in everything
        assert salt.hex().encode() not in everything


def test_a_full_file_is_put_aside_and_the_oldest_goes(tmp_path):
    file = a_file(tmp_path, max_bytes=1, old_files=2)
    add(file, b"one\n", b"two\n", b"three\n", b"four\n")

    assert bodies(file.path) == [b"four"]
    assert bodies(tmp_path / "journal.jsonl.1") == [b"three"]
    assert bodies(tmp_path / "journal.jsonl.2") == [b"two"]
    assert len(list(tmp_path.iterdir())) == 3


def test_a_restart_goes_on_with_the_same_file(tmp_path):
    for line in (b"one\n", b"two\n"):
        file = a_file(tmp_path)
        add(file, line)
        file.close()

    assert bodies(file.path) == [b"one", b"two"]


def test_a_restart_begins_a_new_file_where_the_last_is_full(tmp_path):
    for line in (b"one\n", b"two\n"):
        file = a_file(tmp_path, max_bytes=1)
        add(file, line)
        file.close()

    assert bodies(file.path) == [b"two"]
    assert bodies(tmp_path / "journal.jsonl.1") == [b"one"]


def test_a_line_that_a_killed_process_left_open_is_closed(tmp_path):
    add(a_file(tmp_path), b'{"half": ')
    file = a_file(tmp_path)
    add(file, b"one\n")

    assert bodies(file.path) == [b'{"half": ', b"one"]


@pytest.mark.parametrize("n_bytes", [0, 1, 5, 11, 40])
def test_a_header_that_a_killed_process_left_open_is_closed(tmp_path, n_bytes):
    add(a_file(tmp_path), b"")
    path = tmp_path / "journal.jsonl"
    path.write_bytes(path.read_bytes()[:n_bytes])
    for line in (b"one\n", b"two\n"):
        add(a_file(tmp_path), line)

    assert bodies(path)[-2:] == [b"one", b"two"]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", IN_THE_WAY)
def test_whatever_is_no_journal_is_neither_opened_nor_written_nor_moved(tmp_path, kind):
    put_in_the_way(tmp_path / "journal.jsonl", kind)
    before = everything(tmp_path)
    with pytest.raises(OSError, match=r"left as it is") as caught:
        a_file(tmp_path, max_bytes=100).make_room()

    assert str(tmp_path / "journal.jsonl") in str(caught.value)
    assert everything(tmp_path) == before


@pytest.mark.timeout(20)
@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("kind", IN_THE_WAY)
def test_nor_is_it_where_an_old_journal_would_go(tmp_path, kind, number):
    add(a_file(tmp_path), b"one\n")
    put_in_the_way(tmp_path / f"journal.jsonl.{number}", kind)
    before = everything(tmp_path)
    with pytest.raises(OSError, match=r"left as it is"):
        a_file(tmp_path, max_bytes=1, old_files=2).make_room()

    assert everything(tmp_path) == before


def test_the_journal_of_a_later_version_is_put_aside_and_a_new_one_begun(tmp_path):
    later = b'{"journal":3,"opened_s":1.0}\n{"new": 1}\n'
    (tmp_path / "journal.jsonl").write_bytes(later)
    file = a_file(tmp_path)
    add(file, b"one\n")

    assert bodies(file.path) == [b"one"]
    assert (tmp_path / "journal.jsonl.1").read_bytes() == later


def test_the_journal_of_an_earlier_version_is_appended_to(tmp_path):
    earlier = b'{"journal":1,"opened_s":1.0}\n{"old": 1}\n'
    (tmp_path / "journal.jsonl").write_bytes(earlier)
    file = a_file(tmp_path)
    add(file, b"one\n")

    assert bodies(file.path) == [b'{"old": 1}', b"one"]


def test_lines_that_do_not_fit_leave_nothing_behind(tmp_path):
    file = a_file(tmp_path)
    add(file, b"one\n")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            file.append(b"x" * 200_000 + b"\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    file.append(b"two\n")

    assert bodies(file.path) == [b"one", b"two"]


@pytest.mark.parametrize("folder", ["missing", "journal.jsonl"])
def test_a_path_that_cannot_be_opened_is_an_error(tmp_path, folder):
    (tmp_path / "journal.jsonl").touch()

    with pytest.raises(OSError, match=r"No such file|Not a directory"):
        a_file(tmp_path / folder).make_room()


def test_a_file_whose_folder_was_removed_takes_no_line_and_is_made_again_where_it_can_be(tmp_path):
    folder = tmp_path / "journals"
    folder.mkdir()
    file = a_file(folder)
    add(file, b"one\n")
    file.path.unlink()
    folder.rmdir()
    with pytest.raises(FileNotFoundError):
        add(file, b"two\n")
    folder.mkdir()
    add(file, b"three\n")
    assert bodies(file.path) == [b"three"]


def test_a_file_that_was_moved_away_is_begun_anew(tmp_path):
    file = a_file(tmp_path)
    add(file, b"one\n")
    file.path.rename(tmp_path / "rotated")
    add(file, b"two\n")
    assert (bodies(tmp_path / "rotated"), bodies(file.path)) == ([b"one"], [b"two"])


def test_after_a_disk_that_was_full_at_the_start_a_file_has_its_header(tmp_path, monkeypatch):
    file = a_file(tmp_path)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.write", full)
        with pytest.raises(OSError, match="No space"):
            file.make_room()
    add(file, b"one\n")
    header, *rest = file.path.read_bytes().splitlines()
    assert b'"journal"' in header
    assert rest == [b"one"]
