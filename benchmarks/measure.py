"""How a step is timed: in turn with all others, after warm-ups, and where its result is right."""

import statistics
from dataclasses import replace

import numpy as np

from failure import BenchError
from team import ask_all

WARM_UPS = 2
TURNS = 9
# A turn is as many steps in a row as take this long: 10^5 times the clock's resolution and more.
TURN_SECONDS = 0.01

# How far off a result may be: the loss, relative, and the gradient, of its largest element.
# Upstream's layer adds its losses one by one in its own type.
TOLERANCE = {"float32": 1e-4, "float64": 1e-9}


def agree(workers, problems):
    """Hold each worker's loss and gradient to the exact ones; return by how much they are off."""
    judged = {name: w for name, w in workers.items() if w.contestant.is_loss}
    ask_all(judged, "prepare", messages(problems))
    results = ask_all(judged, "result", {})
    ask_all(judged, "release", {})
    exact = {}
    rows = []
    for name, worker in judged.items():
        problem = problems[name]
        if problem not in exact:
            exact[problem] = problem.exact()
        rows.append(judge(worker.contestant, problem, results[name], *exact[problem]))
    return rows


def judge(contestant, problem, result, loss, gradient):
    """How far off a result is, relative; an error where that is too far, or it is NaN."""
    off = {
        "loss": abs(result["loss"] - loss) / abs(loss),
        "gradient": np.abs(np.array(result["gradient"]) - gradient.ravel()).max()
        / np.abs(gradient).max(),
    }
    for quantity, error in off.items():
        if not error <= TOLERANCE[problem.dtype]:
            raise BenchError(
                f"{contestant.label} disagrees: its {quantity} of {problem.count} elements in "
                f"{problem.dtype} is off by {error:.2g}, relative"
            )
    return {
        "contestant": contestant.name,
        "dtype": problem.dtype,
        **{f"{quantity}_error": float(f"{error:.2g}") for quantity, error in off.items()},
    }


def messages(problems):
    return {name: {"problem": problem.message()} for name, problem in problems.items()}


def warm_up(worker):
    """How many steps make a turn."""
    calls, runs, seconds = 1, 0, 0.0
    while runs < WARM_UPS or seconds < TURN_SECONDS / 2:
        if runs >= WARM_UPS:
            calls *= 2
        seconds = worker.run(calls)
        runs += 1
    return max(1, round(calls * TURN_SECONDS / seconds))


def one_call(_calls):
    """What the one before left in the caches is not to count."""
    return 1


def measure(workers, problems, turns, on_turn, lead=one_call):
    """Time all on their problems; a row for each. on_turn is called after each turn of all.

    lead: how many steps, of those in a turn, come before the timed ones.
    """
    ask_all(workers, "prepare", messages(problems))
    calls = {name: warm_up(worker) for name, worker in workers.items()}
    on_turn()
    seconds = {name: [] for name in workers}
    for _ in range(turns):
        for name, worker in workers.items():
            worker.run(lead(calls[name]))
            seconds[name].append(worker.run(calls[name]) / calls[name])
        on_turn()
    ask_all(workers, "release", {})
    return [row(name, calls[name], seconds[name]) for name in workers]


def row(name, calls, seconds):
    """Rounded to what a clock and nine turns can tell."""
    first, median, third = statistics.quantiles(seconds, n=4, method="inclusive")
    rounded = [float(f"{value:.4g}") for value in (median, first, third, *seconds)]
    return {
        "contestant": name,
        "calls": calls,
        "median": rounded[0],
        "quartiles": rounded[1:3],
        "seconds": rounded[3:],
    }


def problems_of(workers, problem):
    """The same problem for all, as far as each can solve it."""
    return {
        name: replace(problem, is_weighted=worker.contestant.is_weighted)
        for name, worker in workers.items()
    }
