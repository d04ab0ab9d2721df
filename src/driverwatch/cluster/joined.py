"""Ray, begun or joined, and what it says of its machines. Imported only where a cluster is asked for."""

import os
import secrets
from contextlib import redirect_stderr
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

from driverwatch.cluster.jobs import Needs
from driverwatch.errors import InputError

STORE = 200 << 20  # bytes of Ray's own store: pieces pass through it, nothing stays
STARTS = 3  # attempts at beginning one: Ray gives itself half a minute, which a busy machine may exceed
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",  # else whoever reaches a port runs what they like
    "RAY_DEDUP_LOGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TQDM_PATCH_PRINT": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
}


class Machine(NamedTuple):
    """A node of the cluster, and what it has in all."""

    node: str
    name: str
    cores: int
    gpus: float
    memory: float

    def holds(self, needs: Needs) -> bool:
        return self.cores >= needs.cores and self.gpus >= needs.gpus and self.memory >= needs.memory

    def __str__(self) -> str:
        return f"{self.name} ({self.cores} cores, {self.gpus:g} GPUs, {self.memory / 2**30:.0f} GB)"


def ray_module() -> Any:
    """Ray, if it is installed, kept from sending statistics and from talking.

    Raises:
        InputError: it is not.
    """
    os.environ.update({key: os.environ.get(key, value) for key, value in QUIET.items()})
    try:
        import ray
    except ImportError as error:
        raise InputError(
            f"ENGINE=ray: Ray is not installed ({error}); make setup EXTRAS=cluster installs it, and without ENGINE= "
            "everything runs on this machine"
        ) from error
    return ray


def keep_inside() -> None:
    """Let Ray listen at 127.0.0.1 and nowhere else, where it is told to: by itself it takes the machine's outer address instead."""
    from ray._private import services  # pinned in requirements/cluster.txt; there is no public way

    services.resolve_ip_for_localhost = lambda host: host


def _read_key_again() -> None:
    """Have Ray look at the environment's key: it remembers one from when it was imported, or joined another cluster."""
    raylet = import_module("ray._raylet")
    raylet.Config.initialize("")
    raylet.AuthenticationTokenLoader.instance().reset_cache()


def join(address: str | None) -> Any:
    """Join the cluster at `address` (`auto`: the one this machine is a node of), or begin one of this machine alone.

    Raises:
        InputError: no cluster there.
    """
    ray = ray_module()
    package = str(Path(__file__).resolve().parent.parent.parent)
    others = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([package, *map(os.path.abspath, others)]))
    inside = address is None or address.startswith("127.0.0.1:")
    if inside:
        keep_inside()
    asked: dict[str, Any] = {"address": address, "log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # for this process and those it starts
        asked |= {"address": "local", "include_dashboard": False, "object_store_memory": STORE}
    _read_key_again()
    asked |= {"_node_ip_address": "127.0.0.1"} if inside else {}
    try:
        _begin(ray, asked, 1 if address else STARTS)
    except Exception as error:  # Ray's own, several kinds of them, and bare ones
        words = " ".join(str(error).split())[:200]
        way_out = "make node on this machine starts its part of one" if address else "run again when it has less to do"
        raise InputError(
            f"ADDRESS={address or ''}: no Ray cluster could be joined or begun ({words}); {way_out}"
        ) from error
    return ray


def _begin(ray: Any, asked: dict[str, Any], attempts: int) -> None:
    try:
        with redirect_stderr(StringIO()):
            ray.init(**asked)
    except Exception:
        ray.shutdown()
        if attempts == 1:
            raise
        _begin(ray, asked, attempts - 1)


def machines(ray: Any) -> list[Machine]:
    """Those that are alive."""
    found = []
    for node in ray.nodes():
        if node["Alive"]:
            has = node["Resources"]
            name = f"{node['NodeManagerHostname']}/{node['NodeID'][:6]}"
            found.append(
                Machine(node["NodeID"], name, int(has.get("CPU", 0)), has.get("GPU", 0.0), has.get("memory", 0.0))
            )
    return found


def needs(there: list[Machine], gpus: float | None, cores: int | None, memory: int) -> Needs:
    """What a job takes: what was asked for, else one GPU and its share of cores, else all cores of the smallest machine.

    Raises:
        InputError: no machine has as much.
    """
    gpus = float(any(machine.gpus >= 1 for machine in there)) if gpus is None else gpus
    fit = [machine for machine in there if machine.gpus >= gpus] or there
    if cores is None:
        shares = [machine.cores * gpus / machine.gpus if gpus else machine.cores for machine in fit]
        cores = max(1, int(min(shares, default=1)))
    wanted = Needs(cores, gpus, memory)
    if not any(machine.holds(wanted) for machine in there):
        raise InputError(too_much(wanted, there))
    return wanted


def too_much(wanted: Needs, there: list[Machine]) -> str:
    return (
        f"CPUS_PER_FOLD={wanted.cores} GPUS_PER_FOLD={wanted.gpus:g} MEMORY_PER_FOLD={wanted.memory / 2**30:g}: no machine of "
        f"the cluster has as much; there are: {', '.join(map(str, there)) or 'none'}"
    )
