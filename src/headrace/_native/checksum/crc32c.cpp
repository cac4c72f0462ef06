#include "crc32c.hpp"

#include <array>
#include <cstring>

#if HEADRACE_X86
#include <nmmintrin.h>
#endif

namespace headrace {
namespace {

constexpr std::uint32_t polynomial = 0x82f63b78;  // 0x1edc6f41, with its bits in reverse

// tables[n][b]: what byte b gives with n zero bytes after it.
using Tables = std::array<std::array<std::uint32_t, 256>, 8>;

constexpr Tables made() {
  Tables tables{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t value = byte;
    for (int bit = 0; bit < 8; ++bit) value = value >> 1 ^ (value & 1 ? polynomial : 0);
    tables[0][byte] = value;
  }
  for (std::size_t n = 1; n < 8; ++n)
    for (std::uint32_t byte = 0; byte < 256; ++byte) {
      const std::uint32_t before = tables[n - 1][byte];
      tables[n][byte] = before >> 8 ^ tables[0][before & 255];
    }
  return tables;
}

constexpr Tables tables = made();

#if HEADRACE_X86
__attribute__((target("sse4.2"))) std::uint32_t by_instruction(const std::uint8_t* data, std::size_t size) {
  std::uint64_t sum = 0xffffffff;
  for (; size >= 8; data += 8, size -= 8) {
    std::uint64_t word;
    std::memcpy(&word, data, 8);
    sum = _mm_crc32_u64(sum, word);
  }
  std::uint32_t rest = static_cast<std::uint32_t>(sum);
  for (; size; ++data, --size) rest = _mm_crc32_u8(rest, *data);
  return ~rest;
}
#endif

}  // namespace

std::uint32_t crc32c_by_tables(const std::uint8_t* data, std::size_t size) {
  std::uint32_t sum = 0xffffffff;
  for (; size >= 8; data += 8, size -= 8) {
    sum ^= data[0] | data[1] << 8 | data[2] << 16 | static_cast<std::uint32_t>(data[3]) << 24;
    sum = tables[7][sum & 255] ^ tables[6][sum >> 8 & 255] ^ tables[5][sum >> 16 & 255] ^ tables[4][sum >> 24] ^
          tables[3][data[4]] ^ tables[2][data[5]] ^ tables[1][data[6]] ^ tables[0][data[7]];
  }
  for (; size; ++data, --size) sum = sum >> 8 ^ tables[0][(sum ^ *data) & 255];
  return ~sum;
}

std::uint32_t crc32c(const std::uint8_t* data, std::size_t size) {
#if HEADRACE_X86
  static const bool has_instruction = __builtin_cpu_supports("sse4.2");
  if (has_instruction) return by_instruction(data, size);
#endif
  return crc32c_by_tables(data, size);
}

}  // namespace headrace
