"""A stand-in for NVIDIA's driver, with the functions that scripts/_gpu.py calls."""

import subprocess

from stand_in_program import shell

NAME = "Made-up GPU"
MEMORY = 80 << 30

SOURCE = """\
#include <stddef.h>
#include <string.h>
int cuInit(unsigned flags) { return INIT; }
int cuDeviceGetCount(int *count) { *count = COUNT; return 0; }
int cuDeviceGet(int *device, int k) { *device = k; return 0; }
int cuDeviceGetName(char *name, int size, int device) { strncpy(name, NAME, size); return 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = MEMORY; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
  *value = attribute == 75 ? 9 : attribute == 76 ? 0 : -1;
  return 0;
}
int cuDriverGetVersion(int *version) { *version = 13000; return 0; }
"""


def driver(folder, count=1, init=0, memory=MEMORY):
    """Build it; return the environment's variables for programs that are to find it."""
    folder.mkdir()
    (folder / "driver.c").write_text(SOURCE)
    values = {"COUNT": count, "INIT": init, "MEMORY": f"{memory}ull", "NAME": f'"{NAME}"'}
    argv = ["gcc", "-shared", "-fPIC", *(f"-D{name}={value}" for name, value in values.items())]
    subprocess.run([*argv, folder / "driver.c", "-o", folder / "libcuda.so.1"], check=True)
    shell(folder / "nvidia-smi", "echo 580.95.05; echo 580.95.05")
    return {"LD_LIBRARY_PATH": str(folder), "PATH": f"{folder}:/usr/bin:/bin"}
