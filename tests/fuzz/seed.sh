#!/usr/bin/env bash
# Seeds of the corpora: the checkpoints beside this script, pickles behind an empty configuration, and small models.
set -euo pipefail
cd "$(dirname "$0")/../.."
mkdir -p tests/fuzz/corpus/importer
cp tests/fuzz/seeds/importer/* tests/fuzz/corpus/importer/
for pickle in tests/goldens/pickles/* tests/goldens/class_channels/*.pt tests/goldens/edm/*.pkl; do
  { printf '{}\0\0' && cat "$pickle"; } >"tests/fuzz/corpus/importer/pickle-$(basename "$pickle")"
done
cargo run --quiet --manifest-path tests/fuzz/Cargo.toml --no-default-features --bin seeds -- tests/fuzz/corpus/model
ls -l tests/fuzz/corpus/model
