#include "zip.hpp"

#include <cstring>
#include <unordered_map>

#include "names.hpp"

namespace headrace {
namespace {

constexpr std::size_t fixed = 46;

std::uint32_t little(const std::uint8_t* data, int size) {
  std::uint32_t value = 0;
  for (int i = size - 1; i >= 0; --i) value = value << 8 | data[i];
  return value;
}

// Whether an entry says of its member nothing that Python should look at.
bool is_plain(const std::uint8_t* entry) {
  const std::uint32_t made = little(entry + 4, 2), flags = little(entry + 8, 2), method = little(entry + 10, 2);
  const std::uint32_t packed = little(entry + 20, 4), size = little(entry + 24, 4), disk = little(entry + 34, 2);
  const std::uint32_t mode = made >> 8 == 3 ? little(entry + 38, 4) >> 16 : 0;
  const bool is_long = packed == 0xffffffff || size == 0xffffffff || little(entry + 42, 4) == 0xffffffff;
  const bool is_link = (mode & 0170000) == 0120000;
  return !is_long && !is_link && !(flags & 0x2041) && (method == 8 || (method == 0 && packed == size)) &&
         (disk == 0 || disk == 0xffff);
}

bool is_ascii(std::string_view name) {
  for (const char c : name)
    if (c < ' ' || c > '~') return false;
  return true;
}

}  // namespace

ZipMembers scan_zip(const std::uint8_t* data, std::size_t size, std::size_t count) {
  ZipMembers found;
  std::unordered_map<std::string, std::int64_t> rows;
  std::string field;
  std::size_t recent = 0;
  for (; found.entries < count; ++found.entries) {
    if (size - found.next < fixed) return found;
    const std::uint8_t* const entry = data + found.next;
    const std::size_t name_size = little(entry + 28, 2);
    const std::size_t whole = fixed + name_size + little(entry + 30, 2) + little(entry + 32, 2);
    if (std::memcmp(entry, "PK\1\2", 4) != 0 || whole > size - found.next || !is_plain(entry)) return found;
    const std::string_view name(reinterpret_cast<const char*>(entry + fixed), name_size);
    if (!is_ascii(name)) return found;
    std::string_view key;
    split(name, key, field);
    if (!field.empty() && name.back() != '/') {
      const std::size_t number = place_of(field, found.fields, recent);
      if (number == most_fields) return found;
      recent = number + 1;
      const auto [place, is_new] = rows.try_emplace(std::string(key), static_cast<std::int64_t>(rows.size()));
      if (is_new) found.keys.emplace_back(key);
      found.sample.push_back(place->second), found.field.push_back(static_cast<std::int64_t>(number));
      found.header.push_back(little(entry + 42, 4)), found.packed.push_back(little(entry + 20, 4));
      found.size.push_back(little(entry + 24, 4)), found.sum.push_back(little(entry + 16, 4));
      found.method.push_back(little(entry + 10, 2));
    }
    found.next += whole;
  }
  return found;
}

}  // namespace headrace
