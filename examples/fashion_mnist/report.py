"""The report as text: the means of each run, the gain, and every class."""

import statistics

from ..common import cell
from . import calibration
from .evaluate import CUT, METRICS, ROWS
from .longtail import CLASSES
from .schemes import BASELINE, DEFAULT

SHORT = {"average_precision": "mean AP", "precision": "precision", "recall": "recall", "f1": "F1"}
COLUMNS = ("unweighted", "cut 1/(1+w)", "effective n.", "neg./pos.")


def means_table(results):
    """One line per run: the means over the classes, ± their standard deviation over the seeds."""
    lines = [f"{'mean of the classes':28}" + "".join(f"{SHORT[m]:>14}" for m in METRICS)]
    for row in ROWS:
        mean = results[row.name]["summary"]["mean"]
        lines.append(f"{row.title:28}" + "".join(f"{cell(mean[m]):>14}" for m in METRICS))
    return lines


def class_table(results, metric, counts):
    """One line per class, one column per run."""
    lines = [f"{SHORT[metric].replace('mean ', ''):12}{'images':>7}"]
    lines[0] += "".join(f"{column:>15}" for column in COLUMNS)
    values = [results[row.name]["summary"]["per_class"][metric] for row in ROWS]
    for c, (name, n) in enumerate(zip(CLASSES, counts)):
        lines.append(f"{name:12}{n:>7,}" + "".join(f"{cell(v[c], 2):>15}" for v in values))
    return lines


def calibration_table(figures):
    """One line per run: how far its sigmoids are from probabilities, averaged over the classes."""
    lines = [f"{'images as of the training':36}{'ECE':>16}{'Brier score':>16}"]
    for row in calibration.ROWS:
        mean = figures[row.name]["summary"]["mean"]
        cells = "".join(f"{cell(mean[m], 4):>16}" for m in calibration.METRICS)
        lines.append(f"{row.title:36}{cells}")
    return lines


def seed_means(results, row, metric):
    return [seed["mean"][metric] for seed in results[row]["seeds"].values()]


def gain_line(results, row, metric):
    """What a row gains over the unweighted one, seed by seed, and whether their ranges overlap."""
    without, gained = (seed_means(results, name, metric) for name in (BASELINE, row))
    gain = statistics.fmean(b - a for a, b in zip(without, gained))
    beyond = min(gained) > max(without)
    verdict = "every seed is above every unweighted one" if beyond else "the seeds overlap"
    return f"  {results[row]['title']:28}{SHORT[metric]:>8} {gain:+.4f}  ({verdict})"


def gain_lines(results):
    return [
        "gain over unweighted:",
        gain_line(results, DEFAULT, "average_precision"),
        gain_line(results, DEFAULT, "f1"),
        gain_line(results, CUT, "f1"),
    ]


def heading(report):
    counts, tested = report["data"]["counts"], report["data"]["tested"]
    return [
        f"Long-tailed Fashion-MNIST: {sum(counts):,} training images, {counts[0]:,} of the first",
        f"class down to {counts[-1]:,} of the last; {tested:,} images to score, as many of each.",
        "w: the effective-number weights. ±: the standard deviation over the seeds "
        f"({', '.join(map(str, report['seeds']))}).",
    ]


def text(report):
    results, counts = report["results"], report["data"]["counts"]
    parts = [class_table(results, metric, counts) for metric in METRICS]
    parts.append(calibration_table(report["calibration"]))
    parts += [heading(report), means_table(results), gain_lines(results)]
    return "\n\n".join("\n".join(part) for part in parts)
