// CRC-32C (Castagnoli; RFC 3720, appendix B.4), as TFRecord files have it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace headrace {

// The checksum of bytes: with the processor's instruction where it has one, else by tables, eight bytes at a time.
std::uint32_t crc32c(const std::uint8_t* data, std::size_t size);

// By tables, on any processor.
std::uint32_t crc32c_by_tables(const std::uint8_t* data, std::size_t size);

}  // namespace headrace
