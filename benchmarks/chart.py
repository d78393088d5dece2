"""The picture of a report: time per element against the size, one panel per number of threads."""

import io
import math

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from _common import write_atomic
from benchmarks.contestants import INSTRUCTION_SETS, LAYER, SOLID, known
from benchmarks.devices import ATTRIBUTES
from benchmarks.report import Results, in_words

# How far apart labels are at least, as a share of the panel's height.
LABEL_HEIGHT = 0.042


def style(name, results):
    """As the table of contestants has it; our layer thick, on the machine's best set."""
    contestant = known(name)
    drawn = {"color": contestant.color, "ls": contestant.dashes, "lw": 1.5}
    if name == results.layer:
        return {**drawn, "lw": 2.8, "marker": "o", "ms": 4.5, "zorder": 3}
    if contestant.family == LAYER:
        return {**drawn, "lw": 1.1, "alpha": 0.5}
    return {**drawn, "marker": "o", "ms": 3} if contestant.dashes == SOLID else drawn


def is_drawn(name, results):
    """Of the layer all instruction sets, of the rest the best one."""
    contestant = known(name)
    is_best = contestant.isa in ("", results.best_set)
    return contestant.is_drawn and (is_best or contestant.family == LAYER)


def curve(results, name, threads):
    points = [(n, results.median(name, n, threads)) for n in results.sizes()]
    return [(n, 1e9 * seconds / n) for n, seconds in points if seconds]


def apart(heights, least):
    """The heights of labels, moved as little as keeps neighbours that far apart."""
    placed = sorted(heights.items(), key=lambda item: item[1])
    names, values = [name for name, _ in placed], [value for _, value in placed]
    groups = []  # of labels that touch: their mean height, and how many they are
    for value in values:
        groups.append((value, 1))
        while len(groups) > 1 and touch(*groups[-2:], least):
            (low, m), (high, n) = groups[-2:]
            groups[-2:] = [((low * m + high * n) / (m + n), m + n)]
    spread = [
        middle + least * (k - (count - 1) / 2) for middle, count in groups for k in range(count)
    ]
    return dict(zip(names, spread))


def touch(below, above, least):
    (low, m), (high, n) = below, above
    return high - low < least * (m + n) / 2


def draw_panel(axes, results, threads):
    """The curves; returns where each of them ends."""
    ends = {}
    for name in results.labels:
        points = curve(results, name, threads) if is_drawn(name, results) else []
        if points:
            axes.plot(*zip(*points), **style(name, results))
            ends[name] = points[-1]
            if name == results.device.baseline:
                axes.fill_between(*zip(*points), 1e-9, color="#f0f0f0", lw=0, zorder=0)
    if results.device.name == "cpu":
        axes.set_title(in_words(threads), fontsize=11, loc="left")
    axes.set_xlabel("elements")
    return ends


def draw_labels(axes, results, ends):
    """A name at the end of each curve, in its colour."""
    low, high = map(math.log10, axes.get_ylim())
    heights = {name: math.log10(y) for name, (_, y) in ends.items()}
    for name, height in apart(heights, LABEL_HEIGHT * (high - low)).items():
        x, y = ends[name]
        axes.annotate(
            results.label(name),
            (x, y),
            (1.03, (height - low) / (high - low)),
            textcoords="axes fraction",
            color=known(name).color,
            fontsize=9,
            fontweight="bold" if name == results.layer else "normal",
            va="center",
            arrowprops={"arrowstyle": "-", "color": "#bbbbbb", "lw": 0.6, "shrinkB": 3},
        )


def draw_caches(axes, caches, threads):
    """Where three arrays of floats outgrow a cache; each core has its own first two levels."""
    for level, size in caches.items():
        count = size * (threads if level in ("L1", "L2") else 1) / 12
        if axes.get_xlim()[0] < count < axes.get_xlim()[1]:
            axes.axvline(count, color="#cccccc", lw=0.8, zorder=0)
            axes.annotate(
                level,
                (count, 1),
                (-3, -4),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                fontsize=8,
                color="#888888",
                ha="right",
                va="top",
            )


def set_axes(axes, results):
    powers = [n for n in results.sizes() if n != ATTRIBUTES]
    axes.set(xscale="log", yscale="log", xlim=(results.sizes()[0] / 1.3, results.sizes()[-1] * 1.3))
    axes.xaxis.set_major_locator(FixedLocator(powers))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda n, _: f"$2^{{{round(math.log2(n))}}}$" if n >= 1 else "")
    )
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="y", color="#e6e6e6", lw=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def title(report, results):
    machine = report["machine"]
    if "gpu" in machine:
        where = machine["gpu"]["name"]
    else:
        best = INSTRUCTION_SETS[results.best_set]
        where = f"{machine['cpu']}, {machine['cores']} cores, {best}"
    return (
        "Forward and backward of the weighted sigmoid cross-entropy, float32: time per element\n"
        f"{where}; medians of {report['settings']['turns']} turns, {report['date']}; "
        "each against the others in one run"
    )


def draw(report, path):
    """Write the PNG."""
    results = Results(report)
    figure, panels = plt.subplots(
        1,
        len(results.threads),
        figsize=(1 + 7 * len(results.threads), 6.4),
        constrained_layout=True,
        sharey=True,
        squeeze=False,
    )
    ends = {}
    for axes, threads in zip(panels[0], results.threads):
        ends[axes] = draw_panel(axes, results, threads)
        set_axes(axes, results)
    heights = [y for end in ends for line in end.lines for y in line.get_ydata()]
    panels[0][0].set_ylim(min(heights) / 1.6, max(heights) * 1.4)
    panels[0][0].set_ylabel("nanoseconds per element")
    for axes, threads in zip(panels[0], results.threads):
        if results.device.name == "cpu":
            draw_caches(axes, report["machine"]["caches"], threads)
        draw_labels(axes, results, ends[axes])
    figure.suptitle(title(report, results), fontsize=11.5)
    picture = io.BytesIO()
    figure.savefig(picture, dpi=110, format="png")
    plt.close(figure)
    write_atomic(path, picture.getvalue())
