"""report.json: how it is written, read, and what its rows say."""

import json

from _common import Failure, write_atomic
from benchmarks.contestants import LAYER
from benchmarks.devices import DEVICES

PLAIN = "plain"  # the step that cases are multiples of
FLOAT = "float32"


def write_json(path, report):
    """A row of a list is a line, so that a report can be read and compared."""
    parts = []
    for key, value in report.items():
        written = json.dumps(value)
        if isinstance(value, list) and value:
            written = "[\n" + ",\n".join(f"  {json.dumps(row)}" for row in value) + "\n ]"
        parts.append(f" {json.dumps(key)}: {written}")
    write_atomic(path, ("{\n" + ",\n".join(parts) + "\n}\n").encode())


def read_json(path):
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Failure(f"{path} is not a report: {error}", 2) from None
    if not isinstance(report, dict) or not report.get("measured"):
        raise Failure(f"{path} is not a report: nothing was measured", 2)
    return report


def in_words(threads):
    return f"{threads} thread{'s' if threads > 1 else ''}"


def size_name(count):
    """2^k where it is that."""
    is_power = count & (count - 1) == 0
    return f"2^{count.bit_length() - 1}" if is_power else f"{count:,}"


def ratio(over, under):
    return over / under if over and under else None


class Results:
    """The medians of a report, in seconds; None for what was not measured."""

    def __init__(self, report):
        self.report = report
        self.device = DEVICES[report.get("device", "cpu")]
        self.medians = {
            (row["threads"], row["dtype"], row["count"], row["contestant"]): row["median"]
            for row in report["measured"]
        }
        self.labels = {row["name"]: row["label"] for row in report["contestants"]}
        self.bytes = {row["name"]: row.get("bytes") for row in report["contestants"]}
        self.cases = {(row["threads"], row["case"]): row["median"] for row in report["cases"]}
        self.threads = sorted({key[0] for key in self.medians})
        self.dtypes = list(dict.fromkeys(row["dtype"] for row in report["measured"]))
        self.best_set = next(iter(report["machine"]["instruction_sets"]), None)

    @property
    def all_threads(self):
        return self.threads[-1]

    def best(self, family):
        """The name of our contestant of that family, with the machine's best instruction set."""
        return f"{family}-{self.best_set}" if self.best_set else family

    @property
    def layer(self):
        return self.best(LAYER)

    def label(self, name):
        return self.labels.get(name, name)

    def median(self, name, count, threads=None, dtype=FLOAT):
        return self.medians.get((threads or self.all_threads, dtype, count, name))

    def bandwidth(self, name, count):
        """Bytes a second, counting those that there is no way around."""
        least, seconds = self.bytes.get(name), self.median(name, count)
        return least * count / seconds if least and seconds else None

    def case(self, name):
        return self.cases.get((self.all_threads, name))

    def sizes(self, dtype=FLOAT):
        return sorted({key[2] for key in self.medians if key[1] == dtype})

    def headline(self):
        """The size that the report is about, or the largest below it."""
        sizes = [size for size in self.sizes() if size <= self.device.headline]
        return sizes[-1] if sizes else self.sizes()[0]
