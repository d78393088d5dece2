# Caffe with the layer, on the CPU. On Ubuntu: --build-arg BASE=ubuntu:24.04
#
#   docker build --tag caffe-weighted .
#   docker run --rm --volume "$PWD:/work" caffe-weighted train --solver=solver.prototxt
#
# It runs as a user who is not root; --user "$(id -u)" lets it write where only you may.
# --entrypoint weighted-loss runs the tools; --entrypoint python3 has pycaffe.
ARG BASE=debian:12

FROM ${BASE} AS build
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends python3
COPY . /source
WORKDIR /source
RUN python3 scripts/install_packages.py build && python3 scripts/build.py cpu
# The packages of the libraries that it is linked with; their names differ from release to release.
# Where /lib is a link, dpkg does not know libc's own files, which are everywhere.
RUN ldd build/cpu/install/bin/caffe build/cpu/install/python/caffe/_caffe.so \
    | awk '$2 == "=>" && $3 !~ /build\/cpu/ { print $3 }' | sort -u | xargs realpath \
    | xargs dpkg-query --search 2>/dev/null | cut -d: -f1 | sort -u > build/libraries.txt

FROM ${BASE}
COPY --from=build /source/build/libraries.txt /opt/caffe/
# pycaffe's modules, and those that the tools read data sets with
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
       $(cat /opt/caffe/libraries.txt) python3-h5py python3-lmdb python3-numpy python3-protobuf \
       python3-six python3-skimage \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home caffe
COPY --from=build /source/build/cpu/install /opt/caffe
ENV PATH=/opt/caffe/bin:$PATH PYTHONPATH=/opt/caffe/python
USER caffe
WORKDIR /work
ENTRYPOINT ["caffe"]
