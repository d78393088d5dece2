"""report.json: how a report is written, and read again."""

import json

from failure import BenchError


def write_json(path, report):
    """A row of a list is a line, so that a report can be read and compared."""
    parts = []
    for key, value in report.items():
        written = json.dumps(value)
        if isinstance(value, list) and value:
            written = "[\n" + ",\n".join(f"  {json.dumps(row)}" for row in value) + "\n ]"
        parts.append(f" {json.dumps(key)}: {written}")
    partial = path.with_name(path.name + ".partial")
    partial.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")
    partial.replace(path)


def read_json(path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BenchError(f"{path} is no report: {error}", status=2) from None
