"""Pin every package of requirements/*.in, with hashes, into requirements/*.txt (`make lock`); run by an environment that has uv.

    python scripts/lock.py [--upgrade]

Pins that are there stay as long as they fit; `--upgrade` takes the newest versions that fit. One file serves every platform and
Python from 3.11 on. Not locked: backends.txt and torch.txt, since PyTorch's builds for one accelerator alone have other hashes
than the package index's.
"""

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "requirements"
LOCKS = {
    "cpu": "runtime",
    "cuda": "cuda",
    "dev": "dev",
    "onnx": "onnx",
    "openvino": "openvino",
    "litert": "litert",
    "cluster": "cluster",
    "tracking": "tracking",
    "weights": "weights",
    "kaggle": "kaggle",
}
APART = {"cpu", "kaggle"}  # all others are installed beside cpu.txt, and have its versions
FIRST = {"cuda", "dev"}  # all others are installed beside dev.txt too


def command(name: str, options: list[str]) -> list[str]:
    """What writes `<name>.txt`."""
    fixed = [
        "--universal",
        "--python-version",
        "3.11",
        "--generate-hashes",
        "--quiet",
        "--custom-compile-command",
        "make lock",
    ]
    others = [] if name in APART else ["cpu"] if name in FIRST else ["cpu", "dev"]
    beside = [word for other in others for word in ("--constraint", f"requirements/{other}.txt")]
    files = [f"requirements/{LOCKS[name]}.in", "--output-file", f"requirements/{name}.txt"]
    return [sys.executable, "-m", "uv", "pip", "compile", *fixed, *beside, *options, *files]


def main() -> int:
    """Lock every file in turn; uv's exit status where one fails."""
    for name in LOCKS:
        status = subprocess.run(command(name, sys.argv[1:]), cwd=FOLDER.parent, check=False).returncode
        if status:
            print(f"requirements/{name}.txt: uv failed with status {status}; its words stand above", file=sys.stderr)
            return status
        print(f"requirements/{name}.txt: {(FOLDER / f'{name}.txt').read_text(encoding='utf-8').count('==')} pins")
    return 0


if __name__ == "__main__":
    sys.exit(main())
