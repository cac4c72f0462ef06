// Best-fit packing, by counting how much room is left in each row.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace headrace {

// The rows that have each amount of free room, from 0 to `room`: a stack for each, and a bit for each that is not empty.
class FreeRoom {
 public:
  FreeRoom(std::size_t room, std::size_t rows)
      : top_(room + 1, none), below_(rows), words_(room / 64 + 1), full_words_(words_.size() / 64 + 1) {}

  void push(std::size_t left, std::int32_t row) {
    below_[static_cast<std::size_t>(row)] = top_[left];
    top_[left] = row;
    words_[left / 64] |= std::uint64_t{1} << left % 64;
    full_words_[left / 4096] |= std::uint64_t{1} << left / 64 % 64;
  }

  // The smallest amount from `least` up that some row has; -1 if none has.
  std::ptrdiff_t at_least(std::size_t least) const {
    std::size_t word = least / 64;
    if (word >= words_.size()) return -1;
    if (const std::uint64_t here = words_[word] >> least % 64) return static_cast<std::ptrdiff_t>(least) + lowest(here);
    if (++word >= words_.size()) return -1;
    std::size_t group = word / 64;
    std::uint64_t found = full_words_[group] >> word % 64 << word % 64;
    while (!found && ++group < full_words_.size()) found = full_words_[group];
    if (!found) return -1;
    word = group * 64 + static_cast<std::size_t>(lowest(found));
    return static_cast<std::ptrdiff_t>(word * 64) + lowest(words_[word]);
  }

  std::int32_t pop(std::size_t left) {
    const std::int32_t row = top_[left];
    top_[left] = below_[static_cast<std::size_t>(row)];
    if (top_[left] == none) {
      words_[left / 64] &= ~(std::uint64_t{1} << left % 64);
      if (!words_[left / 64]) full_words_[left / 4096] &= ~(std::uint64_t{1} << left / 64 % 64);
    }
    return row;
  }

 private:
  static constexpr std::int32_t none = -1;
  static int lowest(std::uint64_t word) { return __builtin_ctzll(word); }

  std::vector<std::int32_t> top_, below_;
  std::vector<std::uint64_t> words_, full_words_;
};

// Write the row of each of `count` lengths, none above `room`: the fullest that has room for it, else a new one.
inline void best_fit(const std::int64_t* lengths, std::size_t count, std::size_t room, std::int64_t* rows) {
  FreeRoom free(room, count);
  std::int32_t opened = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const auto length = static_cast<std::size_t>(lengths[i]);
    const std::ptrdiff_t found = free.at_least(length);
    const std::int32_t row = found < 0 ? opened++ : free.pop(static_cast<std::size_t>(found));
    free.push((found < 0 ? room : static_cast<std::size_t>(found)) - length, row);
    rows[i] = row;
  }
}

}  // namespace headrace
