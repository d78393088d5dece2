"""The pictures of a report: one of a rare class, and one of everything that was measured."""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import LogLocator, NullLocator
from sklearn.metrics import precision_recall_curve, precision_score, recall_score

from ..common import open_axes, save_figure
from . import calibration
from .evaluate import CUT, ROWS
from .longtail import CLASSES, one_vs_rest
from .schemes import BASELINE, DEFAULT, SCHEMES, class_weights

COLORS = {"unweighted": "#7f7f7f", "effective_number": "#c8102e", "ratio": "#1f6fb4"}
RARE = 4
RECALL = np.linspace(0, 1, 401)


def precision_at_recall(scores, targets):
    """The best precision at each recall of RECALL or above (the usual interpolation)."""
    precision, recall, _ = precision_recall_curve(targets, scores)
    best = np.maximum.accumulate(precision)
    return np.interp(RECALL, recall[::-1], best[::-1])


def band(axes, x, curves, scheme, label):
    """The seeds' mean as a line, from their least to their greatest as a band."""
    color = COLORS[scheme]
    axes.fill_between(x, np.min(curves, 0), np.max(curves, 0), color=color, alpha=0.18, lw=0)
    axes.plot(x, np.mean(curves, 0), color=color, lw=1.7, label=label)


def plot_curve(axes, c, scheme, scores, targets, report, label):
    """Plot a scheme's precision against recall for one class; return its average precision, which
    the label takes as ap."""
    curves = [
        precision_at_recall(values[:, c], targets[:, c])
        for (name, _), values in scores.items()
        if name == scheme
    ]
    ap = report["results"][scheme]["summary"]["per_class"]["average_precision"][c]["mean"]
    band(axes, RECALL, curves, scheme, label.format(ap=ap))
    return ap


def plot_precision_recall(axes, c, scores, targets, report):
    """One class; where all runs are good, only the corner in which they differ."""
    least = min(
        plot_curve(axes, c, name, scores, targets, report, scheme.title + ": AP {ap:.3f}")
        for name, scheme in SCHEMES.items()
    )
    low = 0.6 if least > 0.85 else 0
    axes.set(xlabel="recall", xlim=(low, 1), ylim=(low, 1 + 0.01 * (1 - low)))
    zoomed = f", axes from {low}" if low else ""
    axes.set_title(f"{CLASSES[c]}, {report['data']['counts'][c]} images{zoomed}", fontsize=11)
    axes.legend(loc="lower left", fontsize=9, frameon=False)


def plot_f1(axes, report):
    """F1 per class, commonest to rarest: at the cut of 0.5, and what another cut recovers."""
    x = np.arange(len(CLASSES))
    for shift, row in zip((-0.24, -0.08, 0.08, 0.24), ROWS):
        values = report["results"][row.name]["summary"]["per_class"]["f1"]
        axes.errorbar(
            x + shift,
            [v["mean"] for v in values],
            [v["std"] or 0 for v in values],
            fmt="D" if row.cut else "o",
            mfc="white" if row.cut else COLORS[row.scheme],
            color=COLORS[row.scheme],
            ms=5.5,
            lw=1.4,
            label=row.title,
        )
    counts = report["data"]["counts"]
    axes.set_xticks(x)
    axes.set_xticklabels([f"{name}\n{n:,}" for name, n in zip(CLASSES, counts)], fontsize=8)
    for left in x[::2]:
        axes.axvspan(left - 0.5, left + 0.5, color="#f4f4f4", zorder=0)
    axes.set_xlim(-0.5, len(CLASSES) - 0.5)
    axes.set_title("F1 per class, with its number of training images", fontsize=11)
    axes.legend(loc="lower left", fontsize=9, frameon=False)


def plot_loss(axes, report, curve):
    for scheme in SCHEMES:
        runs = [run[curve] for run in report["runs"] if run["scheme"] == scheme]
        iterations = [iteration for iteration, _ in runs[0]]
        losses = [[loss for _, loss in run] for run in runs]
        band(axes, iterations, losses, scheme, SCHEMES[scheme].title)
    axes.set(yscale="log", xlabel="iteration")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())
    axes.legend(fontsize=9, frameon=False)


def plot_reliability(axes, scheme, probabilities, split, report):
    """All classes and seeds together; empty bins are left out."""
    targets = one_vs_rest(split.test.labels).ravel()
    weights = np.repeat(calibration.image_weights(split), len(CLASSES))
    axes.plot([0, 1], [0, 1], color="#bbbbbb", lw=1, zorder=0)
    for row in calibration.ROWS:
        if row.scheme != scheme:
            continue
        ece = report["calibration"][row.name]["summary"]["mean"]["ece"]["mean"]
        seeds = [
            values.ravel()
            for (name, _, calibrated), values in probabilities.items()
            if (name, calibrated) == (scheme, row.calibrated)
        ]
        weight, predicted, positive = calibration.reliability(
            np.concatenate(seeds), np.tile(targets, len(seeds)), np.tile(weights, len(seeds))
        )
        filled = weight > 0
        axes.plot(
            predicted[filled],
            positive[filled],
            "o--" if row.calibrated else "o-",
            mfc="white" if row.calibrated else COLORS[scheme],
            color=COLORS[scheme],
            ms=5,
            lw=1.4,
            label=f"{'calibrated' if row.calibrated else 'as trained'}: ECE {ece:.4f}",
        )
    axes.set(xlabel="sigmoid", xlim=(0, 1), ylim=(0, 1))
    axes.set_title(SCHEMES[scheme].title, fontsize=11)
    axes.legend(loc="upper left", fontsize=9, frameon=False)


def plot_ece(axes, report):
    """Per class, commonest to rarest, on a logarithmic axis."""
    x = np.arange(len(CLASSES))
    for shift, row in zip(np.linspace(-0.3, 0.3, len(calibration.ROWS)), calibration.ROWS):
        values = report["calibration"][row.name]["summary"]["per_class"]["ece"]
        axes.plot(
            x + shift,
            [v["mean"] for v in values],
            "o",
            mfc="white" if row.calibrated else COLORS[row.scheme],
            color=COLORS[row.scheme],
            ms=5,
        )
    axes.set_yscale("log")
    axes.set_xticks(x)
    axes.set_xticklabels([f"{n:,}" for n in report["data"]["counts"]], fontsize=7)
    axes.set_title("ECE per class, by its training images", fontsize=11)


def title(report):
    def mean(row, metric):
        return report["results"][row]["summary"]["mean"][metric]["mean"]

    return (
        "SigmoidCrossEntropyWeightLoss on long-tailed Fashion-MNIST\n"
        f"mean AP {mean(BASELINE, 'average_precision'):.3f} unweighted, "
        f"{mean(DEFAULT, 'average_precision'):.3f} with effective-number weights;  "
        f"macro F1 {mean(BASELINE, 'f1'):.3f} and {mean(DEFAULT, 'f1'):.3f}\n"
        f"lines and dots: means of {len(report['seeds'])} seeds;  bands: from the least seed "
        "to the greatest;  bars: ± one standard deviation"
    )


def operating_point(axes, c, row, scores, split, words, offset):
    """A dot, with its figures, where a row of the report cuts a class, over all seeds."""
    runs = [values[:, c] for (scheme, _), values in scores.items() if scheme == row.scheme]
    weight = class_weights(row.cut or BASELINE, split.counts)[c]
    chosen = np.concatenate(runs) > -np.log(weight)
    targets = np.tile(one_vs_rest(split.test.labels)[:, c], len(runs))
    recall, precision = recall_score(targets, chosen), precision_score(targets, chosen)
    color = COLORS[row.scheme]
    axes.plot(recall, precision, "D" if row.cut else "o", color=color, ms=9, zorder=3)
    axes.annotate(
        f"{words}:\nfinds {recall:.0%}, {precision:.0%} of these right",
        (recall, precision),
        offset,
        textcoords="offset points",
        fontsize=10,
        color=color,
        arrowprops={"arrowstyle": "-", "color": color, "lw": 0.8},
    )


def plot_rare_class(report, scores, split, path):
    """Precision and recall of the class that gains most, and where each network is cut."""
    c = CLASSES.index("Shirt")
    targets = one_vs_rest(split.test.labels)
    figure, axes = plt.subplots(figsize=(8.5, 4.6), constrained_layout=True)
    for scheme, words in ((BASELINE, "unweighted"), (DEFAULT, "class weights")):
        label = words + ": average precision {ap:.2f}"
        plot_curve(axes, c, scheme, scores, targets, report, label)
    cuts = {
        BASELINE: ("unweighted, cut at 0.5", (8, -110)),
        CUT: ("unweighted, threshold moved", (20, -135)),
        DEFAULT: ("class weights, cut at 0.5", (20, 24)),
    }
    for row in ROWS:
        if row.name in cuts:
            operating_point(axes, c, row, scores, split, *cuts[row.name])
    axes.set(xlabel="recall", ylabel="precision", xlim=(-0.01, 1), ylim=(0, 1.03))
    axes.set_title(
        f"A rare class: {CLASSES[c].lower()}s, {report['data']['counts'][c]} of "
        f"{sum(report['data']['counts']):,} training images",
        fontsize=12,
    )
    axes.legend(loc="lower left", frameon=False)
    open_axes(axes)
    save_figure(figure, path)
    plt.close(figure)


def plot(report, scores, probabilities, split, path):
    """Write the PNG. scores: {(scheme, seed): (N, 10)}; probabilities: see scoring."""
    targets = one_vs_rest(split.test.labels)
    figure = plt.figure(figsize=(15, 12.6), constrained_layout=True)
    grid = figure.add_gridspec(3, RARE)
    rare = range(len(CLASSES) - RARE, len(CLASSES))
    for column, c in enumerate(rare):
        axes = figure.add_subplot(grid[0, column])
        plot_precision_recall(axes, c, scores, targets, report)
    figure.axes[0].set_ylabel("precision")
    plot_f1(figure.add_subplot(grid[1, :2]), report)
    titles = {"train_loss": "training loss", "test_loss": "unweighted loss, images to score"}
    for column, (curve, words) in enumerate(titles.items(), start=2):
        axes = figure.add_subplot(grid[1, column])
        plot_loss(axes, report, curve)
        axes.set_title(words, fontsize=11)
    for column, scheme in enumerate(SCHEMES):
        axes = figure.add_subplot(grid[2, column])
        plot_reliability(axes, scheme, probabilities, split, report)
        if column == 0:
            axes.set_ylabel("share of positives")
    plot_ece(figure.add_subplot(grid[2, len(SCHEMES)]), report)
    for axes in figure.axes:
        open_axes(axes)
    figure.suptitle(title(report), fontsize=12)
    save_figure(figure, path)
    plt.close(figure)
