"""Write the columns of the decision log's tables into `docs/query.md`, between its two marks.

    python docs/query_columns.py

A test compares what is committed with what this makes.
"""

from pathlib import Path

from tickgate_server.archive.schema import COLUMNS

PAGE = Path(__file__).resolve().parent / "query.md"
BEGIN, END = "<!-- columns -->\n", "<!-- /columns -->"


def generated(page: str) -> str:
    """The page with the columns as they are."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + columns() + END + after


def columns() -> str:
    """A table a table."""
    lines: list[str] = []
    for table, found in COLUMNS.items():
        lines += [f"\n**{table}**\n", "| column | type | meaning |", "|---|---|---|"]
        lines += [f"| {column.name} | {column.type} | {column.meaning} |" for column in found]
    return "\n".join(lines) + "\n\n"


if __name__ == "__main__":
    PAGE.write_text(generated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
