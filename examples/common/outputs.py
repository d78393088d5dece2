"""The files that an example leaves. Each is at every moment the old one or the new one."""

import json
import os


def partial(path):
    return path.with_name(path.name + ".partial")


def write_json(path, value):
    partial(path).write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    os.replace(partial(path), path)


def save_figure(figure, path):
    figure.savefig(partial(path), dpi=110, format="png")
    os.replace(partial(path), path)


def write_report(output, report, words):
    """Write report.json and report.txt, and print the latter."""
    write_json(output / "report.json", report)
    (output / "report.txt").write_text(words + "\n", encoding="utf-8")
    print(words)
    print(f"\nmodels, report.json, report.txt and report.png are in {output}")
