// Which format the first two bytes of a file name. Files of others are left to the step-by-step path.
#pragma once

#include <cstdint>

#include "png.hpp"

namespace headrace {

inline bool begins_as_jpeg(const std::uint8_t* data) { return data[0] == 0xFF && data[1] == 0xD8; }
inline bool begins_as_png(const std::uint8_t* data) { return reads_png && data[0] == 0x89 && data[1] == 'P'; }
inline bool begins_as_ppm(const std::uint8_t* data) { return data[0] == 'P' && data[1] == '6'; }

inline bool is_read_here(const std::uint8_t* data) { return begins_as_jpeg(data) || begins_as_png(data) || begins_as_ppm(data); }

}  // namespace headrace
