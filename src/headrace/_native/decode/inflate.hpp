// The one place that knows which library inflates: libdeflate, zlib, or none.
#pragma once

#include <cstddef>
#include <cstdint>

#if HEADRACE_LIBDEFLATE
#include <libdeflate.h>

#include <memory>
#elif HEADRACE_ZLIB
#include <zlib.h>
#endif

namespace headrace {

#if HEADRACE_LIBDEFLATE

constexpr bool inflates = true;

inline std::uint32_t crc32_of(const std::uint8_t* data, std::size_t size) { return libdeflate_crc32(0, data, size); }

// Whether a zlib stream is whole, uses all of the bytes, and gives exactly this many.
inline bool inflate_exactly(const std::uint8_t* data, std::size_t size, std::uint8_t* out, std::size_t count) {
  const std::unique_ptr<libdeflate_decompressor, decltype(&libdeflate_free_decompressor)> inflater(
      libdeflate_alloc_decompressor(), libdeflate_free_decompressor);
  std::size_t used = 0, made = 0;
  return inflater != nullptr &&
         libdeflate_zlib_decompress_ex(inflater.get(), data, size, out, count, &used, &made) == LIBDEFLATE_SUCCESS &&
         used == size && made == count;
}

#elif HEADRACE_ZLIB

constexpr bool inflates = true;

inline std::uint32_t crc32_of(const std::uint8_t* data, std::size_t size) {
  return static_cast<std::uint32_t>(crc32_z(0, data, size));
}

// Whether a zlib stream is whole, uses all of the bytes, and gives exactly this many.
inline bool inflate_exactly(const std::uint8_t* data, std::size_t size, std::uint8_t* out, std::size_t count) {
  z_stream stream{};
  if (size > 0xFFFFFFFF || count > 0xFFFFFFFF || inflateInit(&stream) != Z_OK) return false;
  stream.next_in = const_cast<std::uint8_t*>(data), stream.avail_in = static_cast<uInt>(size);
  stream.next_out = out, stream.avail_out = static_cast<uInt>(count);
  const bool ended = inflate(&stream, Z_FINISH) == Z_STREAM_END;
  const bool exact = ended && stream.avail_in == 0 && stream.avail_out == 0;
  inflateEnd(&stream);
  return exact;
}

#else

constexpr bool inflates = false;

inline std::uint32_t crc32_of(const std::uint8_t*, std::size_t) { return 0; }

inline bool inflate_exactly(const std::uint8_t*, std::size_t, std::uint8_t*, std::size_t) { return false; }

#endif

}  // namespace headrace
