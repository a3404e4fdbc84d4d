import runpy
from pathlib import Path

import tickgate

PROTO = Path(tickgate.__file__).parents[1]


def test_the_committed_code_is_what_the_proto_files_generate(tmp_path: Path) -> None:
    runpy.run_path(str(PROTO / "generate.py"))["generate"](tmp_path)
    made = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    there = {
        path.relative_to(PROTO): path.read_bytes() for path in PROTO.rglob("*_pb2*") if path.suffix in {".py", ".pyi"}
    }
    assert sorted(made) == sorted(there)
    assert [path for path, text in made.items() if text != there[path]] == []
