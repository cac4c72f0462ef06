#include "change.hpp"

#include <cmath>
#include <cstddef>
#include <utility>

#include "maps.hpp"

namespace headrace {
namespace {

std::size_t one_of(std::size_t count, Philox& random) {
  return static_cast<std::size_t>(random.random() * static_cast<double>(count));
}

double between(double least, double most, Philox& random) { return least + (most - least) * random.random(); }

std::vector<double> shuffled(int count, Philox& random) {
  std::vector<double> order(static_cast<std::size_t>(count));
  for (int i = 0; i < count; ++i) order[static_cast<std::size_t>(i)] = i;
  for (std::size_t i = order.size(); i-- > 1;) std::swap(order[i], order[one_of(i + 1, random)]);
  return order;
}

// A factor or shift as the change of that kind takes it.
Op recolored(int which, double value, double how = 0) {
  constexpr Change::Kind kinds[] = {Change::brightness, Change::contrast, Change::saturation, Change::hue};
  constexpr Change::Kind of_torch[] = {Change::brightness, Change::torch_contrast, Change::torch_saturation, Change::torch_hue};
  if (how == 2) return {of_torch[which], {value}};
  if (which < 3) return {kinds[which], {value}};
  if (how == 1) return {Change::pillow_hue, {static_cast<double>(static_cast<int>(value * 255) & 255)}};
  return {Change::hue, {6 * value}};
}

void draw_jitter(const Change& change, Philox& random, std::vector<Op>& ops) {
  const std::vector<double> order = shuffled(4, random);
  double values[4] = {};
  for (std::size_t i = 0; i < 4; ++i)
    if (change.numbers[3 * i] != 0) values[i] = between(change.numbers[3 * i + 1], change.numbers[3 * i + 2], random);
  for (const double place : order) {
    const int which = static_cast<int>(place);
    if (change.numbers[static_cast<std::size_t>(3 * which)] != 0)
      ops.push_back(recolored(which, values[which], change.numbers[12]));
  }
}

void draw_distort(const Change& change, const ImageSize& size, Philox& random, std::vector<Op>& ops) {
  const double chance = change.numbers[0];
  bool has[4] = {};
  double values[4] = {};
  for (std::size_t i = 0; i < 4; ++i) {
    has[i] = random.random() < chance;
    if (has[i]) values[i] = between(change.numbers[1 + 2 * i], change.numbers[2 + 2 * i], random);
  }
  constexpr int late[] = {0, 2, 3, 1}, early[] = {0, 1, 2, 3};
  for (const int which : random.random() < 0.5 ? early : late)
    if (has[which]) ops.push_back(recolored(which, values[which]));
  if (random.random() < chance) ops.push_back({Change::channels, shuffled(size.channels, random)});
}

void draw_erase(const Change& change, const ImageSize& size, Philox& random, std::vector<Op>& ops) {
  const std::vector<double>& n = change.numbers;
  if (random.random() >= n[0]) return;
  for (int attempt = 0; attempt < 10; ++attempt) {
    const double how_large = random.random(), how_high = random.random();
    const double down = random.random(), across = random.random();
    const double area = static_cast<double>(size.height) * size.width * (n[1] + (n[2] - n[1]) * how_large);
    const double ratio = std::exp(n[3] + (n[4] - n[3]) * how_high);
    const double rows = std::nearbyint(std::sqrt(area * ratio)), columns = std::nearbyint(std::sqrt(area / ratio));
    if (!(rows < size.height && columns < size.width)) continue;
    Op op{Change::erase, {std::trunc(down * (size.height - rows + 1)), std::trunc(across * (size.width - columns + 1))}};
    op.numbers.push_back(rows), op.numbers.push_back(columns);
    op.numbers.insert(op.numbers.end(), n.begin() + 5, n.end());
    ops.push_back(std::move(op));
    return;
  }
}

// A map that was drawn; `rest` is whether it is bilinear, and the fill.
void add_warp(const Matrix& inverse, std::vector<double>::const_iterator rest, const Change& change, std::vector<Op>& ops) {
  Op op{Change::warp, {inverse.begin(), inverse.end()}};
  op.numbers.insert(op.numbers.end(), rest, change.numbers.end());
  ops.push_back(std::move(op));
}

void draw_affine(const Change& change, Philox& random, std::vector<Op>& ops) {
  const std::vector<double>& n = change.numbers;
  Affine affine{n[3], n[4], n[0] * between(n[1], n[2], random), 0, 0, 1, 0, 0};
  if (n[5] != 0) {
    affine.right = std::nearbyint(between(-n[6], n[6], random));
    affine.down = std::nearbyint(between(-n[7], n[7], random));
  }
  if (n[8] != 0) affine.scale = between(n[9], n[10], random);
  if (n[11] > 0) affine.shear_across = between(n[12], n[13], random);
  if (n[11] > 1) affine.shear_down = between(n[14], n[15], random);
  add_warp(inverse_of(affine), n.begin() + 16, change, ops);
}

void draw_perspective(const Change& change, const ImageSize& size, Philox& random, std::vector<Op>& ops) {
  const std::vector<double>& n = change.numbers;
  if (random.random() >= n[0]) return;
  double corners[4][2];
  for (int corner = 0; corner < 4; ++corner) {
    const double right = std::trunc(random.random() * n[1]), down = std::trunc(random.random() * n[2]);
    corners[corner][0] = corner == 1 || corner == 2 ? size.width - 1 - right : right;
    corners[corner][1] = corner > 1 ? size.height - 1 - down : down;
  }
  Matrix inverse;
  if (inverse_of_corners(size.height, size.width, corners, inverse)) add_warp(inverse, n.begin() + 3, change, ops);
}

const Change* weighted(const Change& change, Philox& random) {
  double at = random.random() * change.numbers[0];
  const Change* last = nullptr;
  for (std::size_t i = 0; i < change.parts.size(); ++i) {
    const double weight = change.numbers[i + 1];
    at -= weight;
    if (weight != 0) last = &change.parts[i];
    if (at < 0) return &change.parts[i];
  }
  return last;
}

void draw_joined(const Change& change, const ImageSize& size, Philox& random, std::vector<Op>& ops) {
  const std::size_t before = ops.size();
  for (const Change& part : change.parts) draw(part, size, random, ops);
  for (std::size_t i = before + 1; i < ops.size(); ++i)
    ops[i].joins = ops[i].kind == Change::warp && ops[i - 1].kind == Change::warp;
}

bool inside(double value, double least, double most) { return value >= least && value <= most; }

const char* complaint_of_parts(const Change& change, const ImageSize& size, std::size_t bytes) {
  for (const Change& part : change.parts)
    if (const char* wrong = complaint(part, size, bytes)) return wrong;
  return nullptr;
}

bool is_blur(const std::vector<double>& n) {
  for (int i = 0; i < 2; ++i)
    if (!inside(n[static_cast<std::size_t>(i)], 1, 1 << 14) || static_cast<int>(n[static_cast<std::size_t>(i)]) % 2 == 0) return false;
  return n[2] > 0;
}

bool is_erase(const std::vector<double>& n, const ImageSize& size) {
  return inside(n[0], 0, size.height) && inside(n[1], 0, size.width) && inside(n[2], 0, size.height - n[0]) &&
         inside(n[3], 0, size.width - n[1]);
}

bool is_order(const std::vector<double>& n, int channels) {
  for (const double one : n)
    if (!inside(one, 0, channels - 1)) return false;
  return true;
}

bool are_bytes(const std::vector<double>& n, std::size_t first) {
  for (std::size_t i = first; i < n.size(); ++i)
    if (!inside(n[i], 0, 255)) return false;
  return true;
}

// Whether the first six fit 32 bits.
bool are_whole(const std::vector<double>& n) {
  for (std::size_t i = 0; i < 6; ++i)
    if (!inside(n[i], -2147483648.0, 2147483647.0)) return false;
  return true;
}

bool is_good(const Change& change, const ImageSize& size, std::size_t bytes) {
  const std::vector<double>& n = change.numbers;
  const std::size_t count = n.size(), channels = static_cast<std::size_t>(size.channels);
  switch (change.kind) {
    case Change::brightness:
    case Change::contrast:
    case Change::saturation:
    case Change::sharpness:
    case Change::solarize:
    case Change::torch_contrast:
    case Change::torch_saturation:
      return count == 1 && n[0] == n[0];
    case Change::hue:
      return count == 1 && inside(n[0], -6, 6);
    case Change::torch_hue:
      return count == 1 && inside(n[0], -1, 1);
    case Change::pillow_hue:
      return count == 1 && inside(n[0], 0, 255);
    case Change::posterize:
      return count == 1 && inside(n[0], 0, 8);
    case Change::channels:
      return count == channels && is_order(n, size.channels);
    case Change::blur:
      return count == 3 && is_blur(n);
    case Change::any_blur:
      return count == 4 && is_blur(n) && n[3] >= n[2];
    case Change::warp:
      return count == 10 + channels && are_bytes(n, 10);
    case Change::pillow_warp:
      return count == 6 + channels && are_whole(n) && are_bytes(n, 6);
    case Change::erase:
      return count == 4 + bytes && is_erase(n, size) && are_bytes(n, 4);
    case Change::any_erase:
      return count == 5 + bytes && inside(n[1], 0, 1) && inside(n[2], n[1], 1) && are_bytes(n, 5);
    case Change::any_affine:
      return count == 17 + channels && are_bytes(n, 17);
    case Change::any_perspective:
      return count == 4 + channels && are_bytes(n, 4);
    case Change::apply:
      return count == 1;
    case Change::choice:
      return !change.parts.empty();
    case Change::weighted:
      return !change.parts.empty() && count == 1 + change.parts.size();
    case Change::jitter:
      return count == 13 && inside(n[10], -1, 1) && inside(n[11], -1, 1);
    case Change::distort:
      return count == 9 && inside(n[7], -1, 1) && inside(n[8], -1, 1);
    default:
      return true;
  }
}

}  // namespace

void draw(const Change& change, const ImageSize& size, Philox& random, std::vector<Op>& ops) {
  const std::vector<Change>& parts = change.parts;
  switch (change.kind) {
    case Change::apply:
      if (random.random() >= change.numbers[0]) return;
      [[fallthrough]];
    case Change::all:
      for (const Change& part : parts) draw(part, size, random, ops);
      return;
    case Change::joined:
      return draw_joined(change, size, random, ops);
    case Change::choice:
      return draw(parts[one_of(parts.size(), random)], size, random, ops);
    case Change::weighted:
      if (const Change* part = weighted(change, random)) draw(*part, size, random, ops);
      return;
    case Change::jitter:
      return draw_jitter(change, random, ops);
    case Change::distort:
      return draw_distort(change, size, random, ops);
    case Change::any_channels:
      ops.push_back({Change::channels, shuffled(size.channels, random)});
      return;
    case Change::any_blur: {
      const std::vector<double>& n = change.numbers;
      ops.push_back({Change::blur, {n[0], n[1], between(n[2], n[3], random)}});
      return;
    }
    case Change::any_erase:
      return draw_erase(change, size, random, ops);
    case Change::any_affine:
      return draw_affine(change, random, ops);
    case Change::any_perspective:
      return draw_perspective(change, size, random, ops);
    default:
      ops.push_back({change.kind, change.numbers});
  }
}

const char* complaint(const Change& change, const ImageSize& size, std::size_t bytes) {
  if (!is_good(change, size, bytes)) return "a change has numbers that cannot be used";
  return complaint_of_parts(change, size, bytes);
}

}  // namespace headrace
