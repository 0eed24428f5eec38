#!/usr/bin/env bash
# Seeds of the corpora: the checkpoints beside this script, pickles behind an empty configuration, and the smallest models in
# every precision, resident and streamed.
set -euo pipefail
cd "$(dirname "$0")/../.."
mkdir -p tests/fuzz/corpus/importer
cp tests/fuzz/seeds/importer/* tests/fuzz/corpus/importer/
for pickle in tests/goldens/pickles/*; do
  { printf '{}\0\0' && cat "$pickle"; } >"tests/fuzz/corpus/importer/pickle-$(basename "$pickle")"
done
corpus=tests/fuzz/corpus/model
mkdir -p "$corpus" target/tiny
cargo run --quiet --release -p waft-tests --example tiny_checkpoint -- target/tiny
for precision in i8:2000 f16:4000 f32:8000; do
  export="cargo xtask export-weights target/tiny --precision ${precision%:*} --steps 2 --calib 1 --eta 0.5 --json"
  $export --out "$corpus/${precision%:*}" >/dev/null
  $export --out target/tiny/streamed.waft --stream "${precision#*:}" >/dev/null
  cat target/tiny/streamed.waft target/tiny/streamed.weights >"$corpus/${precision%:*}-streamed"
done
cargo xtask export-weights target/tiny --weights i4 --steps 2 --calib 1 --json --out "$corpus/i4" >/dev/null
cargo xtask export-weights target/tiny --step-scales true --residual i8 --steps 2 --calib 1 --json --out "$corpus/step-scales" \
  >/dev/null
ls -l "$corpus"
