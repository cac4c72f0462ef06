#!/usr/bin/env bash
# Installs the loaders headrace is measured against, each family into an environment of its own: benchmarks/.peers/NAME.
#   benchmarks/install_peers.sh [NAME...]      names: torch torchvision albumentations formats fsspec datasets tensorflow dali tokens ffcv (default: all)
#   PYTHON=python3.12 benchmarks/install_peers.sh
# What is already there and imports is left alone. About 12 GB of disk for all of them.
set -euo pipefail

PYTHON=${PYTHON:-python3}
PEERS=$(cd "$(dirname "$0")" && pwd)/.peers

# What to install, and the imports that show it works.
describe() {
    built=
    case $1 in
    # Held at this release, for which a build without CUDA may be at hand; newer ones bring gigabytes that are not used.
    # cloudpickle: what headrace itself needs, which runs in there too (process_workers.py).
    torch) packages="torch==2.13.0 numpy pillow opencv-python-headless cloudpickle" imports="torch, numpy, PIL, cv2, cloudpickle" ;;
    # Apart from torch: it loads only beside the very build of torch it was made for, which may be the one with CUDA.
    # webdataset reads shards, with the transforms of torchvision.
    # cloudpickle: as above, for headrace_image_folder.py and headrace_native_folder.py.
    torchvision) packages="torchvision webdataset numpy cloudpickle"
                 imports="torchvision.io, torchvision.transforms.v2, webdataset, numpy, cloudpickle" ;;
    albumentations) packages="torch==2.13.0 albumentations numpy" imports="torch, albumentations, numpy" ;;
    # The readers and writers of shards, beside one torch.
    formats) packages="torchvision webdataset mosaicml-streaming litdata numpy pillow"
             imports="torchvision.io, torchvision.transforms.v2, webdataset, streaming, litdata, numpy, PIL" ;;
    # Apart from them: s3fs and litdata need different releases of botocore.
    fsspec) packages="torchvision s3fs numpy" imports="torchvision.io, torchvision.transforms.v2, s3fs, numpy" ;;
    # Apart from them too: mosaicml-streaming holds libraries at releases that are too old for it.
    datasets) packages="torchvision datasets numpy" imports="torchvision.io, torchvision.transforms.v2, datasets, numpy" ;;
    tensorflow) packages="tensorflow-cpu numpy" imports="tensorflow, numpy" ;;
    # Megatron-core's datasets, beside which benchmarks/tokens.py reads the same tokens.
    tokens) packages="torch==2.13.0 numpy megatron-core" imports="torch, megatron.core.datasets.gpt_dataset" ;;
    # Made for CUDA, and runs on a machine without it when every operator is on the CPU.
    dali) packages="nvidia-dali-cuda120 numpy" imports="nvidia.dali, numpy" ;;
    # Compiled here: needs a C++ compiler, pkg-config, and the headers of OpenCV and libjpeg-turbo (Debian: libopencv-dev,
    # libturbojpeg0-dev). Its own list of packages asks for more than is imported.
    ffcv) packages="torch torchvision numpy<2.3 numba opencv-python-headless setuptools wheel tqdm psutil pandas assertpy fastargs terminaltables imgcat pytorch-pfn-extras"
          built="ffcv==1.0.2" imports="torch, ffcv" ;;
    *) echo "no peer called '$1'; there are: torch torchvision albumentations formats fsspec datasets tensorflow dali tokens ffcv" >&2; exit 2 ;;
    esac
}

works() { [ -x "$1/bin/python" ] && "$1/bin/python" -c "import $2" >/dev/null 2>&1; }

names=("$@")
[ $# -gt 0 ] || names=(torch torchvision albumentations formats fsspec datasets tensorflow dali tokens ffcv)
for name in "${names[@]}"; do describe "$name"; done

mkdir -p "$PEERS"
good=() bad=()
for name in "${names[@]}"; do
    describe "$name"
    home=$PEERS/$name
    if works "$home" "$imports"; then
        echo "$name: already there"
        good+=("$name")
        continue
    fi
    echo "$name: installing $packages"
    rm -rf "$home"
    # shellcheck disable=SC2086  # several packages in one string
    if "$PYTHON" -m venv "$home" && "$home/bin/pip" install --quiet $packages &&
        { [ -z "$built" ] || "$home/bin/pip" install --quiet --no-build-isolation --no-deps "$built"; } && works "$home" "$imports"; then
        good+=("$name")
    else
        # Half an environment would look installed to the benchmark.
        rm -rf "$home"
        bad+=("$name")
    fi
done

echo "ready: ${good[*]:-none}"
if [ ${#bad[@]} -gt 0 ]; then
    echo "could not be installed or imported, so the benchmark goes without: ${bad[*]}" >&2
fi
[ ${#good[@]} -gt 0 ]
