// Prints a number for all that each inner loop makes of the same images. Compiled for two processors, or run with two
// instruction sets, it must print the same: `make neon` compares them.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include "changes/planes.hpp"
#include "changes/resample.hpp"
#include "color/line_writer.hpp"
#include "geometry/scale.hpp"

using namespace headrace;

static std::mt19937_64 dice(7);

static std::vector<std::uint8_t> noise(std::size_t count) {
  std::vector<std::uint8_t> bytes(count + slack);
  for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(dice() >> 32);
  return bytes;
}

// From 0 to 1, by integers: the distributions of the standard library differ.
static double share() { return static_cast<double>(dice() % 65536) / 65536.0; }

struct Digest {
  std::uint64_t value = 14695981039346656037U;
  void add(const void* data, std::size_t size) {
    const auto* const bytes = static_cast<const std::uint8_t*>(data);
    for (std::size_t i = 0; i < size; ++i) value = (value ^ bytes[i]) * 1099511628211U;
  }
};

static Op drawn(Change::Kind kind, int height, int width, int channels) {
  switch (kind) {
    case Change::brightness:
    case Change::torch_contrast:
    case Change::torch_saturation:
    case Change::contrast:
      return {kind, {3 * share()}};
    case Change::saturation:
    case Change::sharpness:
      return {kind, {4 * share() - 1}};
    case Change::hue:
      return {kind, {8 * share() - 4}};
    case Change::torch_hue:
      return {kind, {share() - 0.5}};
    case Change::pillow_hue:
      return {kind, {static_cast<double>(dice() % 256)}};
    case Change::pillow_warp: {
      Op op{kind, {65536 * share(), 9999 * share(), 65536 * width * (share() - 0.5), 9999 * share(), 65536 * share(), 0}};
      op.numbers.insert(op.numbers.end(), static_cast<std::size_t>(channels), 9);
      return op;
    }
    case Change::solarize:
      return {kind, {256 * share()}};
    case Change::posterize:
      return {kind, {static_cast<double>(dice() % 9)}};
    case Change::channels:
      return channels == 3 ? Op{kind, {2, 0, 1}} : channels == 4 ? Op{kind, {2, 0, 1, 3}} : Op{kind, {0}};
    case Change::blur:
      return {kind, {1.0 + 2 * static_cast<double>(dice() % 12), 1.0 + 2 * static_cast<double>(dice() % 12), 0.1 + 4 * share()}};
    case Change::warp: {
      const bool flat = dice() % 2 == 0;
      Op op{kind, {share() + 0.5, share() - 0.5, width * (share() - 0.5), share() - 0.5, share() + 0.5, height * (share() - 0.5),
                   flat ? 0 : share() / 99, flat ? 0 : share() / 99, 1, static_cast<double>(dice() % 2)}};
      op.numbers.insert(op.numbers.end(), static_cast<std::size_t>(channels), 9);
      return op;
    }
    default:
      return {kind, {}};
  }
}

static void changes(const RowOps& ops) {
  for (int kind = 0; kind <= Change::pillow_warp; ++kind) {
    Digest digest;
    ChangeBuffers buffers;
    for (int round = 0; round < 60; ++round) {
      const int channels = round % 3 == 0 ? 1 : round % 3 == 1 ? 3 : 4;
      const int height = 1 + static_cast<int>(dice() % 50), width = 1 + static_cast<int>(dice() % 90);
      std::vector<std::uint8_t> image = noise(static_cast<std::size_t>(height * width * channels));
      Planes planes(ops, {height, width, channels}, buffers);
      planes.split(image.data());
      planes.run({drawn(static_cast<Change::Kind>(kind), height, width, channels)});
      planes.merge(image.data());
      digest.add(image.data(), static_cast<std::size_t>(height * width * channels));
    }
    std::printf("change %d: %016llx\n", kind, static_cast<unsigned long long>(digest.value));
  }
}

static void maps(const RowOps& ops) {
  Digest digest;
  ResampleBuffers buffers;
  for (int round = 0; round < 200; ++round) {
    const int channels = 1 + round % 4, height = 1 + static_cast<int>(dice() % 60), width = 1 + static_cast<int>(dice() % 99);
    const std::vector<std::uint8_t> image = noise(static_cast<std::size_t>(height * width * channels));
    std::vector<std::vector<double>> numbers;
    for (int part = 0; part <= round % 3; ++part) numbers.push_back(drawn(Change::warp, height, width, channels).numbers);
    const std::uint8_t fill[] = {1, 2, 3, 4};
    std::vector<WarpPart> parts;
    for (const std::vector<double>& one : numbers) parts.push_back({one.data(), height, width, height, width, fill});
    const Box window{static_cast<int>(dice() % 9) - 4, static_cast<int>(dice() % 9) - 4, height + 3, width + 2};
    const std::size_t plane = static_cast<std::size_t>(window.height * window.width);
    std::vector<std::uint8_t> out(plane * static_cast<std::size_t>(channels));
    const Pixels pixels{image.data(), height, width, channels};
    Resampler(ops, parts, false, window, round % 2 == 0, fill, buffers).planes(pixels, out.data(), plane);
    digest.add(out.data(), out.size());
    Resampler(ops, parts, true, window, round % 2 == 0, fill, buffers).nearest_pixels(pixels, out.data());
    digest.add(out.data(), out.size());
  }
  std::printf("maps: %016llx\n", static_cast<unsigned long long>(digest.value));
}

// Scaled images as bytes and as normalized floats, in both layouts.
static void rows(const RowOps& ops) {
  Digest bytes, floats;
  for (int round = 0; round < 300; ++round) {
    const int channels = round % 3 == 0 ? 1 : round % 3 == 1 ? 3 : 4;
    const int height = 1 + static_cast<int>(dice() % 80), width = 1 + static_cast<int>(dice() % 80);
    const std::vector<std::uint8_t> image = noise(static_cast<std::size_t>(height * width * channels));
    Recipe recipe;
    RowFormat& row = recipe.row;
    row.height = 1 + static_cast<int>(dice() % 60), row.width = 1 + static_cast<int>(dice() % 60);
    row.channels_first = round % 2 == 0, row.ops = &ops, row.values.channels = channels;
    recipe.filter = static_cast<Filter>(round % 5);
    const bool normalized = round % 4 > 1;
    if (normalized && !ops.exact) continue;  // values are looked up there
    if (normalized) {
      row.values.itemsize = 4, row.values.computed = true;
      row.values.table.assign(static_cast<std::size_t>(channels) * 256 * 4, 0);
      for (int c = 0; c < channels; ++c) row.values.mean[c] = 0.4F + 0.02F * c, row.values.std[c] = 0.2F + 0.01F * c;
    }
    const Geometry geometry{{0, 0, height, width}, row.height, row.width, {0, 0, row.height, row.width}, round % 3 == 0};
    const View view{geometry.source, 0, 0, static_cast<double>(height), static_cast<double>(width)};
    std::vector<std::uint8_t> out(row.bytes() + slack);
    Buffer planes, line;
    ScaleBuffers buffers;
    const Pixels pixels{image.data(), height, width, channels};
    PixelLines lines(pixels, line);
    LineWriter writer(row, planes, out.data());
    if (!Scaler(recipe, geometry, view, buffers, writer).run(lines)) return;
    (normalized ? floats : bytes).add(out.data(), row.bytes());
  }
  std::printf("scaled: %016llx\n", static_cast<unsigned long long>(bytes.value));
  if (ops.exact) std::printf("normalized: %016llx\n", static_cast<unsigned long long>(floats.value));
}

int main(int argc, char** argv) {
  const RowOps& ops = row_ops_of(argc > 1 ? argv[1] : "");
  std::setvbuf(stdout, nullptr, _IOLBF, 1 << 12);
  std::fprintf(stderr, "%s instructions\n", ops.name);
  changes(ops), maps(ops), rows(ops);
  return 0;
}
