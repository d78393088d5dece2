"""The picture of a report: held-out photographs and what each net makes of them, side by side."""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from skimage.morphology import dilation, skeletonize

from ..common import open_axes, save_figure
from .boundaries import HALF, add, at, f_measure, precision, recall, ridges
from .networks import BALANCED, TITLES, UNBALANCED
from .pictures import EDGE, PHOTONS, UNDECIDED, noisy
from .report import COLUMNS, leaf

COLORS = {UNBALANCED: "#7f7f7f", BALANCED: "#c8102e"}
FIGURES = {name: COLUMNS[name] for name in ("F at 0.5", "ODS F", "OIS F", "AP")}
OFFSET = {"textcoords": "offset points", "fontsize": 9}
SHOWN = ("astronaut", "chelsea", "coffee")
PANELS = 7
SHADE = {EDGE: 1.0, UNDECIDED: 0.3}


def panels(picture, image, maps, cuts):
    """What a row shows, as (words, grey from white 0 to black 1).

    maps: {scheme: scores}; cuts: {scheme: the probability that is its best cut}.
    """
    shades = sum(shade * (picture.target == label) for label, shade in SHADE.items())
    yield "the net's input", 1 - image / PHOTONS
    yield "target (grey: ignored)", lines(shades)
    for scheme, scores in maps.items():
        yield f"{scheme}: probability", 1 / (1 + np.exp(-scores))
    for scheme, scores in maps.items():
        yield f"{scheme}, cut at 0.5", found(scores, 0.5)
    yield f"{UNBALANCED}, cut at {cuts[UNBALANCED]:.2f}", found(maps[UNBALANCED], cuts[UNBALANCED])


def found(scores, probability):
    edges = skeletonize(ridges(scores) >= np.log(probability / (1 - probability)))
    return lines(edges.astype(float))


def lines(shades):
    """Lines of one pixel drawn with two, which stay whole when the page is reduced."""
    return dilation(shades, np.ones((2, 2)))


def plot_rows(axes, report, held_out, scores):
    seed = report["seeds"][0]
    images = noisy(held_out)
    rows = [number for number, picture in enumerate(held_out) if picture.name in SHOWN]
    results = report["results"].items()
    cuts = {scheme: result["seeds"][str(seed)]["ods"]["threshold"] for scheme, result in results}
    for row, (cells, number) in enumerate(zip(axes, rows)):
        maps = {run.scheme: s[number] for run, s in scores.items() if run.seed == seed}
        shown = panels(held_out[number], images[number], maps, cuts)
        for cell, (words, grey) in zip(cells, shown):
            cell.imshow(grey, cmap="Greys", vmin=0, vmax=1, interpolation="antialiased")
            cell.set(xticks=[], yticks=[])
            if row == 0:
                cell.set_title(words, fontsize=10)


def row_heights(held_out):
    """The rows' heights, so that every picture fills its place: all have the same width."""
    sizes = [picture.target.shape for picture in held_out if picture.name in SHOWN]
    return [height / width for height, width in sizes]


def plot_curves(axes, counts):
    """Precision and recall of every seed, with the cut at 0.5 and the best one."""
    for run, each in counts.items():
        total, color = add(each), COLORS[run.scheme]
        best = int(np.argmax(f_measure(total)))
        axes.plot(recall(total), precision(total), color=color, lw=1.2, alpha=0.8)
        for index, marker in ((HALF, "o"), (best, "^")):
            point = at(total, index)
            axes.plot(point["recall"], point["precision"], marker, color=color, ms=8, mec="white")
    for scheme, title in TITLES.items():
        axes.plot([], [], color=COLORS[scheme], label=title)
    for marker, words in (("o", "cut at 0.5"), ("^", "the best cut (ODS)")):
        axes.plot([], [], marker, color="black", ms=8, label=words)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    axes.legend(loc="lower left", frameon=False, fontsize=10)


def plot_figures(axes, results):
    """Each figure of both nets: the mean of the seeds as a bar, every seed as a dot."""
    for shift, (scheme, result) in zip((-0.2, 0.2), results.items()):
        for x, path in enumerate(FIGURES.values()):
            mean = leaf(result["summary"], path)["mean"]
            seeds = [leaf(seed, path) for seed in result["seeds"].values()]
            axes.bar(x + shift, mean, 0.38, color=COLORS[scheme], alpha=0.6)
            axes.plot([x + shift] * len(seeds), seeds, ".", color="black", ms=5)
            axes.annotate(f"{mean:.3f}", (x + shift, max(seeds)), (0, 4), ha="center", **OFFSET)
    axes.set_xticks(range(len(FIGURES)))
    axes.set_xticklabels(FIGURES)
    axes.set_ylim(0, 1)


def title(report):
    data = report["data"]
    return (
        "SigmoidCrossEntropyWeightLoss on the edges of photographs in dim light: "
        f"{len(data['trained_on'])} to train on, {len(data['held_out'])} held out\n"
        f"pictures: seed {report['seeds'][0]};  curves: each of {len(report['seeds'])} seeds, all "
        "held-out pictures;  bars: their means, dots: each seed"
    )


def plot(report, held_out, scores, counts, path):
    """Write the PNG."""
    figure = plt.figure(figsize=(17, 10), constrained_layout=True)
    above, below = figure.add_gridspec(2, 1, height_ratios=(2, 1))
    rows = above.subgridspec(len(SHOWN), PANELS, height_ratios=row_heights(held_out))
    cells = [[figure.add_subplot(rows[i, j]) for j in range(PANELS)] for i in range(len(SHOWN))]
    plot_rows(cells, report, held_out, scores)
    curves, bars = map(figure.add_subplot, below.subgridspec(1, 2))
    plot_curves(curves, counts)
    plot_figures(bars, report["results"])
    for axes in (curves, bars):
        open_axes(axes)
    figure.suptitle(title(report), fontsize=12)
    save_figure(figure, path)
    plt.close(figure)
