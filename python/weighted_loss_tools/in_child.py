"""Run a generator in a forked child, so that what kills a library there kills nothing else."""

import multiprocessing
import os
import resource
import signal

from weighted_sigmoid_loss.errors import Refused


def in_child(words, generator, *arguments):
    """Yield what generator(*arguments) yields, and raise what it raises.

    words: what it reads, for the message if damaged data kill it.
    """
    fork = multiprocessing.get_context("fork")
    pipe = receiver, sender = fork.Pipe(duplex=False)
    child = fork.Process(target=send_all, args=(pipe, generator, arguments), daemon=True)
    child.start()
    sender.close()
    try:
        while True:
            item, error, more = received(words, receiver, child)
            if error:
                raise error
            if not more:
                return
            yield item
    finally:
        receiver.close()
        child.kill()
        child.join()


def received(words, receiver, child):
    try:
        return receiver.recv()
    except (EOFError, OSError):  # OSError: within an item
        child.join()
    code = child.exitcode
    ending = signal.Signals(-code).name if code < 0 else f"exit status {code}"
    raise Refused(
        f"{words}: reading it ended with {ending}: it is damaged, or needs more memory than there "
        "is"
    )


def send_all(pipe, generator, arguments):
    """The child's part: (item, None, True) for each item, then (None, error or None, False)."""
    receiver, sender = pipe
    receiver.close()  # so that sending fails, and this ends, when the parent is gone
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    silent = os.open(os.devnull, os.O_WRONLY)  # libraries print what the one line says
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    error = None
    try:
        for item in generator(*arguments):
            sender.send((item, None, True))
    except Exception as raised:
        error = raised
    sender.send((None, error, False))
