#!/usr/bin/env bash
# A quarter of an hour with a GPU: prove that its paths are right, measure them, train.
#
#     benchmarks/on_gpu.sh OUT                         # first command, 6 minutes at most: checks, then the tables
#     benchmarks/on_gpu.sh OUT train PACK MINUTES [section.key=value...]   # second: one training run that ends by itself
#     benchmarks/on_gpu.sh OUT mpi engine              # some parts; more: soak training accuracy networks
#     DEVICE=cpu benchmarks/on_gpu.sh out/rehearsal    # the same at small sizes, to see that it runs
#
# PACK is a folder of benchmarks/pack_for_gpu.py. Every part has a log and a JSON in OUT, which grow row by row: what was
# known when time ran out is there. Nothing is installed; PYTHON names the interpreter, LIMIT the seconds of the first
# command. How to read the result: docs/performance.md.
set -uo pipefail
cd "$(dirname "$0")/.."

[ $# -ge 1 ] || { sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 2; }
python=${PYTHON:-python3} device=${DEVICE:-cuda} limit=${LIMIT:-340} out=$1
shift
mkdir -p "$out"
export PYTHONUNBUFFERED=1 PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
began=$SECONDS

# Seconds that each part may take; what one leaves, the next may use, within the limit of all.
declare -A most=([checks]=110 [mpi]=50 [engine]=110 [cameras]=60 [tests]=120
    [soak]=240 [training]=300 [accuracy]=120 [networks]=420)
if [ "$device" = cpu ]; then
    most[engine]=140 most[cameras]=140  # a row is a process that imports PyTorch, on as few cores as CI has
    mpi=(--sizes 32x32x64 --repeats 1) checks=()
    engine=(--networks fast-mobilenetv2 --precisions float32 --source 160x90 --heights 64 --seconds 0.2 --rounds 1)
    cameras=("${engine[@]}")
else
    mpi=() checks=(--seconds 90)
    engine=(--networks fast-resnet18,fast-mobilenetv2 --precisions float16,bfloat16,float32 --seconds 1.5 --rounds 3 --together 3)
    cameras=(--networks fast-resnet18 --precisions float16 --seconds 1 --rounds 2)
fi

every=paper-resnet18,paper-resnet50,paper-resnet18-shared,paper-resnet50-shared,two-stage-resnet18,two-stage-resnet50
every=$every,fast-resnet18,fast-resnet50,fast-mobilenetv2

part() {
    local json=(--json "$out/$1.json" --device "$device")
    case $1 in
        checks) "$python" benchmarks/gpu_checks.py "${json[@]}" "${checks[@]}" ;;
        mpi) "$python" benchmarks/mpi.py "${json[@]}" "${mpi[@]}" ;;
        engine) "$python" benchmarks/engine.py "${json[@]}" "${engine[@]}" ;;
        cameras) "$python" benchmarks/engine.py "${json[@]}" "${cameras[@]}" --cameras 1,2,4,8 ;;
        tests) "$python" -m pytest -q -p no:cacheprovider -o addopts="" -k "gpu or cuda or triton" test/network \
            test/inference test/training ;;
        soak) "$python" benchmarks/soak.py "${json[@]}" --network fast-resnet18 ;;
        training) "$python" benchmarks/training.py "${json[@]}" ;;
        accuracy) "$python" benchmarks/accuracy.py "${json[@]}" pytorch/float16 pytorch/bfloat16 pytorch/float32 ;;
        networks) "$python" benchmarks/engine.py "${json[@]}" --networks "$every" --precisions float32,float16 \
            --heights 256,512 --seconds 1 --rounds 3 ;;
        *) echo "no part $1; parts: ${!most[*]} train"; return 2 ;;
    esac
}

# The functions and arrays above are not known to a command under `timeout`, so a part runs here, watched from aside.
watched() {
    local name=$1 seconds=$2 pid
    set -m
    part "$name" >"$out/$name.log" 2>&1 &
    pid=$!
    set +m
    (sleep "$seconds"; kill -INT -- "-$pid" 2>/dev/null; sleep 5; kill -KILL -- "-$pid" 2>/dev/null) &
    local watch=$!
    wait "$pid"
    local status=$?
    kill "$watch" 2>/dev/null
    wait "$watch" 2>/dev/null
    return $status
}

if [ "${1:-}" = train ]; then
    [ $# -ge 3 ] || { echo "train needs a pack and minutes: $0 $out train out/pack 8"; exit 2; }
    pack=$2 minutes=$3
    shift 3
    [ -d "$pack/site" ] && export PYTHONPATH="$PYTHONPATH:$PWD/$pack/site"
    "$python" training/train.py --config "$pack/train.yaml" output="$out/run" schedule.minutes="$minutes" \
        run.accelerator="$([ "$device" = cpu ] && echo cpu || echo gpu)" "$@" 2>&1 | tee "$out/train.log"
    status=${PIPESTATUS[0]}
    cp "$out/run/model.safetensors" "$out/" 2>/dev/null
    exit "$status"
fi

[ $# -ge 1 ] || set -- checks mpi engine cameras tests
failed=()
for name in "$@"; do
    left=$((limit - (SECONDS - began)))
    [ "$left" -gt 10 ] || { echo "== $name: not started, $limit s are used"; failed+=("$name"); continue; }
    seconds=${most[$name]:-60}
    echo "== $name"
    watched "$name" "$((seconds < left ? seconds : left))" || failed+=("$name")
    tail -n 45 "$out/$name.log"
done
echo "== $((SECONDS - began)) s"
[ ${#failed[@]} -eq 0 ] || { echo "failed or out of time: ${failed[*]} (logs and rows in $out)"; exit 1; }
