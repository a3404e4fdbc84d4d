"""Server, workers and observer share one standard error: a line of one must not end up inside another's."""

import json
import os
import subprocess
import sys

CODE = "import structlog; from tickgate_server.logs import configure; configure('json', 'info'); "
CODE += "structlog.get_logger().info('one', text='x' * 1000); structlog.get_logger().info('two')"


def test_a_line_leaves_in_one_write_even_where_standard_error_is_not_buffered() -> None:
    reading, writing = os.pipe2(os.O_DIRECT)  # a read takes what one write gave
    try:
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        subprocess.run([sys.executable, "-c", CODE], stderr=writing, env=environment, check=True, timeout=60)
        lines = [os.read(reading, 4096) for _ in range(2)]
    finally:
        os.close(reading)
        os.close(writing)
    assert [line.count(b"\n") for line in lines] == [1, 1]
    assert [json.loads(line)["event"] for line in lines] == ["one", "two"]
