"""A report as text: times, ratios, and what was to be reached. Made from report.json alone."""

from dataclasses import dataclass

HEADLINE = 1 << 24
ATTRIBUTES = 8960  # 256 images of 35 attributes
PLAIN = "plain"
FLOOR = "floor"
FLOAT = "float32"  # what the targets are about


class Results:
    """The medians of a report, in seconds; None for what was not measured."""

    def __init__(self, report):
        self.report = report
        self.medians = {
            (row["threads"], row["dtype"], row["count"], row["contestant"]): row["median"]
            for row in report["measured"]
        }
        self.cases = {(row["threads"], row["case"]): row["median"] for row in report["cases"]}
        self.threads = sorted({key[0] for key in self.medians})
        self.best_set = report["machine"]["instruction_sets"][0]

    @property
    def all_threads(self):
        return self.threads[-1]

    def median(self, name, count, threads=None, dtype=FLOAT):
        return self.medians.get((threads or self.all_threads, dtype, count, name))

    def case(self, name):
        return self.cases.get((self.all_threads, name))

    def sizes(self, dtype=FLOAT):
        return sorted({key[2] for key in self.medians if key[1] == dtype})

    def headline(self):
        """The size that the report is about: 2^24, or the largest below it."""
        sizes = [size for size in self.sizes() if size <= HEADLINE]
        return sizes[-1] if sizes else self.sizes()[0]


def ratio(over, under):
    return over / under if over and under else None


@dataclass(frozen=True)
class Target:
    """A ratio to reach; the bounds were set before the code was written."""

    words: str
    bound: float
    value: float  # None: not measured
    is_least: bool  # the value is to be at least the bound; else at most

    @property
    def verdict(self):
        if self.value is None:
            return "not measured"
        reached = self.value >= self.bound if self.is_least else self.value <= self.bound
        return "reached" if reached else "missed"


# Of the floor, on all cores, at 2^24.
OF_FLOOR = {
    "layer": {"avx512": 2.6, "avx2": 3.6, "baseline": 8},
    "one-pass": {"avx512": 1.6, "avx2": 2.3, "baseline": 4.5},
}
# How many times as fast as these the AVX-512 layer is to be, on all cores, at 2^24.
AS_FAST = {"torch": 12, "torch-compile": 3, "jax": 7, "upstream": 30}
ATTRIBUTES_AS_FAST = {"torch": 8}
WEIGHTED = 2  # times the plain step
# The package, times the bare kernel's one pass at 2^24, on all cores.
FRONT = 1.1
FRONT_AS_FAST = 2  # times PyTorch eager, at so few elements


def targets(report):
    """Every target, reached or not; those of other instruction sets are not measured."""
    results, labels = Results(report), labels_of(report)
    found = []
    for name, bounds in OF_FLOOR.items():
        for isa, bound in bounds.items():
            own = f"{name}-{isa}"
            value = ratio(results.median(own, HEADLINE), results.median(FLOOR, HEADLINE))
            words = labels.get(own, own)
            found.append(Target(f"{words}: times the floor", bound, value, is_least=False))
    layer = "layer-avx512"
    for count, bounds in ((HEADLINE, AS_FAST), (ATTRIBUTES, ATTRIBUTES_AS_FAST)):
        for name, bound in bounds.items():
            value = ratio(results.median(name, count), results.median(layer, count))
            words = f"our layer: times as fast as {labels.get(name, name)}, {count:,} elements"
            found.append(Target(words, bound, value, is_least=True))
    best = results.best_set
    for name in ("front-numpy", "front-torch"):
        front = f"{name}-{best}"
        value = ratio(results.median(front, HEADLINE), results.median(f"one-pass-{best}", HEADLINE))
        words = f"{labels.get(front, front)}: times our kernel, one pass"
        found.append(Target(words, FRONT, value, is_least=False))
    front = f"front-torch-{best}"
    value = ratio(results.median("torch", ATTRIBUTES), results.median(front, ATTRIBUTES))
    words = f"{labels.get(front, front)}: times as fast as PyTorch eager, {ATTRIBUTES:,} elements"
    found.append(Target(words, FRONT_AS_FAST, value, is_least=True))
    for row in report["cases"]:
        if row["threads"] == results.all_threads and row["case"] != PLAIN:
            value = ratio(row["median"], results.case(PLAIN))
            words = f"{row['label']}: times the plain step"
            found.append(Target(words, WEIGHTED, value, is_least=False))
    return found


def labels_of(report):
    return {row["name"]: row["label"] for row in report["contestants"]}


def align(rows):
    """Rows of cells as lines: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = []
    for first, *rest in rows:
        cells = [first.ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(rest, widths[1:])]
        lines.append("  ".join(cells).rstrip())
    return lines


def in_words(threads):
    return f"{threads} thread{'s' if threads > 1 else ''}"


def number(value, digits=3):
    """So many digits, with no exponent; a dash for what was not measured."""
    if value is None:
        return "-"
    whole = len(str(int(value))) if value >= 1 else 1
    return f"{value:,.{max(0, digits - whole)}f}"


def header(report):
    machine, settings = report["machine"], report["settings"]
    mark = " with changes" if report["dirty"] else ""
    versions = dict.fromkeys(row["versions"] for row in report["contestants"])
    return [
        f"{machine['cpu']}, {machine['cores']} cores, {', '.join(machine['instruction_sets'])}; "
        f"{machine['system']}; load before {machine['load_before']}",
        "; ".join(versions),
        f"commit {(report['commit'] or 'unknown')[:12]}{mark}, {report['date']}",
        f"forward and backward; scores of deviation {settings['deviation']}, "
        f"{settings['positives']:.0%} positives, weight {settings['cls_weight']:g}; medians of "
        f"{settings['turns']} turns of {1e3 * settings['turn_seconds']:g} ms or one step "
        f"(the clock resolves {1e9 * machine['clock_resolution']:g} ns)",
    ]


def step_table(report, dtype):
    """One size: milliseconds, times the floor, and how many times as fast our layer is."""
    results, count = Results(report), Results(report).headline()
    if not any(results.median(FLOOR, count, threads, dtype) for threads in results.threads):
        return []
    ours = f"layer-{results.best_set}"
    columns = [(in_words(threads), threads) for threads in results.threads]
    rows = [
        [f"{dtype}, {count:,} elements"]
        + [f"ms, {words}" for words, _ in columns]
        + [f"/ floor, {threads}" for _, threads in columns]
        + [f"/ our layer, {threads}" for _, threads in columns]
    ]
    for name, label in labels_of(report).items():
        cells = [label]
        times = [results.median(name, count, threads, dtype) for _, threads in columns]
        cells += [number(1e3 * seconds if seconds else None) for seconds in times]
        for other in (FLOOR, ours):
            others = [results.median(other, count, threads, dtype) for _, threads in columns]
            cells += [number(ratio(*pair)) for pair in zip(times, others)]
        rows.append(cells)
    return align(rows)


def size_table(report, dtype, threads):
    """Every size: nanoseconds an element."""
    results = Results(report)
    sizes = [n for n in results.sizes(dtype) if results.median(FLOOR, n, threads, dtype)]
    if not sizes:
        return []
    rows = [[f"ns an element, {dtype}, {in_words(threads)}", *map(size_name, sizes)]]
    for name, label in labels_of(report).items():
        times = [results.median(name, count, threads, dtype) for count in sizes]
        each = [1e9 * time / count if time else None for time, count in zip(times, sizes)]
        rows.append([label, *map(number, each)])
    return align(rows)


def package_table(report):
    """What is called from Python, our package among it: microseconds and milliseconds."""
    results, labels = Results(report), labels_of(report)
    units = [
        (n, unit) for n, unit in ((ATTRIBUTES, 1e-6), (HEADLINE, 1e-3)) if n in results.sizes()
    ]
    columns = [(count, unit, threads) for count, unit in units for threads in results.threads]
    rows = [["forward and backward, float32, elements"]]
    rows[0] += [
        f"{size_name(count)}, {'ms' if unit == 1e-3 else 'us'}, {in_words(threads)}"
        for count, unit, threads in columns
    ]
    ours = [f"{name}-{results.best_set}" for name in ("one-pass", "front-numpy", "front-torch")]
    for name in [*ours, "torch-overhead", "torch", "torch-compile", "jax", "article"]:
        times = [results.median(name, count, threads) for count, _, threads in columns]
        if any(times):
            each = [time / unit if time else None for time, (_, unit, _) in zip(times, columns)]
            rows.append([labels[name], *map(number, each)])
    return align(rows) if len(rows) > 1 and columns else []


def size_name(count):
    """2^k where it is that."""
    is_power = count & (count - 1) == 0
    return f"2^{count.bit_length() - 1}" if is_power else f"{count:,}"


def case_table(report):
    rows = []
    for threads in sorted({row["threads"] for row in report["cases"]}):
        of_these = [row for row in report["cases"] if row["threads"] == threads]
        (plain,) = (row["median"] for row in of_these if row["case"] == PLAIN)
        words = f"our layer, float32, {of_these[0]['count']:,} elements, {in_words(threads)}"
        rows.append([words, "ms", "/ plain"])
        for row in of_these:
            times = number(ratio(row["median"], plain))
            rows.append([f"  {row['label']}", number(1e3 * row["median"]), times])
    return align(rows) if rows else []


def target_table(report):
    results = Results(report)
    rows = [[f"to reach, float32, {in_words(results.all_threads)}", "bound", "measured", ""]]
    for target in targets(report):
        bound = f"{'>=' if target.is_least else '<='} {target.bound:g}"
        rows.append([target.words, bound, number(target.value), target.verdict])
    return align(rows)


def growth(report):
    """How evenly time grows: the layer's time an element from where it leaves L2 on."""
    results = Results(report)
    level2 = report["machine"]["caches"].get("L2", 0) * results.all_threads
    sizes = [n for n in results.sizes() if 12 * n > level2]  # three arrays of floats
    times = {n: results.median(f"layer-{results.best_set}", n) for n in sizes}
    each = {n: 1e9 * seconds / n for n, seconds in times.items() if seconds}
    if len(each) < 2:
        return []
    low, high = min(each.values()), max(each.values())
    return [
        f"our layer from {size_name(min(each))}, which L2 does not hold, to {size_name(max(each))} "
        f"elements: {low:.2f} to {high:.2f} ns an element"
    ]


def remarks(report):
    """What was not measured, and what disturbed the rest."""
    lines = [
        f"left out for want of memory: {row['dtype']} at {row['count']:,} elements, "
        f"{in_words(row['threads'])} ({row['bytes'] / 1e9:.0f} GB, {row['free'] / 1e9:.0f} GB free)"
        for row in report["left_out"]
    ]
    lines += [
        f"not idle while others were timed: {row['contestant']}, {in_words(row['threads'])}, "
        f"{row['share']:.0%} of a processor"
        for row in report["idle"]
    ]
    return lines


def text(report):
    results = Results(report)
    sections = [header(report)]
    dtypes = list(dict.fromkeys(row["dtype"] for row in report["measured"]))
    sections += [step_table(report, dtype) for dtype in dtypes]
    sections += [
        size_table(report, dtype, threads) for dtype in dtypes for threads in results.threads
    ]
    sections += [
        package_table(report),
        case_table(report),
        target_table(report),
        growth(report),
        remarks(report),
    ]
    return "\n\n".join("\n".join(section) for section in sections if section)
