#!/usr/bin/env bash
# Everything that needs a GPU, in one call of less than eight minutes:
#
#     bash scripts/gpu_check.sh FOLDER [WEIGHTS]
#
# measures 16,384 formulas at 32x32 with the embedded network, 4,096 at 224x224 with SqueezeNet 1.1
# where its WEIGHTS are given, gradient ascent on 64 formulas at 224x224, populations from 1,024 to
# 65,536, and runs the whole test suite on the GPU. FOLDER gets the figures (JSON), their plots, the
# tests' report and a log of each part.
# Parts that take too long are stopped and said so; their figures up to there are kept.
#
# Nothing is fetched. From the environment:
#   PYTHON    the Python that has JAX; by default `python`
#   WHEELS    a folder of wheels (*.whl) with what that Python lacks, used for this call only
#   FORMULAS  formulas to measure with, in place of random ones
#   LIMIT     seconds in all; by default 470
#
# Exit status: 0, 1 where a part failed, 2 where nothing could be done.
set -uo pipefail

readonly limit=${LIMIT:-470}
readonly root=$(cd "$(dirname "$0")/.." && pwd)
readonly python=${PYTHON:-$(command -v python || command -v python3 || echo python)}
SECONDS=0
failed=0

give_up() {
  echo "gpu_check: $1" >&2
  exit 2
}

# part NAME SECONDS COMMAND...: runs it for so long at most, its output going to FOLDER/NAME.log.
part() {
  local name=$1 seconds=$2 left=$((limit - SECONDS)) status=0 started=$SECONDS
  shift 2
  seconds=$((seconds < left ? seconds : left))
  if [ "$seconds" -lt 10 ]; then
    echo "$name: left out, no time is left"
    failed=1
    return
  fi
  timeout --kill-after=5 "$seconds" "$@" >"$folder/$name.log" 2>&1 || status=$?
  case $status in
    0) echo "$name: done in $((SECONDS - started)) s" ;;
    124 | 137) echo "$name: stopped after $seconds s" && failed=1 ;;
    *) echo "$name: failed with status $status: $(tail -n 1 "$folder/$name.log")" && failed=1 ;;
  esac
}

[ $# -ge 1 ] && [ $# -le 2 ] || give_up "usage: bash scripts/gpu_check.sh FOLDER [WEIGHTS]"
[ -z "${2:-}" ] || [ -r "$2" ] || give_up "cannot read weights $2"
[ -z "${FORMULAS:-}" ] || [ -r "$FORMULAS" ] || give_up "cannot read formulas $FORMULAS"

platform=$(timeout 60 "$python" -c 'import jax; print(jax.default_backend())' 2>/dev/null) ||
  give_up "$python cannot use JAX; name another Python with PYTHON"
[ "$platform" = gpu ] || give_up "JAX sees no GPU, it runs on $platform; nothing was measured"
mkdir -p "$1" 2>/dev/null && [ -w "$1" ] || give_up "cannot write folder $1"
readonly folder=$(cd "$1" && pwd) weights=${2:+$(realpath "$2")}
readonly formulas=${FORMULAS:+$(realpath "$FORMULAS")}

export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
if [ -n "${WHEELS:-}" ]; then
  extra=$(mktemp -d)
  trap 'rm -rf "$extra"' EXIT
  timeout 60 "$python" -m pip install --quiet --no-index --no-deps --target "$extra" \
    "$WHEELS"/*.whl >"$folder/wheels.log" 2>&1 || give_up "cannot install the wheels of $WHEELS"
  PYTHONPATH=$PYTHONPATH:$extra
fi
lacking=$("$python" -c '
from importlib.metadata import version
import pytest, evojax_art.cli
version("evojax-art")' 2>&1) || give_up "$python lacks a package: $(tail -n 1 <<<"$lacking")"

processes=$(nproc)
processes=$((processes < 14 ? processes : 14)) # each takes half a gigabyte of the GPU
cd "$root" || give_up "cannot enter $root"
nvidia-smi >"$folder/nvidia-smi.log" 2>&1
given=(--max-seconds 5 ${formulas:+--formulas "$formulas"})
benchmark=("$python" scripts/benchmark.py "${given[@]}")

part rows32 110 "${benchmark[@]}" --population 16384 --size 32 \
  --json "$folder/rows32.json" --plot "$folder/rows32.png"
large=(${weights:+--net squeezenet1_1 --weights "$weights" --dtype bfloat16})
part rows224 110 "${benchmark[@]}" "${large[@]}" --population 4096 --size 224 \
  --json "$folder/rows224.json" --plot "$folder/rows224.png"
part polish 60 "${benchmark[@]}" "${large[@]}" --no-rows --polish --population 1024 --size 224 \
  --json "$folder/polish.json"
part sweep 110 "${benchmark[@]}" --no-rows --population 1024 --size 32 --sweep population \
  --populations 1024 4096 16384 65536 --json "$folder/sweep.json" --plot "$folder/sweep.png"
# pytest-benchmark, where it is there, warns of being of no use beside pytest-xdist.
part suite 460 "$python" -m pytest -m gpu -p no:benchmark --continue-on-collection-errors \
  --numprocesses "$processes" --verbose --junitxml "$folder/junit.xml"

echo "results: $folder"
exit "$failed"
