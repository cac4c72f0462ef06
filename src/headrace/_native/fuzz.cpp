// A fuzzer's way in: bytes that choose a recipe and a source, then bytes that the source hands over as an image.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "batch_rows.hpp"
#include "decode/inflate.hpp"
#include "decode/png.hpp"
#include "source/bytes.hpp"
#include "source/ranges.hpp"

using namespace headrace;

static constexpr std::size_t choices = 10;

static void require(bool holds) {
  if (!holds) std::abort();
}

static Change done(Change::Kind kind, std::vector<double> numbers = {}) { return {kind, std::move(numbers), {}}; }

// One change of every kind, of which the sample's own numbers choose some.
static Change any_change(const std::uint8_t* chosen) {
  const double share = chosen[0] * 16.0, small = chosen[1] / 256.0;
  const double rows = 1 + 2 * (chosen[0] % 16), columns = 1 + 2 * (chosen[1] % 16);
  const std::vector<double> map{small - 0.5, 1, 3, -1, small, 2, chosen[0] % 3 / 99.0, 0, small, chosen[1] % 2 * 1.0, 1, 2, 3};
  Change changes{Change::choice, {}, {}};
  changes.parts = {done(Change::brightness, {2 * small}), done(Change::contrast, {2 * small}),
                   done(Change::saturation, {share}), done(Change::hue, {6 * small}), done(Change::pillow_hue, {1.0 * chosen[0]}),
                   done(Change::torch_contrast, {share}), done(Change::torch_saturation, {share}), done(Change::torch_hue, {small}),
                   done(Change::torch_grayscale), done(Change::grayscale),
                   done(Change::invert), done(Change::solarize, {share}), done(Change::posterize, {1.0 * (chosen[0] % 9)}),
                   done(Change::autocontrast), done(Change::equalize), done(Change::channels, {2, 0, 1}),
                   done(Change::sharpness, {share}), done(Change::blur, {rows, columns, 0.1 + 9 * small}),
                   done(Change::warp, map), done(Change::pillow_warp, {small * 65536, 9, -3e6, share, small * 99999, 2e5, 1, 2, 3}),
                   done(Change::upside_down), done(Change::any_channels),
                   done(Change::any_blur, {rows, columns, 0.1, 0.1 + 9 * small}),
                   done(Change::any_erase, {0.9, 0, small, -1, 1, 7, 8, 9}),
                   done(Change::jitter, {1, 0, 2, 1, 0, 2, 1, 0, 2, 1, -0.5, 0.5, chosen[0] % 3 * 1.0}),
                   done(Change::distort, {0.5, 0, 2, 0, 2, 0, 2, -0.5, 0.5})};
  const Change maps{Change::joined, {}, {done(Change::warp, map), done(Change::warp, map)}};
  changes.parts.push_back({Change::weighted, {3, 1, 2}, {maps, done(Change::invert)}});
  return {Change::apply, {0.9}, {std::move(changes)}};
}

static void change_by(Recipe& recipe, const std::uint8_t* chosen) {
  const RowFormat& row = recipe.row;
  const ImageSize size{row.height, row.width, row.values.channels};
  recipe.bytes.height = row.height, recipe.bytes.width = row.width;
  recipe.bytes.channels_first = true, recipe.bytes.ops = row.ops;
  const std::size_t bytes = static_cast<std::size_t>(size.channels);
  recipe.changes.assign(chosen[0] % 4, any_change(chosen));
  for (const Change& change : recipe.changes) require(complaint(change, size, bytes) == nullptr);
  if (chosen[1] % 3 > 0) return;
  std::vector<double> numbers{0.9, 0, 1, -1, 1};
  numbers.resize(5 + bytes * static_cast<std::size_t>(row.values.itemsize), 9);
  recipe.erasings = {done(Change::any_erase, numbers)};
  require(complaint(recipe.erasings[0], size, numbers.size() - 5) == nullptr);
}

static std::shared_ptr<Recipe> recipe_of(const std::uint8_t* chosen) {
  int levels = 0;
  const RowOps* const* ops = row_ops_available(&levels);
  auto recipe = std::make_shared<Recipe>();
  RowFormat& row = recipe->row;
  row.height = 1 + chosen[0] % 64, row.width = 1 + chosen[1] % 64;
  recipe->filter = static_cast<Filter>(chosen[2] % 5);
  recipe->antialias = recipe->filter == Filter::lanczos || recipe->filter == Filter::box || chosen[3] % 2 == 0;
  recipe->shrink = chosen[3] % 4 >= 2;
  row.channels_first = chosen[4] % 2 == 0;
  row.ops = ops[chosen[5] % levels];
  recipe->max_pixels = 1 << 20;
  recipe->max_bytes = 1 << 20;
  if (chosen[4] % 4 >= 2) {
    row.values.itemsize = 4;
    row.values.table.assign(3 * 256 * 4, 0);
    row.values.computed = chosen[4] % 8 >= 4;
  }
  Step first{Step::random_resized_crop};
  if (chosen[6] % 3 == 1) first.kind = Step::resize_exact;
  if (chosen[6] % 3 == 2) first.kind = Step::random_crop, first.pad_if_needed = true;
  first.height = row.height, first.width = row.width;
  first.area_least = 0.01, first.area_most = 1;
  first.ratio_least = 0.5, first.ratio_most = 2, first.log_ratio_least = -0.69, first.log_ratio_most = 0.69;
  Step flip{Step::flip};
  flip.chance = 0.5;
  recipe->steps = {first, flip};
  change_by(*recipe, chosen + 8);
  return recipe;
}

static void make_row(const std::shared_ptr<Recipe>& recipe, std::shared_ptr<const Source> source, std::uint8_t key) {
  static Scratch scratch;
  Seconds seconds;
  std::int32_t drawn = 0;
  // Exactly as long as a row: the sanitizer sees one byte more.
  std::vector<std::uint8_t> out(recipe->row.bytes());
  const BatchRows rows{recipe, std::move(source), {0}, Place{key, 0, 1, 2, 3}, {}, out.data()};
  rows.make(0, scratch, seconds, drawn);
}

// A shard on disk that holds these bytes: a range of it is read right, or refused with the reason; then it is damaged.
static void make_row_from_shard(const std::shared_ptr<Recipe>& recipe, const std::uint8_t* data, std::size_t size,
                                std::uint8_t choice) {
  static const std::string path = "fuzz-shard-" + std::to_string(::getpid());
  static const std::int64_t zero = 0;
  const int file = ::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  require(file >= 0 && ::write(file, data, size) == static_cast<ssize_t>(size));
  // An old file: a new one would have to settle before it is read.
  const struct timespec long_ago[] = {{1, 0}, {1, 0}};
  require(::futimens(file, long_ago) == 0);
  const std::int64_t offset = choice % 5 == 0 ? choice % 64 : 0;
  const std::int64_t length = choice % 7 == 0 ? static_cast<std::int64_t>(size) - choice % 32 : static_cast<std::int64_t>(size);
  const std::uint64_t begins[] = {0, path.size()};
  auto files = std::make_unique<OpenFiles>(Paths(path.data(), begins, true, 1, ""), std::vector<FileFacts>(), 1);
  const auto source = std::make_shared<RangeSource>(std::move(files), &zero, &offset, &length, 1);
  Reading reading;
  if (source->read(0, recipe->max_bytes, reading)) {
    require(offset + length <= static_cast<std::int64_t>(size));
    require(length == 0 || std::memcmp(reading.sample.data, data + offset, static_cast<std::size_t>(length)) == 0);
  } else if (length >= 0 && length <= recipe->max_bytes) {
    require(offset + length > static_cast<std::int64_t>(size) && reading.failure.kind == ReadFailure::cut_short);
  }
  make_row(recipe, source, choice);
  if (size > 0 && length >= 0 && length <= recipe->max_bytes) {
    require(::ftruncate(file, static_cast<off_t>(size) - 1) == 0);
    require(!source->read(0, recipe->max_bytes, reading) && reading.failure.kind == ReadFailure::cut_short);
  }
  ::close(file);
  ::unlink(path.c_str());
}

static void put_number(std::vector<std::uint8_t>& file, std::uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) file.push_back(static_cast<std::uint8_t>(value >> shift));
}

static void put_chunk(std::vector<std::uint8_t>& file, const char* name, const std::vector<std::uint8_t>& body) {
  put_number(file, static_cast<std::uint32_t>(body.size()));
  const std::size_t begin = file.size();
  file.insert(file.end(), name, name + 4), file.insert(file.end(), body.begin(), body.end());
  put_number(file, crc32_of(file.data() + begin, file.size() - begin));
}

// A PNG file with right checksums whose lines, filters included, are these bytes, stored and not compressed.
static std::vector<std::uint8_t> png_of(const std::uint8_t* chosen, const std::uint8_t* lines, std::size_t size) {
  constexpr std::uint8_t kinds[] = {0, 3, 0, 3, 2, 4, 6, 2}, channels[] = {1, 1, 1, 1, 3, 2, 4, 3};
  const std::uint8_t color = kinds[chosen[1] % 8], depth = static_cast<std::uint8_t>(1 << (color % 2 == 0 && color > 0 ? 3 : chosen[0] % 5));
  const std::size_t width = 1 + chosen[2], line = 1 + (width * depth * channels[chosen[1] % 8] + 7) / 8;
  std::vector<std::uint8_t> file{0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'}, head, packed{0x78, 0x01};
  put_number(head, static_cast<std::uint32_t>(width)), put_number(head, static_cast<std::uint32_t>(size / line));
  head.insert(head.end(), {depth, color, 0, 0, 0});
  put_chunk(file, "IHDR", head);
  if (color == 3) put_chunk(file, "PLTE", {1, 2, 3});
  std::uint32_t one = 1, two = 0;
  for (std::size_t at = 0; at < size;) {
    const std::size_t part = std::min<std::size_t>(size - at, 0xFFFF);
    const std::uint8_t low = static_cast<std::uint8_t>(part), high = static_cast<std::uint8_t>(part >> 8);
    packed.insert(packed.end(), {static_cast<std::uint8_t>(at + part == size), low, high, static_cast<std::uint8_t>(~low),
                                 static_cast<std::uint8_t>(~high)});
    for (const std::size_t end = at + part; at < end; ++at) {
      packed.push_back(lines[at]);
      one = (one + lines[at]) % 65521, two = (two + one) % 65521;
    }
  }
  put_number(packed, two << 16 | one);
  const std::size_t middle = packed.size() / 2;
  put_chunk(file, "IDAT", {packed.begin(), packed.begin() + static_cast<std::ptrdiff_t>(middle)});
  put_chunk(file, "IDAT", {packed.begin() + static_cast<std::ptrdiff_t>(middle), packed.end()});
  put_chunk(file, "IEND", {});
  return file;
}

static void read_png(const std::uint8_t* data, std::size_t size) {
  static Buffer raw;
  Png png;
  if (!png.open(data, size, true) || std::int64_t{1} * png.width * png.height > 1 << 22) return;
  // Exactly as long as its pixels, and memory of its own for each: the sanitizer sees one byte more.
  const std::size_t pixels = static_cast<std::size_t>(png.width) * static_cast<std::size_t>(png.height);
  std::vector<std::uint8_t> out(pixels * static_cast<std::size_t>(png.channels) * (png.depth == 16 ? 2 : 1)), rgb(pixels * 3);
  png.read(out.data(), raw), png.read_rgb(rgb.data(), raw);
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < choices) return 0;
  if (data[9] % 4 == 0) {
    read_png(data + choices, size - choices);
    const std::vector<std::uint8_t> made = png_of(data, data + choices, size - choices);
    read_png(made.data(), made.size());
    return 0;
  }
  const auto recipe = recipe_of(data);
  const std::uint8_t choice = data[7];
  const std::uint8_t* const body = data + choices;
  const std::size_t bytes = size - choices;
  if (choice % 4 == 0) {
    make_row_from_shard(recipe, body, bytes, choice);
  } else if (choice % 4 == 1) {
    // Any two numbers may stand where an image begins and ends.
    std::int64_t begins[2] = {0, static_cast<std::int64_t>(bytes)};
    if (choice % 3 == 0 && bytes >= sizeof begins) std::memcpy(begins, body, sizeof begins);
    make_row(recipe, std::make_shared<PackedBytesSource>(body, static_cast<std::int64_t>(bytes), begins, 1, false), choice);
  } else {
    make_row(recipe, std::make_shared<BytesSource>(std::vector<std::pair<const std::uint8_t*, std::size_t>>{{body, bytes}}),
             choice);
  }
  return 0;
}

#ifdef HEADRACE_FUZZ_ALONE
// Without libFuzzer: files as its corpus holds them, damaged again and again, for so many seconds.
#include <sanitizer/common_interface_defs.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <random>

static std::vector<std::uint8_t> input;

// Keeps the input that a sanitizer complains of.
static void keep_input() {
  std::ofstream("crash-input", std::ios::binary).write(reinterpret_cast<const char*>(input.data()),
                                                        static_cast<std::streamsize>(input.size()));
  std::fprintf(stderr, "the input is in crash-input\n");
}

int main(int argc, char** argv) {
  __sanitizer_set_death_callback(keep_input);
  const double most = argc > 1 ? std::atof(argv[1]) : 10;
  std::vector<std::vector<std::uint8_t>> files;
  for (int i = 2; i < argc; ++i) {
    std::ifstream file(argv[i], std::ios::binary);
    files.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  std::mt19937_64 dice(std::random_device{}());
  const auto until = std::chrono::steady_clock::now() + std::chrono::duration<double>(most);
  std::size_t runs = 0;
  for (; !files.empty() && std::chrono::steady_clock::now() < until; ++runs) {
    input = files[dice() % files.size()];
    for (std::size_t i = 0; i < std::min<std::size_t>(choices, input.size()); ++i)
      input[i] = static_cast<std::uint8_t>(dice());
    for (int hits = static_cast<int>(dice() % 8); hits > 0 && input.size() > choices + 1; --hits) {
      const std::size_t body = input.size() - choices;
      // Half of the damage goes to the header, where it matters most.
      const std::size_t at = choices + dice() % (dice() % 2 ? body : std::min<std::size_t>(body, 700));
      switch (dice() % 4) {
        case 0:
          input[at] = static_cast<std::uint8_t>(dice());
          break;
        case 1:
          input[at] ^= static_cast<std::uint8_t>(1U << dice() % 8);
          break;
        case 2:
          input.resize(at + 1);
          break;
        default:
          input.insert(input.begin() + static_cast<std::ptrdiff_t>(at), dice() % 9, static_cast<std::uint8_t>(dice()));
      }
    }
    LLVMFuzzerTestOneInput(input.data(), input.size());
  }
  std::printf("%zu damaged files, no complaint\n", runs);
}
#endif
