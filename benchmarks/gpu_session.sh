#!/usr/bin/env bash
# All that is to be shown on a GPU, in under ten minutes, from a checkout and without a network.
#
#     make wheels                            # on a machine with a network: fills the folder wheels/
#     benchmarks/gpu_session.sh              # on the machine with the GPU
#     benchmarks/gpu_session.sh --only benchmark
#
# Wheels are for the Python that collected them (make wheels PYTHON=python3.12), and for its kind of
# machine. Where the folder WHEELS (wheels/, if it is not set) is there, a virtual environment is made
# of it in VENV (.venv-gpu); otherwise PYTHON has to have everything: pip install -e '.[cuda13,test]' torch.
#
# Where PYTHON has PyTorch, numba-cuda and pytest already, they need not be carried:
#     SYSTEM=1 benchmarks/gpu_session.sh
# makes an environment that sees PYTHON's packages and, before them, all that lies in WHEELS: what is
# missing there, or has to be of another version (numba-cuda needs a NumPy before 2.5).
#
# Examples and tests read FASTNN_DATA; without it those that need the data fail, or skip themselves.
# What is run, in which order and for how long at most is in benchmarks/gpu_session.py, which takes
# this script's arguments. Results: benchmarks/results/gpu*.json and gpu-session.txt, copied to $OUT
# as they come, if that is set.
#
# The cache of compiled kernels may be filled beforehand, on a machine without a GPU:
#     FASTNN_CACHE=$PWD/.cache-gpu python -m fastnn warmup --device cuda --capability 9.0
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
WHEELS=${WHEELS:-wheels}
export FASTNN_BUILD_TARGETS=  # no kernels for the CPU are compiled by the installation
VENV=${VENV:-.venv-gpu}
if [ -n "${SYSTEM:-}" ]; then
  if [ ! -e "$VENV/.done" ]; then
    "$PYTHON" -m venv --clear --without-pip "$VENV"
    theirs=$("$PYTHON" -c 'import site; print(*site.getsitepackages(), sep="\n")')
    own=$("$VENV/bin/python" -c 'import site; print(site.getsitepackages()[0])')
    while read -r folder; do
      echo "import site; site.addsitedir('$folder')"
    done <<<"$theirs" >"$own/system.pth"
    install() { "$PYTHON" -m pip --python "$VENV/bin/python" install --quiet --no-index --no-deps "$@"; }
    for wheel in "$WHEELS"/*.whl; do
      [ ! -e "$wheel" ] || install --ignore-installed "$wheel"
    done
    # NVIDIA's libraries are looked for in an environment's own folder alone; what WHEELS brought stays
    while read -r folder; do
      [ ! -d "$folder/nvidia" ] || cp -rsn "$folder/nvidia" "$own/" || true
    done <<<"$theirs"
    install --ignore-installed --no-build-isolation --editable .
    touch "$VENV/.done"
  fi
  PYTHON=$VENV/bin/python
elif [ -d "$WHEELS" ]; then
  if [ ! -e "$VENV/.done" ]; then
    "$PYTHON" -m venv --clear "$VENV"
    "$VENV/bin/python" -m pip install --quiet --no-index --find-links "$WHEELS" setuptools wheel
    "$VENV/bin/python" -m pip install --quiet --no-index --find-links "$WHEELS" \
      --no-build-isolation --editable '.[cuda13,test]' torch
    # the sanitizer's package is there for some platforms only
    "$VENV/bin/python" -m pip install --quiet --no-index --find-links "$WHEELS" \
      nvidia-cuda-sanitizer-api || echo "no wheel of compute-sanitizer: the machine's is used"
    touch "$VENV/.done"
  fi
  PYTHON=$VENV/bin/python
fi
# a toolkit beside its compiler: the last place where its libraries are looked for
if [ -z "${CUDA_HOME:-}${CUDA_PATH:-}" ] && nvcc=$(command -v nvcc); then
  CUDA_HOME=$(dirname "$(dirname "$(readlink -f "$nvcc")")")
  export CUDA_HOME
fi
export FASTNN_CACHE=${FASTNN_CACHE:-$PWD/.cache-gpu}
export SPENT=$SECONDS
exec "$PYTHON" -m benchmarks.gpu_session "$@"
