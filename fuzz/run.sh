#!/usr/bin/env bash
# Builds every fuzz target and runs each for SECONDS (or those that are named): fuzz/run.sh SECONDS [TARGET...]
# The compiler is the one that builds the product. AddressSanitizer, which its libraries written in C's manner need, is an unstable
# flag of it, hence RUSTC_BOOTSTRAP. `cargo +nightly fuzz run TARGET fuzz/seeds/TARGET` does the same with cargo-fuzz.
set -euo pipefail
cd "$(dirname "$0")"
seconds=${1:?usage: fuzz/run.sh SECONDS [TARGET...]}
shift
targets=("$@")
if ((${#targets[@]} == 0)); then
    for file in fuzz_targets/*.rs; do targets+=("$(basename "$file" .rs)"); done
fi
host=$(rustc -vV | sed -n 's/^host: //p')
coverage=(-level=4 -inline-8bit-counters -pc-table -trace-compares -stack-depth)
export RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module"
for flag in "${coverage[@]}"; do RUSTFLAGS+=" -Cllvm-args=-sanitizer-coverage$flag"; done
RUSTFLAGS+=" -Zsanitizer=address"
cargo build --locked --release --bins --target "$host"

scratch=$(mktemp -d)
found=0
for target in "${targets[@]}"; do
    mkdir -p "$scratch/$target" "artifacts/$target" "regressions/$target"
    # The search for leaks takes ptrace(2), which containers refuse; what leaks much meets the limit on memory.
    options=(-max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -malloc_limit_mb=64 -detect_leaks=0 -max_len=32768 -print_final_stats=1)
    if [[ $target == task || $target == runner ]]; then options+=(-dict=dictionaries/yaml.dict); fi
    if [[ $target =~ ^(properties|footer|job)$ ]]; then options+=(-dict=dictionaries/json.dict); fi
    if ! "$CARGO_TARGET_DIR/$host/release/$target" "${options[@]}" -artifact_prefix="artifacts/$target/" \
        "$scratch/$target" "seeds/$target" "regressions/$target" >"$scratch/$target.log" 2>&1; then
        tail -n 40 "$scratch/$target.log"
        echo "FOUND by $target: fix it, and keep the input: mv fuzz/artifacts/$target/NAME fuzz/regressions/$target/WHAT-IT-IS"
        found=1
    fi
    echo "$target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$scratch/$target.log") executions in at most $seconds s"
done
rm -rf "$scratch"
exit "$found"
