"""This machine as a part of a cluster: Ray's own processes, started with this project's code in reach."""

import os
import subprocess
import sys
from pathlib import Path

from driverwatch.cluster.joined import STORE, keep_inside, ray_module
from driverwatch.cluster.place import OWN
from driverwatch.errors import InputError
from driverwatch.paths import programs_home
from driverwatch.terminal import say


def key_file() -> Path:
    """Where Ray keeps the cluster's key."""
    return programs_home() / ".ray" / "auth_token"


def words(address: str | None, ip: str | None, port: int, cpus: int | None) -> list[str]:
    """Ray's command line that stays until it is interrupted: the first of a cluster, or one more at `address`.

    Raises:
        InputError: an address without a port.
    """
    if address is not None and not address.rpartition(":")[2].isdigit():
        raise InputError(
            f"ADDRESS={address}: expected <first machine>:{port}; without ADDRESS= this machine is the first"
        )
    where = ["--address", address] if address else ["--head", "--port", str(port), "--include-dashboard", "false"]
    asked = {"--node-ip-address": ip, "--num-cpus": cpus}
    more = [word for option, value in asked.items() if value is not None for word in (option, str(value))]
    return ["start", *where, *more, "--object-store-memory", str(STORE), "--disable-usage-stats", "--block"]


def start(address: str | None, ip: str | None, port: int, cpus: int | None, folder: Path | None) -> None:
    """Lend this machine to a cluster until Ctrl-C; jobs work in `folder`, or None: in the asking machine's, if that is shared.

    Raises:
        InputError: Ray is not installed, or the address is none.
    """
    asked = words(address, ip, port, cpus)
    ray_module()
    os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parent.parent.parent)  # jobs run this code
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        os.environ[OWN] = str(folder.resolve())
    _have_key(address is None)
    if ip == "127.0.0.1":
        keep_inside()
    from ray.scripts.scripts import cli

    cli(asked, prog_name="ray")


def _have_key(first: bool) -> None:
    """The first machine makes the cluster's key, if it has none; the others must have been given it.

    Raises:
        InputError: one that has none.
    """
    named = any(f"RAY_AUTH_TOKEN{end}" in os.environ for end in ("", "_PATH"))
    key = key_file()
    if named or key.is_file() or os.environ["RAY_AUTH_MODE"] != "token":
        return
    if not first:
        raise InputError(f"{key}: no such file; copy it from the cluster's first machine, whose make node made it")
    generate = [sys.executable, "-m", "ray.scripts.scripts", "get-auth-token", "--generate"]
    subprocess.run(generate, check=True, capture_output=True)
    say(f"{key}: the cluster's key, made now; copy it to the same place on its other machines")
