#!/usr/bin/env bash
# Assemble the model repository that Triton serves in a container.
#
#   build_engines.sh tensorrt    SOURCE TARGET   compile every model.onnx for this machine's GPU
#   build_engines.sh onnxruntime SOURCE TARGET   copy every model.onnx (CPU)
#
# SOURCE is this folder; Triton serves TARGET/served. Does nothing if TARGET/served was built from
# the same networks, configurations, compiler and GPU. A TensorRT engine runs only on the GPU and
# with the TensorRT release for which it was built.
set -euo pipefail

if [[ $# -ne 3 || ! $1 =~ ^(tensorrt|onnxruntime)$ ]]; then
  echo "usage: build_engines.sh tensorrt|onnxruntime SOURCE TARGET" >&2
  exit 2
fi
backend=$1 source=$2 target=$3

# Batch sizes of the engines: smallest, optimised for, largest (max_batch_size).
declare -Ar input=([rating]=crops [severity]=volume)
declare -Ar shape=([rating]=1x112x86 [severity]=1x16x512x512)
declare -Ar smallest=([rating]=1 [severity]=1)
declare -Ar fastest=([rating]=6 [severity]=1)
declare -Ar largest=([rating]=48 [severity]=1)

networks=("$source"/*/[0-9]*/model.onnx)
if [[ ! -f ${networks[0]} ]]; then
  echo "No model with a version and a model.onnx in $source." >&2
  exit 1
fi

if [[ $backend == tensorrt ]]; then
  config=config.pbtxt
  compiler=$(trtexec --help | sed -n 1p)
  device=$(nvidia-smi --query-gpu=name,compute_cap --format=csv,noheader)
else
  config=config.onnx.pbtxt
  compiler=none device=cpu
fi
fingerprint=$(
  cat "$0" "$source"/*/"$config" "${networks[@]}" | sha256sum
  echo "$backend / $compiler / $device"
)
if [[ -d $target/served && $(cat "$target/fingerprint" 2>/dev/null) == "$fingerprint" ]]; then
  echo "The $backend repository is up to date."
  exit 0
fi

rm -rf "$target/building"
for network in "${networks[@]}"; do
  version=$(basename "$(dirname "$network")")
  model=$(basename "$(dirname "$(dirname "$network")")")
  folder=$target/building/$model
  mkdir -p "$folder/$version"
  if [[ $backend == tensorrt ]]; then
    tensor=${input[$model]}:
    trtexec --onnx="$network" --saveEngine="$folder/$version/model.plan" --fp16 --skipInference \
      --minShapes="$tensor${smallest[$model]}x${shape[$model]}" \
      --optShapes="$tensor${fastest[$model]}x${shape[$model]}" \
      --maxShapes="$tensor${largest[$model]}x${shape[$model]}" \
      --timingCacheFile="$target/timing.cache"
  else
    cp "$network" "$folder/$version/model.onnx"
  fi
  [[ -f $folder/config.pbtxt ]] || cp "$source/$model/$config" "$folder/config.pbtxt"
  # The worker compares this with model.json on every call: see README.md.
  printf 'parameters { key: "weights_sha256.%s" value { string_value: "%s" } }\n' \
    "$version" "$(sha256sum "$network" | cut -d' ' -f1)" >>"$folder/config.pbtxt"
done
rm -rf "$target/served"
mv "$target/building" "$target/served"
echo "$fingerprint" >"$target/fingerprint"
echo "The $backend repository is built."
