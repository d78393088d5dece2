# What people type. Each target does only what is not done yet; all output is under build/.

# There where another machine built for the GPU (make gpu-bundle), without pycaffe.
BUNDLED := $(wildcard build/cuda/bundle.json)
# Debian's Python, whatever python3 is first on PATH: pycaffe is built for it.
PYTHON := $(if $(BUNDLED),python3,/usr/bin/python3)
VENV := build/venv

# make CAFFE_SOURCE=PATH: use this tree or tarball of upstream Caffe instead of fetching it
# make DEPS=off: install no Debian packages
# make JOBS=N: run N compilers at a time instead of what cores and memory allow
# make DEVICE=gpu: test or measure on the GPU, with build/cuda, instead of the CPU (runtest, bench)
# make OUTPUT=DIR: leave reports there (runtest, bench)
# make CUDA_ARCH=90: compile for these GPUs, or "native", instead of all of today's

# Another Python's settings (PYTHONSAFEPATH, PYTHONOPTIMIZE) and the user's own packages stay out.
unexport VIRTUAL_ENV $(filter PYTHON%,$(.VARIABLES))
export PYTHONNOUSERSITE := 1

SOURCE = $(if $(CAFFE_SOURCE),--source "$(CAFFE_SOURCE)")
FETCH = $(PYTHON) scripts/fetch.py $(SOURCE)
AT_A_TIME = $(if $(JOBS),--jobs "$(JOBS)")
BUILD = $(PYTHON) scripts/build.py $(SOURCE) $(AT_A_TIME)
PACKAGES = $(PYTHON) scripts/install_packages.py
DEVICE := cpu
DEVICES := cpu gpu
$(if $(filter-out $(DEVICES),$(or $(DEVICE),none)),$(error DEVICE is $(DEVICE): it is one of $(DEVICES)))
# Which Caffe the device takes, its packages, and that there is a GPU, before anything is installed.
CAFFE_OF_cpu := cpu
CAFFE_OF_gpu := cuda
DEVICE_PACKAGES = $(filter cuda,$(CAFFE_OF_$(DEVICE)))
BUNDLED_COMMIT = $(shell sed -n 's/.*"commit": "\(.*\)".*/\1/p' $(BUNDLED))
BENCHMARKS = $(if $(BUNDLED),:python $(PYTHON) -m benchmarks --adapter build/cuda/install/lib/adapter.so --commit $(BUNDLED_COMMIT), build/bench-venv/bin/python -m benchmarks)
REQUIRE_DEVICE = $(if $(filter gpu,$(DEVICE)),$(PYTHON) scripts/_gpu.py)
# Maintainers' programs and the examples take modules from scripts/.
DEVTOOL = PYTHONPATH=scripts $(PYTHON)
EXAMPLE = PYTHONPATH=scripts:build/cpu/install/python $(VENV)/bin/python -m examples

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo edges runtest wheel bench torch-check exhaustive arm64 forks container patch cuda cuda-check gpu-bundle sanitize lint clean

help: ## this list
	@echo "Caffe with the layer SigmoidCrossEntropyWeightLoss"
	@echo
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F'\t' '{printf "  make %-11s %s\n", $$1, $$2}'
	@echo
	@sed -n 's/^# make \([A-Z_]*=[^:]*\): /\1\t/p' $(MAKEFILE_LIST) | awk -F'\t' '{printf "  %-18s %s\n", $$1, $$2}'

demo: ## train on long-tailed Fashion-MNIST with and without class weights: build/demo
	$(PACKAGES) build demo
	$(BUILD) cpu
	$(PYTHON) scripts/make_venv.py $(VENV)
	$(EXAMPLE).fashion_mnist --output build/demo

edges: ## train on the edges of photographs with and without class_balance: build/edges
	$(PACKAGES) build demo
	$(BUILD) cpu
	$(PYTHON) scripts/make_venv.py $(VENV)
	$(EXAMPLE).edges --output build/edges

runtest: ## run all tests: upstream's and ours, C++ and Python
	$(REQUIRE_DEVICE)
	$(PACKAGES) build demo test $(DEVICE_PACKAGES)
	$(PACKAGES) --optional bench
	$(PACKAGES) --optional parity
	$(BUILD) $(CAFFE_OF_$(DEVICE)) --tests
	$(PYTHON) scripts/runtest.py --device $(DEVICE) $(if $(OUTPUT),--output "$(OUTPUT)")

wheel: ## the Python package, which needs no Caffe: build/wheels
	$(PACKAGES) build
	$(PACKAGES) --optional parity
	$(PYTHON) scripts/wheel.py

# The package, and PyTorch and the rest in fixed versions.
define make_bench_venv
	$(PYTHON) scripts/make_venv.py build/bench-venv --requirements benchmarks/requirements.txt
	$(PYTHON) scripts/wheel.py --install build/bench-venv/bin/python
endef

torch-check: ## test the package with a current PyTorch, from PyPI: build/bench-venv
	$(PACKAGES) build
	$(make_bench_venv)
	build/bench-venv/bin/python -m pytest --quiet --confcutdir=tests/package tests/package/test_torch*.py

exhaustive: ## prove the elements' accuracy: all float scores, a billion double ones
	$(PACKAGES) exhaustive
	$(DEVTOOL) devtools/exhaustive.py

arm64: ## cross-compile the kernel for arm64 and test it under qemu-user
	$(PACKAGES) build arm64
	$(FETCH)
	$(DEVTOOL) devtools/arm64.py

sanitize: ## run our C++ tests with the Address-, UndefinedBehavior- and ThreadSanitizer
	$(PACKAGES) build
	$(FETCH)
	$(DEVTOOL) devtools/sanitize.py $(AT_A_TIME)

forks: ## build forks of Caffe with the layer, and run our C++ tests in them: build/forks
	$(PACKAGES) build forks
	$(FETCH)
	$(DEVTOOL) devtools/forks.py $(AT_A_TIME)

container: ## build the Dockerfile's image on a bare Debian and train in it, as root: build/container
	$(PACKAGES) container
	$(DEVTOOL) devtools/container.py

bench: ## measure against C++, NumPy, PyTorch, JAX and upstream's layer: build/bench
	$(REQUIRE_DEVICE)
	$(PACKAGES) build bench $(DEVICE_PACKAGES)
	$(BUILD) $(CAFFE_OF_$(DEVICE))
ifeq ($(BUNDLED),)
	$(make_bench_venv)
endif
	PYTHONPATH=scripts$(BENCHMARKS) --device $(DEVICE) --output "$(or $(OUTPUT),build/bench/$(DEVICE))"

patch: ## write the layer as one patch on a stock Caffe tree: build/weighted_sigmoid_loss.patch
	$(FETCH)
	$(PYTHON) scripts/apply.py build/source/caffe --patch build/weighted_sigmoid_loss.patch

cuda: ## build Caffe with CUDA: build/cuda/install
	$(PACKAGES) build cuda
	$(BUILD) cuda --tests

cuda-check: ## compile our .cu files as C++11, no warning allowed, and check the machine code
	$(PACKAGES) build cuda cuda-check
	$(DEVTOOL) devtools/compile_cuda.py
	$(DEVTOOL) devtools/compile_old_cuda.py
	$(DEVTOOL) devtools/check_sass.py

gpu-bundle: export CUDA_ARCH := $(or $(CUDA_ARCH),90)
gpu-bundle: ## what DEVICE=gpu takes on a machine without compilers: build/gpu-bundle.tar.gz
	$(PACKAGES) build cuda demo
	$(FETCH)
	PYTHONPATH=scripts:. $(PYTHON) devtools/gpu_bundle.py $(AT_A_TIME)

lint: ## check the format and style of all files that are ours
	$(PACKAGES) build
	$(FETCH)
	$(DEVTOOL) devtools/lint.py

clean: ## remove all that was built, but not Caffe's source
	rm -rf build/cpu build/cuda build/gpu-bundle* build/exhaustive build/arm64 build/forks build/sanitize build/container build/venv build/bench-venv build/lint-venv build/package-venv build/wheel-venv build/wheels build/python
