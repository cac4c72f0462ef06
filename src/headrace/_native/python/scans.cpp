// Functions that walk shards for their index.
#include <nanobind/stl/string.h>

#include <algorithm>

#include "../scan/records.hpp"
#include "../scan/tar.hpp"
#include "../scan/zip.hpp"
#include "bindings.hpp"
#include "gil.hpp"

namespace headrace {
namespace {

nb::bytes bytes_of(const std::vector<std::int64_t>& values) {
  return nb::bytes(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(std::int64_t));
}

nb::list strings(const std::vector<std::string>& texts) {
  nb::list found;
  for (const std::string& text : texts) found.append(nb::str(text.data(), text.size()));
  return found;
}

nb::tuple tar(int file, std::int64_t size, std::int64_t at, const std::string& last_key, std::size_t most) {
  TarMembers found;
  {
    const GilRelease released;
    BlockReader reader(file, size);
    found = scan_tar(reader, at, last_key, most);
  }
  return nb::make_tuple(found.next, strings(found.keys), strings(found.fields), bytes_of(found.sample),
                        bytes_of(found.field), bytes_of(found.offset), bytes_of(found.length));
}

nb::tuple records(int file, std::int64_t size, std::int64_t at, bool data, bool features, std::int64_t most_bytes,
                  std::size_t most) {
  Records found;
  {
    const GilRelease released;
    BlockReader reader(file, size);
    found = scan_records(reader, at, {data, features, most_bytes, most});
  }
  return nb::make_tuple(found.next, bytes_of(found.offset), bytes_of(found.length), strings(found.names),
                        bytes_of(found.record), bytes_of(found.name), bytes_of(found.kind), bytes_of(found.begin),
                        bytes_of(found.bytes), bytes_of(found.integer));
}

nb::tuple zip(const nb::bytes& directory, std::size_t count) {
  ZipMembers found;
  {
    const auto* const data = reinterpret_cast<const std::uint8_t*>(directory.c_str());
    const std::size_t size = directory.size();
    const GilRelease released;
    found = scan_zip(data, size, count);
  }
  return nb::make_tuple(found.entries, found.next, strings(found.keys), strings(found.fields), bytes_of(found.field),
                        bytes_of(found.sample), bytes_of(found.header), bytes_of(found.packed), bytes_of(found.size),
                        bytes_of(found.sum), bytes_of(found.method));
}

}  // namespace

void bind_scans(nb::module_& module) {
  module.def("scan_tar", &tar, nb::arg("file"), nb::arg("size"), nb::arg("at"), nb::arg("last_key"), nb::arg("most"),
             "Walk the plain members of a tar archive from an entry on: where the walk stopped, the keys of samples, "
             "the fields, and of each member its sample, field, offset and length.");
  module.def("scan_zip", &zip, nb::arg("directory"), nb::arg("count"),
             "Walk the plain members in a zip archive's directory: how many entries were passed over, where the walk "
             "stopped, keys, fields, and of each member its field, sample, header, sizes, checksum and method.");
  module.def("scan_records", &records, nb::arg("file"), nb::arg("size"), nb::arg("at"), nb::arg("data"),
             nb::arg("features"), nb::arg("most_bytes"), nb::arg("most"),
             "Walk the records of a TFRecord file from one on: where the walk stopped, their offsets and lengths, the "
             "names of features, and of each feature its record, name, kind, offset, bytes and integer.");
}

}  // namespace headrace
