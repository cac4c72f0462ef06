// Walks the plain members in the central directory of a zip archive, and sorts them into samples.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace headrace {

struct ZipMembers {
  std::size_t entries = 0;           // how many were passed over
  std::size_t next = 0;              // where the walk stopped
  std::vector<std::string> keys;     // of samples, as they first come
  std::vector<std::string> fields;   // the names of fields
  // Of each member: its sample, its field, where its header is, the compressed and the whole size, checksum, method.
  std::vector<std::int64_t> sample, field, header, packed, size, sum, method;
};

// Walk a directory of `count` entries. It stops before an entry that is not a plain member with an ASCII name, stored or
// deflated: damage, 64 bits, encryption, links. Python goes on.
ZipMembers scan_zip(const std::uint8_t* data, std::size_t size, std::size_t count);

}  // namespace headrace
