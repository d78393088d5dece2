"""The picture of a report: precision-recall of the rare classes, F1 a class, loss curves."""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import LogLocator, NullLocator
from sklearn.metrics import precision_recall_curve

from evaluate import ROWS
from longtail import CLASSES, one_vs_rest
from outputs import save_figure
from schemes import BASELINE, DEFAULT, SCHEMES

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


def plot_precision_recall(axes, c, scores, targets, report):
    """Of one class; where all runs are good, only the corner in which they differ."""
    least = 1
    for scheme in SCHEMES:
        curves = [
            precision_at_recall(values[:, c], targets[:, c])
            for (name, _), values in scores.items()
            if name == scheme
        ]
        ap = report["results"][scheme]["summary"]["per_class"]["average_precision"][c]["mean"]
        band(axes, RECALL, curves, scheme, f"{SCHEMES[scheme].title}: AP {ap:.3f}")
        least = min(least, ap)
    low = 0.6 if least > 0.85 else 0
    axes.set(xlabel="recall", xlim=(low, 1), ylim=(low, 1 + 0.01 * (1 - low)))
    zoomed = f", axes from {low}" if low else ""
    axes.set_title(f"{CLASSES[c]}, {report['data']['counts'][c]} images{zoomed}", fontsize=11)
    axes.legend(loc="lower left", fontsize=9, frameon=False)


def plot_f1(axes, report):
    """F1 a class, commonest to rarest: what 0.5 cuts off, and what another cut gets back."""
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
    axes.set_xticks(x, [f"{name}\n{n:,}" for name, n in zip(CLASSES, counts)], fontsize=8)
    for left in x[::2]:
        axes.axvspan(left - 0.5, left + 0.5, color="#f4f4f4", zorder=0)
    axes.set_xlim(-0.5, len(CLASSES) - 0.5)
    axes.set_title("F1 a class, with its number of training images", fontsize=11)
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


def plot(report, scores, test_labels, path):
    """Write the PNG. scores: {(scheme, seed): (N, 10)}."""
    targets = one_vs_rest(test_labels)
    figure = plt.figure(figsize=(15, 8.6), layout="constrained")
    grid = figure.add_gridspec(2, RARE, height_ratios=(1, 1))
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
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title(report), fontsize=12)
    save_figure(figure, path)
    plt.close(figure)
