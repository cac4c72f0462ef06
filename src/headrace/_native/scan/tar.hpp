// Walks the plain members of a tar archive, and sorts them into samples as WebDataset does.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "block_reader.hpp"

namespace headrace {

struct TarMembers {
  std::int64_t next = 0;               // where the walk stopped
  std::vector<std::string> keys;       // of the samples that begin here
  std::vector<std::string> fields;     // the names of fields
  std::vector<std::int64_t> sample;    // of each member: how many samples have begun here up to it; 0: the one before
  std::vector<std::int64_t> field;     // of each member: which of the fields it is
  std::vector<std::int64_t> offset, length;
};

// Walk from an entry on, at most `most` members. It stops before whatever is not a plain member with an ASCII name
// (perhaps after an extended header that does not matter to it): the end, damage, links, long names. Python goes on.
TarMembers scan_tar(BlockReader& reader, std::int64_t at, const std::string& last_key, std::size_t most);

}  // namespace headrace
