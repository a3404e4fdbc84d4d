"""Generate the Python code of the contract beside its proto files.

    python proto/generate.py [OUT]

OUT is the folder that receives `tickgate/v1/*_pb2*.py` and `.pyi`; by default the one of this file, which is what is
committed. A test generates into an empty folder and compares.
"""

import sys
import sysconfig
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

SOURCE = Path(__file__).resolve().parent


def generate(out: Path) -> None:
    """Run protoc over every proto file below `SOURCE`; raises `SystemExit` where protoc fails."""
    protos = sorted(str(path.relative_to(SOURCE)) for path in SOURCE.rglob("*.proto"))
    well_known = str(files("grpc_tools") / "_proto")
    scripts = Path(sysconfig.get_path("scripts"))
    plugins = [f"--plugin=protoc-gen-{name}={scripts / f'protoc-gen-{name}'}" for name in ("mypy", "mypy_grpc")]
    flags = plugins + [f"--{name}_out={out}" for name in ("python", "grpc_python", "mypy", "mypy_grpc")]
    status = protoc.main(["protoc", f"-I{SOURCE}", f"-I{well_known}", *flags, *protos])
    if status != 0:
        raise SystemExit(f"protoc failed with status {status}")


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else SOURCE)
