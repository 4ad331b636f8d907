#!/usr/bin/env bash
# All that only a GPU can show, for a machine that may be had for half an hour: checks first, then every GPU row of
# docs/performance.md. Each step has a time limit, a log and JSON of its own, and goes on where another failed.
#
#     benchmarks/on_gpu.sh out/gpu                     # all steps, 35 minutes at most
#     benchmarks/on_gpu.sh out/gpu tests mpi engine    # some of them
#     PYTHON=.venv/bin/python benchmarks/on_gpu.sh out/gpu; DEVICE=cpu benchmarks/on_gpu.sh out/try machine
set -uo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3} device=${DEVICE:-cuda}
[ $# -ge 1 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 2; }
out=$1; shift
[ $# -ge 1 ] || set -- machine tests mpi engine soak training cameras accuracy networks

declare -A seconds=([machine]=60 [tests]=300 [mpi]=180 [engine]=240 [soak]=240 [training]=300 [cameras]=240
    [accuracy]=120 [networks]=420)
every=paper-resnet18,paper-resnet50,paper-resnet18-shared,paper-resnet50-shared,two-stage-resnet18,two-stage-resnet50
every=$every,fast-resnet18,fast-resnet50,fast-mobilenetv2

step() {
    local bench=("$python" "benchmarks/$1.py" --device "$device" --json "$out/$1.json")
    case $1 in
        machine | mpi | training) "${bench[@]}" ;;
        tests) "$python" -m pytest -q -p no:cacheprovider -o addopts="" test/network/test_mpi_triton.py test/inference/test_backends.py \
            test/training/test_augmentation.py test/benchmarks/test_training_benchmark.py test/training/test_train.py -k "gpu or cuda or triton" ;;
        engine) "${bench[@]}" --source 1920x1080,2160x1080 --backends pytorch,compile ;;
        soak) "${bench[@]}" --network fast-resnet18 ;;
        cameras) "$python" benchmarks/engine.py --device "$device" --networks fast-mobilenetv2,fast-resnet18 \
            --precisions float16 --cameras 1,2,4,8 --heights 256,512 --json "$out/cameras.json" ;;
        accuracy) "${bench[@]}" pytorch/float16 pytorch/bfloat16 pytorch/float32 compile/float16 ;;
        networks) "$python" benchmarks/engine.py --device "$device" --networks $every --precisions float32,float16 \
            --heights 256,512 --seconds 1 --rounds 3 --json "$out/networks.json" ;;
        *) echo "no step $1; steps: ${!seconds[*]}"; return 2 ;;
    esac
}
export -f step
export python device out every

mkdir -p "$out"
failed=()
for name in "$@"; do
    echo "== $name"
    timeout "${seconds[$name]:-60}" bash -c "step $name" >"$out/$name.log" 2>&1 || failed+=("$name")
    tail -n 40 "$out/$name.log"
done
[ ${#failed[@]} -eq 0 ] || { echo "failed or out of time: ${failed[*]} (logs in $out)"; exit 1; }
