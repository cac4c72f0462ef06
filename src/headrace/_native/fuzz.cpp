// A fuzzer's way in: bytes that choose a recipe, then bytes that are taken for a file.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "render.hpp"

using namespace headrace;

static constexpr std::size_t choices = 8;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < choices) return 0;
  int levels = 0;
  const Rows* const* rows = rows_available(&levels);
  Recipe recipe;
  recipe.height = 1 + data[0] % 64, recipe.width = 1 + data[1] % 64;
  recipe.filter = static_cast<Filter>(data[2] % 5);
  recipe.antialias = recipe.filter == Filter::lanczos || recipe.filter == Filter::box || data[3] % 2 == 0;
  recipe.shrink = data[3] % 4 >= 2;
  recipe.channels_first = data[4] % 2 == 0;
  recipe.rows = rows[data[5] % levels];
  recipe.max_pixels = 1 << 20;
  recipe.max_bytes = 1 << 20;
  if (data[4] % 4 >= 2) {
    recipe.values.itemsize = 4;
    recipe.values.table.assign(3 * 256 * 4, 0);
    recipe.values.computed = data[4] % 8 >= 4;
  }
  Step first{Step::random_resized_crop};
  if (data[6] % 3 == 1) first.kind = Step::resize_exact;
  if (data[6] % 3 == 2) first.kind = Step::random_crop, first.pad_if_needed = true;
  first.height = recipe.height, first.width = recipe.width;
  first.area_least = 0.01, first.area_most = 1;
  first.ratio_least = 0.5, first.ratio_most = 2, first.log_ratio_least = -0.69, first.log_ratio_most = 0.69;
  Step flip{Step::flip};
  flip.chance = 0.5;
  recipe.steps = {first, flip};
  Philox random(data[7], size, 1, 2, 3);
  static Scratch scratch;
  Seconds seconds;
  // Exactly as long as a row: the sanitizer sees one byte more.
  std::vector<std::uint8_t> out(recipe.row_bytes());
  render(recipe, data + choices, size - choices, random, scratch, out.data(), seconds);
  return 0;
}

#ifdef HEADRACE_FUZZ_ALONE
// Without libFuzzer: files as its corpus holds them, spoiled again and again, for so many seconds.
#include <sanitizer/common_interface_defs.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <random>

static std::vector<std::uint8_t> input;

// So that what a sanitizer complains of can be looked at.
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
      // Half of the damage goes to the header, where it tells most.
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
  std::printf("%zu spoiled files, no complaint\n", runs);
}
#endif
