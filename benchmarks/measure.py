"""How a step is timed: in turn with all others, after warm-ups, and where its result is right."""

import statistics

import numpy as np

from benchmarks.team import Disagreement, ask_all

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
    """How far off a result is, relative."""
    off = {
        "loss": abs(result["loss"] - loss) / abs(loss),
        "gradient": np.abs(np.array(result["gradient"]) - gradient.ravel()).max()
        / np.abs(gradient).max(),
    }
    return hold(contestant, problem, off)


def losses_by(worker, problems):
    """{problem: its loss, as this one computes it}."""
    losses = {}
    for problem in set(problems):
        worker.ask("prepare", problem=problem.message())
        losses[problem] = worker.ask("loss")["loss"]
    worker.ask("release")
    return losses


def agree_on_losses(workers, problems, losses):
    """Hold the loss of what each has prepared to that of its problem; a row for each."""
    judged = {name: w for name, w in workers.items() if w.contestant.is_loss}
    results = ask_all(judged, "loss", {})
    rows = []
    for name, worker in judged.items():
        loss = losses[problems[name]]
        off = {"loss": abs(results[name]["loss"] - loss) / abs(loss)}
        rows.append(hold(worker.contestant, problems[name], off))
    return rows


def hold(contestant, problem, off):
    """A row of how far off a result is; an error where that is too far, or it is NaN."""
    for quantity, error in off.items():
        if not error <= TOLERANCE[problem.dtype]:
            raise Disagreement(
                contestant,
                f"{contestant.label} disagrees: its {quantity} of {problem.count} elements in "
                f"{problem.dtype} is off by {error:.2g}, relative",
            )
    return {
        "contestant": contestant.name,
        "dtype": problem.dtype,
        "count": problem.count,
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


def timed(workers, turns, on_turn, is_led_by_turn=False):
    """Time all on what they have prepared; a row for each.

    on_turn is called after each turn of all. Before a timed turn comes a step, since what the one
    before left in the caches is not to count, or a whole turn.
    """
    calls = {name: warm_up(worker) for name, worker in workers.items()}
    on_turn()
    seconds = {name: [] for name in workers}
    for _ in range(turns):
        for name, worker in workers.items():
            worker.run(calls[name] if is_led_by_turn else 1)
            seconds[name].append(worker.run(calls[name]) / calls[name])
        on_turn()
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
    return {name: problem.for_contestant(worker.contestant) for name, worker in workers.items()}
