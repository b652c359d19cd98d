#!/usr/bin/env bash
# The native engine's own tests, in a build that watches memory and in one that watches threads. Ends at the first fault.
# Usage: native/sanitize.sh PYTHON, whose environment has nanobind, cmake or a system's, and the packages of the tests.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=$1
nanobind=$("$python" -m nanobind --cmake_dir)
for kind in address thread; do
    build=build/sanitize-$kind
    cmake -S native -B "$build" -DGPT2KIT_SANITIZE=$kind -Dnanobind_DIR="$nanobind" -DPython_EXECUTABLE="$python" >/dev/null
    cmake --build "$build" --parallel >/dev/null
    echo "== $kind"
    # Python itself keeps memory until it ends: no report of leaks. -s lets the report of a fault through.
    # numpy's own threads were not compiled to be watched.
    env LD_PRELOAD="$(g++ -print-file-name=lib${kind:0:1}san.so) $(g++ -print-file-name=libstdc++.so.6)" GPT2KIT_NATIVE="$(ls "$build"/_native*.so)" \
        ASAN_OPTIONS=detect_leaks=0 TSAN_OPTIONS=halt_on_error=1 OPENBLAS_NUM_THREADS=1 \
        "$python" -m pytest -sq -p no:cacheprovider tests/native
done
