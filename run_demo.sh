#!/usr/bin/env bash
# Runs the demo on a cluster of its own; arguments go to the demo. ./run_demo.sh --help lists them.
set -euo pipefail
cd "$(dirname "$0")"
exec cargo run --release --bin demo -- "$@"
