"""A report as text: times and ratios. Made from report.json alone."""

from benchmarks.contestants import LAYER
from benchmarks.devices import ATTRIBUTES
from benchmarks.report import PLAIN, Results, in_words, ratio, size_name


def align(rows):
    """Rows of cells as lines: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = []
    for first, *rest in rows:
        cells = [first.ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(rest, widths[1:])]
        lines.append("  ".join(cells).rstrip())
    return lines


def number(value):
    """Three digits, with no exponent; a dash for what was not measured."""
    if value is None:
        return "-"
    whole = len(str(int(value))) if value >= 1 else 1
    return f"{value:,.{max(0, 3 - whole)}f}"


def times(factor, value):
    return factor * value if value else None


def header(results):
    report = results.report
    machine, settings = report["machine"], report["settings"]
    mark = " with changes" if report["dirty"] else ""
    versions = dict.fromkeys(row["versions"] for row in report["contestants"])
    return [
        machine_line(machine),
        "; ".join(versions),
        f"commit {(report['commit'] or 'unknown')[:12]}{mark}, {report['date']}",
        f"forward and backward; scores of deviation {settings['deviation']}, "
        f"{settings['positives']:.0%} positives, weight {settings['cls_weight']:g}; medians of "
        f"{settings['turns']} turns of {1e3 * settings['turn_seconds']:g} ms or one step "
        f"({clock(machine)})",
    ]


def machine_line(machine):
    gpu = machine.get("gpu")
    if gpu:
        return (
            f"{gpu['name']}, compute capability {gpu['compute capability']}, driver "
            f"{gpu['driver']} for CUDA {gpu['CUDA driver']}; {machine['cpu']}; {machine['system']}"
        )
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {', '.join(machine['instruction_sets'])}; "
        f"{machine['system']}; load before {machine['load_before']}"
    )


def clock(machine):
    if "gpu" in machine:
        return "by CUDA's events; JAX by the clock"
    return f"the clock resolves {1e9 * machine['clock_resolution']:g} ns"


def step_table(results, dtype):
    """One size: what a step takes, and its ratios to the baseline and to our layer."""
    count = results.headline()
    if not any(
        results.median(results.device.baseline, count, threads, dtype)
        for threads in results.threads
    ):
        return []
    columns = gpu_columns if results.device.name == "gpu" else cpu_columns
    titles, cells = zip(*columns(results, dtype, count))
    rows = [[f"{dtype}, {count:,} elements", *titles]]
    for name, label in results.labels.items():
        rows.append([label, *(number(cell(name)) for cell in cells)])
    return align(rows)


def cpu_columns(results, dtype, count):
    """Titles, and what stands below for a contestant's name: first times, then ratios."""

    def time(name, threads):
        return results.median(name, count, threads, dtype)

    for n in results.threads:
        yield f"ms, {in_words(n)}", lambda name, n=n: times(1e3, time(name, n))
    for words, other in (("floor", results.device.baseline), ("our layer", results.layer)):
        for n in results.threads:
            yield (
                f"/ {words}, {n}",
                lambda name, n=n, other=other: ratio(time(name, n), time(other, n)),
            )


def gpu_columns(results, _, count):
    def bandwidth(name):
        return results.bandwidth(name, count)

    def of_copy(name):
        return ratio(bandwidth(name), bandwidth(results.device.baseline))

    def of_layer(name):
        return ratio(results.median(name, count), results.median(results.layer, count))

    yield "ms", lambda name: times(1e3, results.median(name, count))
    yield "GB/s", lambda name: times(1e-9, bandwidth(name))
    yield "of the copy's", of_copy
    yield "/ our layer", of_layer


def size_table(results, dtype, threads):
    """Every size: time per element, or per step on a GPU, where few elements take as long."""
    baseline = results.device.baseline
    sizes = [n for n in results.sizes(dtype) if results.median(baseline, n, threads, dtype)]
    if not sizes:
        return []
    on_gpu = results.device.name == "gpu"
    words = f"ns per element, {dtype}, {in_words(threads)}"
    rows = [["microseconds per step" if on_gpu else words, *map(size_name, sizes)]]
    for name, label in results.labels.items():
        steps = [results.median(name, count, threads, dtype) for count in sizes]
        each = [ratio(times(1e9, step), count) for step, count in zip(steps, sizes)]
        rows.append([label, *map(number, [times(1e6, s) for s in steps] if on_gpu else each)])
    return align(rows)


def summary_table(results):
    """The best of ours and what people use instead, a small step and a large one."""
    headline = results.device.headline
    units = [
        (n, unit) for n, unit in ((ATTRIBUTES, 1e-6), (headline, 1e-3)) if n in results.sizes()
    ]
    columns = [(count, unit, threads) for count, unit in units for threads in results.threads]
    rows = [["forward and backward, float32, elements"]]
    rows[0] += [
        f"{size_name(count)}, {'ms' if unit == 1e-3 else 'us'}, {in_words(threads)}"
        for count, unit, threads in columns
    ]
    ours = map(results.best, (LAYER, "front-numpy", "front-torch"))
    others = ("upstream", "article", "torch", "torch-compile", "jax")
    for name in (*ours, *others):
        steps = [results.median(name, count, threads) for count, _, threads in columns]
        if any(steps):
            each = [ratio(step, unit) for step, (_, unit, _) in zip(steps, columns)]
            rows.append([results.label(name), *map(number, each)])
    return align(rows) if len(rows) > 1 and columns else []


def case_table(results):
    rows = []
    cases = results.report["cases"]
    for threads in sorted({row["threads"] for row in cases}):
        of_these = [row for row in cases if row["threads"] == threads]
        plain = results.cases[threads, PLAIN]
        words = f"our layer, float32, {of_these[0]['count']:,} elements, {in_words(threads)}"
        rows.append([words, "ms", "/ plain"])
        for row in of_these:
            multiple = number(ratio(row["median"], plain))
            rows.append([f"  {row['label']}", number(1e3 * row["median"]), multiple])
    return align(rows) if rows else []


def growth(results):
    """How evenly time grows: the layer's time per element from where it leaves L2 on."""
    level2 = results.report["machine"]["caches"].get("L2", 0) * results.all_threads
    sizes = [n for n in results.sizes() if 12 * n > level2]  # three arrays of floats
    steps = {n: results.median(results.layer, n) for n in sizes}
    each = {n: 1e9 * seconds / n for n, seconds in steps.items() if seconds}
    if len(each) < 2:
        return []
    low, high = min(each.values()), max(each.values())
    return [
        f"our layer from {size_name(min(each))}, which L2 does not hold, to {size_name(max(each))} "
        f"elements: {low:.2f} to {high:.2f} ns per element"
    ]


def remarks(report):
    """What was not measured, and what disturbed the rest."""
    lines = [
        f"left out for want of memory: {row['dtype']} at {row['count']:,} elements, "
        f"{in_words(row['threads'])} ({row['bytes'] / 1e9:.0f} GB, {row['free'] / 1e9:.0f} GB free)"
        for row in report["left_out"]
    ]
    lines += [f"left out: {row['contestant']}: {row['why']}" for row in report.get("missing", [])]
    lines += [
        f"not idle while others were timed: {row['contestant']}, {in_words(row['threads'])}, "
        f"{row['share']:.0%} of a processor"
        for row in report["idle"]
    ]
    return lines


def text(report):
    results = Results(report)
    sections = [header(results)]
    sections += [step_table(results, dtype) for dtype in results.dtypes]
    sections += [
        size_table(results, dtype, threads)
        for dtype in results.dtypes
        for threads in results.threads
    ]
    if results.device.name == "cpu":
        sections += [summary_table(results), case_table(results), growth(results)]
    sections.append(remarks(report))
    return "\n\n".join("\n".join(section) for section in sections if section)
