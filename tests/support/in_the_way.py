"""What may be where a file of ours is to be, and is none of ours."""

import os
import socket
import subprocess

SOMEBODYS = b"static_resources:\n  clusters: []\n"
CONTENTS = {
    "a file": SOMEBODYS,
    "a large file": SOMEBODYS + bytes(10_000),
    "a binary file": b"\x80\x04pickle\n" + b"x" * 100,
    "JSON": b'{"state": [1, 2, 3]}\n',
}
IN_THE_WAY = (*CONTENTS, "a folder", "a full folder", "a FIFO", "a socket", "a device")


def put_in_the_way(path, kind):
    if kind in CONTENTS:
        path.write_bytes(CONTENTS[kind])
        return
    match kind:
        case "a folder":
            path.mkdir()
        case "a full folder":
            path.mkdir()
            (path / "file").write_bytes(SOMEBODYS)
        case "a FIFO":
            os.mkfifo(path)
        case "a socket":
            with socket.socket(socket.AF_UNIX) as listening:
                listening.bind(str(path))
        case "a device":
            path.symlink_to("/dev/zero")


def everything(folder):
    """What is in *folder*: by name the inode, its kind, and the content of a file."""
    return {
        str(p.relative_to(folder)): (
            p.lstat().st_ino,
            p.lstat().st_mode,
            p.read_bytes() if p.is_file() else b"",
        )
        for p in folder.rglob("*")
    }


def may_mount() -> bool:
    """Whether a mount of our own can be made, seen by nobody else."""
    try:
        asked = subprocess.run(
            ["unshare", "--mount", "mount", "--bind", "/tmp", "/tmp"],
            check=False,
            capture_output=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return asked.returncode == 0
