#!/usr/bin/env bash
# All that is to be shown on a GPU, in under ten minutes: tests, compute-sanitizer, examples,
# benchmark. Run from the repository's root, with PyTorch and
# fastnn installed from this checkout: pip install '.[cuda13,test]'
#
#     PYTHON=.venv/bin/python benchmarks/gpu_session.sh
#
# Writes benchmarks/results/gpu.json and gpu-session.txt (and copies them to $OUT, if that is set).
# Every part has its own time limit; one that fails does not keep the others from running.
set -uo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python}
LOG=benchmarks/results/gpu-session.txt
# the cache of compiled kernels may be filled beforehand, on a machine without a GPU:
#     FASTNN_CACHE=.cache-gpu python -m fastnn warmup --device cuda --capability 9.0
export FASTNN_CACHE=${FASTNN_CACHE:-$PWD/.cache-gpu}
mkdir -p benchmarks/results
: >"$LOG"
failed=()

part() { # name, seconds, command...
  local name=$1 limit=$2 start=$SECONDS status
  shift 2
  echo "== $name: $*" | tee -a "$LOG"
  timeout --signal=INT --kill-after=5 "$limit" "$@" >"$LOG.part" 2>&1
  status=$?
  tail -n 60 "$LOG.part" | tee -a "$LOG"
  echo "== $name: exit $status after $((SECONDS - start)) s" | tee -a "$LOG"
  [ "$status" -eq 0 ] || failed+=("$name ($status)")
}

sanitize() { # tool, tests...
  local tool=$1
  shift
  command -v compute-sanitizer >/dev/null || { echo "compute-sanitizer is not installed"; return 3; }
  compute-sanitizer --tool "$tool" --error-exitcode 9 --launch-timeout 0 \
    "$PYTHON" -m pytest -q -x -p no:cacheprovider "$@"
}
export -f sanitize
export PYTHON

part versions 20 nvidia-smi
part info 20 "$PYTHON" -m fastnn info
part compile 60 "$PYTHON" -m fastnn warmup --device cuda
part kernels 60 "$PYTHON" -m pytest -q -p no:cacheprovider tests/kernels/cuda
part runtime 30 "$PYTHON" -m pytest -q -p no:cacheprovider tests/cuda
# every test that trains with device="auto" trains on the GPU then
part trainings 50 env FASTNN_DEVICE=cuda "$PYTHON" -m pytest -q -p no:cacheprovider \
  tests/nn tests/optim tests/train/test_trainer.py tests/train/test_checkpoint.py
part memcheck 50 bash -c 'sanitize memcheck tests/kernels/cuda -k "float32 and not large"'
part racecheck 35 bash -c 'sanitize racecheck tests/kernels/cuda/test_matmul.py tests/kernels/cuda/test_softmax.py -k float32'
part digits 30 "$PYTHON" examples/gpu_digits_mlp.py --device cuda --epochs 10 --check
part char-lm 45 "$PYTHON" examples/gpu_char_lm.py --device cuda --epochs 1 --characters 40000 --check
part spoken-digits 45 "$PYTHON" examples/gpu_spoken_digits.py --device cuda --epochs 2 --recordings 400 --check
part benchmark 130 "$PYTHON" -m benchmarks.gpu --turns 10 --budget 0.25

rm -f "$LOG.part"
echo "== $SECONDS s in all; failed: ${failed[*]:-nothing}" | tee -a "$LOG"
if [ -n "${OUT:-}" ]; then cp benchmarks/results/gpu*.json "$LOG" "$OUT"/ 2>/dev/null; fi
[ "${#failed[@]}" -eq 0 ]
