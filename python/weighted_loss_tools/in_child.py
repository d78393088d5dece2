"""Run a generator in a forked child, so that what kills a library there kills nothing else."""

import faulthandler
import multiprocessing
import os
import re
import resource
import signal
import tempfile

from weighted_sigmoid_loss.errors import Refused


def in_child(words, generator, *arguments):
    """Yield what generator(*arguments) yields, and raise what it raises.

    words: what it reads, for the message if damaged data kill it.
    """
    # Libraries print what the one line says.
    with tempfile.TemporaryFile() as log:
        yield from items(log, words, generator, arguments)


def items(log, words, generator, arguments):
    fork = multiprocessing.get_context("fork")
    pipe = receiver, sender = fork.Pipe(duplex=False)
    child = fork.Process(target=send_all, args=(pipe, log, generator, arguments), daemon=True)
    child.start()
    sender.close()
    try:
        while True:
            item, error, more = received(log, words, receiver, child)
            if error:
                raise error
            if not more:
                return
            yield item
    finally:
        receiver.close()
        child.kill()
        child.join()


def received(log, words, receiver, child):
    try:
        return receiver.recv()
    except (EOFError, OSError):  # OSError: within an item
        child.join()
    log.seek(0)
    check = re.search(r"^F\d+ [^]]*\] (.*)", log.read().decode("utf-8", "replace"), re.MULTILINE)
    if check:  # of Caffe's
        raise Refused(f"{words}: {check[1]}")
    code = child.exitcode
    ending = signal.Signals(-code).name if code < 0 else f"exit status {code}"
    raise Refused(
        f"{words}: reading it ended with {ending}: it is damaged, or needs more memory than there "
        "is"
    )


def send_all(pipe, log, generator, arguments):
    """The child's part: (item, None, True) for each item, then (None, error or None, False)."""
    receiver, sender = pipe
    receiver.close()  # so that sending fails, and this ends, when the parent is gone
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.disable()  # pytest's would print past the log
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    error = None
    try:
        for item in generator(*arguments):
            sender.send((item, None, True))
    except Exception as raised:
        error = raised
    sender.send((None, error, False))
