#!/usr/bin/python3
"""The GPU that a program is to use, as NVIDIA's driver tells it; nothing else has to be there.

As a program it says which one that is, and ends with status 2 where there is none: the Makefile
asks before anything is installed or built for one.
"""

import ctypes
import subprocess

from _common import Failure, program

DRIVER = "libcuda.so.1"
# Of cuda.h.
COMPUTE_CAPABILITY_MAJOR, COMPUTE_CAPABILITY_MINOR = 75, 76


def require_gpu():
    """The first GPU that CUDA's programs see: strings by name, `memory_bytes`, `devices`.

    Raises Failure with status 2 where there is none.
    """
    try:
        cuda = ctypes.CDLL(DRIVER)
    except OSError:
        raise Failure(f"no GPU: NVIDIA's driver ({DRIVER}) is not on this machine", 2) from None
    count, device = ctypes.c_int(), ctypes.c_int()
    # As a program of CUDA does: CUDA_VISIBLE_DEVICES counts.
    status = cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count))
    if status or not count.value:
        raise Failure(f"no GPU: NVIDIA's driver finds none (CUDA error {status})", 2)
    _check(cuda.cuDeviceGet(ctypes.byref(device), 0))
    name, memory = ctypes.create_string_buffer(256), ctypes.c_size_t()
    _check(cuda.cuDeviceGetName(name, len(name), device))
    _check(cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device))
    capability = []
    for attribute in (COMPUTE_CAPABILITY_MAJOR, COMPUTE_CAPABILITY_MINOR):
        value = ctypes.c_int()
        _check(cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, device))
        capability.append(value.value)
    version = ctypes.c_int()
    _check(cuda.cuDriverGetVersion(ctypes.byref(version)))
    return {
        "name": name.value.decode(),
        "compute capability": "{}.{}".format(*capability),
        "CUDA driver": f"{version.value // 1000}.{version.value % 1000 // 10}",
        "driver": driver_version(),
        "memory_bytes": memory.value,
        "devices": count.value,
    }


def _check(status):
    if status:
        raise Failure(f"no GPU that answers (CUDA error {status})", 2)


def driver_version():
    """As nvidia-smi gives it; CUDA itself names only the newest CUDA that the driver has."""
    try:
        argv = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    lines = done.stdout.splitlines()
    return lines[0].strip() if done.returncode == 0 and lines else "unknown"


def main():
    gpu = require_gpu()
    print(f"{gpu['name']}, compute capability {gpu['compute capability']}, driver {gpu['driver']}")


if __name__ == "__main__":
    program(main)
