// A fuzzer's way in: bytes that choose a recipe, then bytes that are taken for a file.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "render.hpp"

using namespace headrace;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  constexpr std::size_t choices = 8;
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
// Without libFuzzer: each file named on the command line, spoiled again and again, for so many seconds.
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <random>

int main(int argc, char** argv) {
  const double most = argc > 1 ? std::atof(argv[1]) : 10;
  std::vector<std::vector<std::uint8_t>> files;
  for (int i = 2; i < argc; ++i) {
    std::ifstream file(argv[i], std::ios::binary);
    files.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  std::mt19937_64 dice(files.size());
  const auto until = std::chrono::steady_clock::now() + std::chrono::duration<double>(most);
  std::size_t runs = 0;
  for (; !files.empty() && std::chrono::steady_clock::now() < until; ++runs) {
    std::vector<std::uint8_t> input(8);
    for (std::uint8_t& byte : input) byte = static_cast<std::uint8_t>(dice());
    const std::vector<std::uint8_t>& file = files[dice() % files.size()];
    input.insert(input.end(), file.begin(), file.end());
    for (int hits = static_cast<int>(dice() % 8); hits > 0 && input.size() > 8 + 700; --hits) {
      const std::size_t body = input.size() - 8;
      // Half of the damage goes to the header, where it tells most.
      const std::size_t at = 8 + dice() % (dice() % 2 ? body : 700);
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
  std::printf("%zu spoiled files\n", runs);
}
#endif
