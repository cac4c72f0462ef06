// Walks the records of a TFRecord file, and finds the features of each tf.train.Example.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "block_reader.hpp"

namespace headrace {

struct Records {
  std::int64_t next = 0;                     // where the walk stopped
  std::vector<std::int64_t> offset, length;  // of each record
  std::vector<std::string> names;            // of features
  // Of each feature of each record: which record and which name; its kind (1 bytes, 2 floats, 3 integers), and 4 more
  // where it is a list of other than one value; where the value or the list begins in the file, and its bytes; the
  // integer that it is.
  std::vector<std::int64_t> record, name, kind, begin, bytes, integer;
};

struct RecordChecks {
  bool data;      // the checksums of the data too
  bool features;  // read each record as an Example
  std::int64_t most_bytes;
  std::size_t most;
};

// Walk from a record on. It stops before a record that is damaged or that is not a plain Example: Python says why.
Records scan_records(BlockReader& reader, std::int64_t at, const RecordChecks& checks);

}  // namespace headrace
