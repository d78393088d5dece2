"""The report as text: the pictures, the figures of both nets, and what they come to."""

import statistics

from ..common import cell
from .boundaries import TOLERANCE
from .networks import BALANCED, UNBALANCED

COLUMNS = {
    "F at 0.5": ("half", "f"),
    "precision": ("half", "precision"),
    "recall": ("half", "recall"),
    "ODS F": ("ods", "f"),
    "its cut": ("ods", "threshold"),
    "OIS F": ("ois", "f"),
    "AP": ("ap",),
}


def leaf(tree, path):
    for key in path:
        tree = tree[key]
    return tree


def picture_lines(pictures):
    return [
        f"  {p['name']:18}{p['size'][1]:>4} x {p['size'][0]:<4}"
        f"{p['edges']:>7.1%} edges{p['undecided']:>7.1%} undecided"
        for p in pictures
    ]


def heading(report):
    data = report["data"]
    return [
        f"Edges of photographs seen through {data['photons']} photons a white pixel or fewer.",
        f"Trained on crops of {len(data['trained_on'])} photographs:",
        *picture_lines(data["trained_on"]),
        f"Scored on {len(data['held_out'])} others:",
        *picture_lines(data["held_out"]),
    ]


def table(results):
    lines = [f"{'':26}" + "".join(f"{name:>14}" for name in COLUMNS)]
    for result in results.values():
        cells = [cell(leaf(result["summary"], path)) for path in COLUMNS.values()]
        lines.append(f"{result['title']:26}" + "".join(f"{c:>14}" for c in cells))
    return lines


def notes(report):
    return [
        "Precision and recall are those at 0.5. ODS: one cut for all pictures, each net's best;",
        "OIS: the best for each picture. Cuts are probabilities. A thinned pixel may match one",
        f"edge pixel within {TOLERANCE} of the picture's diagonal. ±: the standard deviation over",
        f"the seeds ({', '.join(map(str, report['seeds']))}).",
    ]


def gain_line(results, name):
    """What the balanced net gains, and whether the seeds of the two nets overlap."""
    without, gained = (
        [leaf(seed, COLUMNS[name]) for seed in results[scheme]["seeds"].values()]
        for scheme in (UNBALANCED, BALANCED)
    )
    gain = statistics.fmean(gained) - statistics.fmean(without)
    if min(gained) > max(without):
        verdict = "every seed is above every unbalanced one"
    elif max(gained) < min(without):
        verdict = "every seed is below every unbalanced one"
    else:
        verdict = "the seeds overlap"
    return f"  {name:10}{gain:+.3f}  ({verdict})"


def gain_lines(results):
    names = ("F at 0.5", "ODS F", "OIS F", "AP")
    return ["class_balance changes:", *(gain_line(results, name) for name in names)]


def text(report):
    results = report["results"]
    parts = [heading(report), table(results), notes(report), gain_lines(results)]
    return "\n\n".join("\n".join(part) for part in parts)
