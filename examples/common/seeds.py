"""Figures of several seeds: their mean and spread."""

import statistics


def summary(per_seed):
    """The same tree as each seed's figures, with their mean and standard deviation as leaves."""
    first = per_seed[0]
    if isinstance(first, dict):
        return {key: summary([seed[key] for seed in per_seed]) for key in first}
    if isinstance(first, list):
        return [summary(list(values)) for values in zip(*per_seed)]
    spread = statistics.stdev(per_seed) if len(per_seed) > 1 else None
    return {"mean": statistics.fmean(per_seed), "std": spread}


def cell(value, digits=3):
    """A leaf of summary as a cell of a table."""
    if value["std"] is None:
        return f"{value['mean']:.{digits}f}"
    return f"{value['mean']:.{digits}f} ±{value['std']:.{digits}f}"
