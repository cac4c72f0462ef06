#!/bin/sh
# Builds libjpeg-turbo as a static library that can be linked into an extension (a distribution's often cannot), for
# wheels. It takes cmake, a C compiler, curl, and on x86 nasm, without which it would be slow.
#   libjpeg-turbo.sh PREFIX [SOURCES.tar.gz]       where to; sources that are here already instead of a download
set -eu
VERSION=3.1.3
SHA256=075920b826834ac4ddf97661cc73491047855859affd671d52079c6867c1c6c0
HOME_OF_IT=https://github.com/libjpeg-turbo/libjpeg-turbo/releases/download

mkdir -p "$1"
prefix=$(cd "$1" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [ $# -gt 1 ]; then
  cp "$2" "$work/sources.tar.gz"
else
  curl --fail --silent --show-error --location --output "$work/sources.tar.gz" \
    "$HOME_OF_IT/$VERSION/libjpeg-turbo-$VERSION.tar.gz"
  if command -v sha256sum >/dev/null; then sum="sha256sum"; else sum="shasum -a 256"; fi
  echo "$SHA256  $work/sources.tar.gz" | $sum --check --status || { echo "not the sources that were expected" >&2; exit 1; }
fi
mkdir "$work/sources"
tar -xzf "$work/sources.tar.gz" -C "$work/sources" --strip-components=1
cmake -S "$work/sources" -B "$work/build" -DCMAKE_BUILD_TYPE=Release -DCMAKE_POSITION_INDEPENDENT_CODE=ON \
  -DENABLE_SHARED=OFF -DWITH_TURBOJPEG=OFF -DREQUIRE_SIMD=ON -DCMAKE_INSTALL_PREFIX="$prefix" \
  -DCMAKE_INSTALL_LIBDIR="$prefix/lib" -DCMAKE_POLICY_VERSION_MINIMUM=3.5
cmake --build "$work/build" --parallel 2
cmake --install "$work/build"
