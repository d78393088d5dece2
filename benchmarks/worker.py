"""The process of one contestant: computes what it is told to, a JSON message a line.

team.py starts it. It runs on the given processors alone, and sleeps while it waits for a message.
"""

import argparse
import json
import os
import sys
import time


def restricted_arguments():
    """The arguments, after keeping to the processors, which libraries count as they load."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("family")
    parser.add_argument("--device", required=True)
    parser.add_argument("--processors", required=True, help="as in 0,1")
    args = parser.parse_args()
    os.sched_setaffinity(0, map(int, args.processors.split(",")))
    return args


def own_output():
    """Standard output, for messages alone: what libraries print goes to standard error."""
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return output


class Server:
    """Answers each message by the method of that name."""

    def __init__(self, contestant):
        self.contestant = contestant

    def describe(self):
        return self.contestant.describe()

    def prepare(self, problem):
        from benchmarks.problem import Problem

        self.contestant.release()  # what it has where another one's failure ended the last round
        self.contestant.prepare(Problem.from_message(problem))
        return {}

    def run(self, calls):
        return {"seconds": self.contestant.run(calls)}

    def result(self):
        loss, gradient = self.contestant.result()
        return {"loss": loss, "gradient": gradient.ravel().tolist()}

    def loss(self):
        """Without the gradient, which can be too large for a message."""
        return {"loss": self.contestant.result()[0]}

    def release(self):
        self.contestant.release()
        return {}


def serve(server, output):
    """Until the end of input. Each answer says what was used of the processor since the last."""
    slept_from, used_from = time.perf_counter(), time.process_time()
    for line in sys.stdin:
        idle = {
            "waited": time.perf_counter() - slept_from,
            "used": time.process_time() - used_from,
        }
        message = json.loads(line)
        try:
            answer = getattr(server, message.pop("do"))(**message)
        except Exception as error:  # the driver says whose it is, and ends the run
            answer = {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"}
        print(json.dumps({**answer, **idle}), file=output, flush=True)
        slept_from, used_from = time.perf_counter(), time.process_time()


def main():
    args = restricted_arguments()
    output = own_output()
    from benchmarks.implementations import IMPLEMENTATIONS

    try:
        contestant = IMPLEMENTATIONS[args.family](args.device)
    except (ImportError, OSError) as error:
        print(json.dumps({"error": str(error)}), file=output, flush=True)
        return
    serve(Server(contestant), output)


if __name__ == "__main__":
    main()
