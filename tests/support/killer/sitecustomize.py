"""Python imports this first where its folder is on PYTHONPATH: SIGKILL before the n-th change to the file system.

KILL_UNDER: changes below this folder count. KILL_VERB: only in the process of this command. KILL_AT: n, or 0 to count only.
KILL_LOG: file that gets a line per change.
"""

import os
import signal
import sys

UNDER, VERB = os.environ.get("KILL_UNDER", ""), os.environ.get("KILL_VERB", "")
AT, LOG = int(os.environ.get("KILL_AT", "0")), os.environ.get("KILL_LOG", "")
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod", "shutil.rmtree"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
count = 0


def watch(event: str, arguments: tuple) -> None:
    global count
    if event != "open" and event not in CHANGES:
        return
    if VERB not in sys.argv or not isinstance(arguments[0], str | bytes | os.PathLike):
        return
    path = os.path.abspath(os.fsdecode(arguments[0]))  # noqa: PTH100 (no import of pathlib at start-up)
    if not path.startswith(UNDER) or path == LOG or (event == "open" and not (arguments[2] or 0) & WRITING):
        return
    count += 1
    if LOG:
        descriptor = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(descriptor, f"{event} {os.path.relpath(path, UNDER)}\n".encode())
        os.close(descriptor)
    if count == AT:
        os.kill(os.getpid(), signal.SIGKILL)


if UNDER and VERB:
    sys.addaudithook(watch)
