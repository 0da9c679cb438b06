import resource
import stat

import orjson
import pytest

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
    (tmp_path / "journal.jsonl").write_bytes(b'{"half": ')
    file = a_file(tmp_path)
    add(file, b"one\n")

    assert bodies(file.path) == [b'{"half": ', b"one"]


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
