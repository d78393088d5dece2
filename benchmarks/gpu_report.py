"""A report of gpu.py as text and as a picture: times, bandwidths, and what was to be reached."""

import math

from gpu_contestants import COPY, LAYER, ONE_PASS
from tables import Target, align, number, ratio, size_name

HEADLINE = 1 << 26
# Of the copy's bandwidth, and how many times as fast as these; set before the code was written.
OF_COPY = {LAYER: 0.85, ONE_PASS: 0.85}
AS_FAST = {
    LAYER: {"torch": 5, "torch-compile": 1, "upstream": 3},
    ONE_PASS: {"torch-compile": 1.4},
}
COLORS = {
    COPY: "#000000",
    LAYER: "#c8102e",
    "two-passes": "#c8102e",
    ONE_PASS: "#c8102e",
    "upstream": "#1f6fb4",
    "torch": "#e07b00",
    "torch-compile": "#9c5700",
    "jax": "#6a3d9a",
}


class Results:
    """The medians of a report, in seconds; None for what was not measured."""

    def __init__(self, report):
        self.labels = {row["name"]: row["label"] for row in report["contestants"]}
        self.bytes = {row["name"]: row["bytes"] for row in report["contestants"]}
        self.medians = {
            (row["contestant"], row["count"]): row["median"] for row in report["measured"]
        }
        self.sizes = sorted({count for _, count in self.medians})

    def median(self, name, count):
        return self.medians.get((name, count))

    def bandwidth(self, name, count):
        """Bytes a second, counting those that there is no way around."""
        least, seconds = self.bytes.get(name), self.median(name, count)
        return least * count / seconds if least and seconds else None

    def headline(self):
        """The size that the report is about: 2^26, or the largest below it."""
        smaller = [size for size in self.sizes if size <= HEADLINE]
        return smaller[-1] if smaller else self.sizes[0]


def targets(report):
    """Every target, reached or not. They are of one size; at others they are not measured."""
    results = Results(report)
    copy = results.bandwidth(COPY, HEADLINE)
    for name, bound in OF_COPY.items():
        words = f"{results.labels.get(name, name)}: bandwidth, of the copy's"
        share = ratio(results.bandwidth(name, HEADLINE), copy)
        yield Target(words, bound, share, is_least=True)
    for name, bounds in AS_FAST.items():
        for other, bound in bounds.items():
            own, others = results.labels.get(name, name), results.labels.get(other, other)
            value = ratio(results.median(other, HEADLINE), results.median(name, HEADLINE))
            yield Target(f"{own}: times as fast as {others}", bound, value, is_least=True)


def header(report):
    machine, bundle, settings = report["machine"], report["bundle"], report["settings"]
    gpu = machine["gpu"]
    mark = " with changes" if bundle["dirty"] else ""
    versions = dict.fromkeys(row["versions"] for row in report["contestants"])
    return [
        f"{gpu['name']}, compute capability {gpu['compute capability']}, CUDA runtime "
        f"{gpu['CUDA runtime']}, driver {machine['driver']} for CUDA {gpu['CUDA driver']}; "
        f"{machine['cpu']}; {machine['system']}",
        "; ".join(versions),
        f"commit {bundle['commit'][:12]}{mark}, sm_{bundle['architecture']}, {report['date']}",
        f"forward and backward, float32; scores of deviation {settings['deviation']}, "
        f"{settings['positives']:.0%} positives, weight {settings['cls_weight']:g}; medians of "
        f"{settings['turns']} turns of {1e3 * settings['turn_seconds']:g} ms or one step, by "
        "CUDA's events (JAX: by the clock)",
    ]


def step_table(report):
    """One size: milliseconds, bandwidth, and how many times as fast our layer is."""
    results = Results(report)
    count = results.headline()
    rows = [[f"{count:,} elements", "ms", "GB/s", "of the copy's", "/ our layer"]]
    for name, label in results.labels.items():
        seconds, bandwidth = results.median(name, count), results.bandwidth(name, count)
        rows.append(
            [
                label,
                number(1e3 * seconds if seconds else None, 4),
                number(bandwidth / 1e9 if bandwidth else None, 4),
                number(ratio(bandwidth, results.bandwidth(COPY, count))),
                number(ratio(seconds, results.median(LAYER, count))),
            ]
        )
    return align(rows)


def size_table(report):
    """Every size: microseconds a step."""
    results = Results(report)
    rows = [["microseconds a step", *map(size_name, results.sizes)]]
    for name, label in results.labels.items():
        times = [results.median(name, count) for count in results.sizes]
        rows.append([label, *(number(1e6 * time if time else None) for time in times)])
    return align(rows)


def target_table(report):
    rows = [[f"to reach at {size_name(HEADLINE)}", "bound", "measured", ""]]
    for target in targets(report):
        rows.append([target.words, f">= {target.bound:g}", number(target.value), target.verdict])
    return align(rows)


def remarks(report):
    return [f"left out: {row['contestant']}: {row['why']}" for row in report["left_out"]]


def outcome(report):
    """All of it in a line, the last one, which gpu_run.py's summary takes."""
    found = [target.verdict for target in targets(report)]
    names = ", ".join(row["contestant"] for row in report["left_out"])
    return (
        f"{found.count('reached')} of {len(found)} targets reached, "
        f"{found.count('not measured')} not measured; left out: {names or 'none'}"
    )


def text(report):
    sections = [header(report), step_table(report), size_table(report), target_table(report)]
    sections += [remarks(report), [outcome(report)]]
    return "\n\n".join("\n".join(section) for section in sections if section)


def style(name):
    """Ours in red, the layer thick; the copy dashed."""
    if name == COPY:
        return {"color": COLORS[name], "ls": (0, (4, 2)), "lw": 1.6}
    if name == LAYER:
        return {"color": COLORS[name], "lw": 2.8, "marker": "o", "ms": 4.5, "zorder": 3}
    if name == ONE_PASS:
        return {"color": COLORS[name], "lw": 1.4, "ls": (0, (1, 1.2))}
    return {"color": COLORS[name], "lw": 1.5, "marker": "o", "ms": 3}


def draw(report, path):
    """Write the PNG: time an element against the size."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    from chart import apart

    results = Results(report)
    figure, axes = plt.subplots(figsize=(9.5, 6.4), layout="constrained")
    ends = {}
    for name in results.labels:
        if name == "two-passes":
            continue
        points = [(n, results.median(name, n)) for n in results.sizes]
        points = [(n, 1e9 * seconds / n) for n, seconds in points if seconds]
        if points:
            axes.plot(*zip(*points), **style(name))
            ends[name] = points[-1]
    axes.set(xscale="log", yscale="log", xlabel="elements", ylabel="nanoseconds an element")
    axes.xaxis.set_major_locator(FixedLocator(results.sizes))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda n, _: f"$2^{{{round(math.log2(n))}}}$" if n >= 1 else "")
    )
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter("{x:g}")
    axes.grid(axis="y", color="#e6e6e6", lw=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    low, high = map(math.log10, axes.get_ylim())
    heights = {name: math.log10(y) for name, (_, y) in ends.items()}
    for name, height in apart(heights, 0.042 * (high - low)).items():
        axes.annotate(
            results.labels[name],
            ends[name],
            (1.03, (height - low) / (high - low)),
            textcoords="axes fraction",
            color=COLORS[name],
            fontsize=9,
            fontweight="bold" if name == LAYER else "normal",
            va="center",
            arrowprops={"arrowstyle": "-", "color": "#bbbbbb", "lw": 0.6, "shrinkB": 3},
        )
    figure.suptitle(
        "Forward and backward of the weighted sigmoid cross-entropy, float32: time an element\n"
        f"{report['machine']['gpu']['name']}; medians of {report['settings']['turns']} turns, "
        f"{report['date']}; each against the others in one run",
        fontsize=11.5,
    )
    partial = path.with_name(path.name + ".partial")
    figure.savefig(partial, dpi=110, format="png")
    plt.close(figure)
    partial.replace(path)
