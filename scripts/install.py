"""Install a requirements file with pip and show one line of progress; pip's own words go to a log, shown if it fails.

    python scripts/install.py <python of the environment> <requirements.txt> <stamp> [pip options ...]

The stamp becomes a copy of the requirements file, once everything is installed: the Makefile compares contents, since a
clone changes dates. Exit status: pip's. Standard library alone, because it runs before anything is installed.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path


def wanted(requirements: Path) -> int:
    """Number of packages that a requirements file pins, those of `-r` files included."""
    count = 0
    for line in requirements.read_text(encoding="utf-8").splitlines():
        words = line.split()
        if words[:1] == ["-r"]:
            count += wanted(requirements.parent / words[1])
        elif words and line[0].isalnum():
            count += 1
    return count


def install(python: str, requirements: Path, log: Path, options: list[str]) -> int:
    """Run pip, log what it prints, and count packages as it collects them; returns pip's exit status."""
    command = [python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar", "off"]
    command.append("--no-compile")  # Python compiles what is imported; all 10,000 files would take half of the time
    if os.path.expanduser("~") == "~":  # noqa: PTH111  no home folder: pip would keep its cache in a folder of that name here
        command.append("--no-cache-dir")
    if "--hash=" in requirements.read_text(encoding="utf-8"):
        command.append("--require-hashes")  # and no package that the lock does not name
    command += [*options, "--requirement", str(requirements)]
    title, total, seen, start = f"installing {requirements}", wanted(requirements), 0, time.monotonic()
    live = sys.stdout.isatty()
    if not live:
        print(f"{title} ({total} packages; log: {log})", flush=True)
    with log.open("w", encoding="utf-8") as file:
        pip = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
        for line in pip.stdout or ():
            file.write(line)
            seen += line.startswith(("Collecting ", "Requirement already satisfied: "))
            if live:
                step = (
                    "unpacking"
                    if line.startswith("Installing collected")
                    else f"{min(seen, total)} of {total} packages"
                )
                print(f"\r{title}: {step}, {time.monotonic() - start:.0f} s \x1b[K", end="", flush=True)
        status = pip.wait()
    if status == 0:
        print(
            f"{chr(13) if live else ''}{title}: done in {time.monotonic() - start:.0f} s" + "\x1b[K" * live, flush=True
        )
    return status


def main() -> int:
    """Install, then write the stamp; on failure print the log and leave no stamp."""
    python, requirements, stamp, options = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:]
    stamp.unlink(missing_ok=True)
    log = stamp.with_name(f"install-{requirements.stem}.log")
    status = install(python, requirements, log, options)
    if status:
        print(f"\n{log.read_text(encoding='utf-8')}\npip failed with status {status}; its words stand above and in {log}",
              file=sys.stderr)  # fmt: skip
        return status
    shutil.copyfile(requirements, stamp)
    return 0


if __name__ == "__main__":
    sys.exit(main())
