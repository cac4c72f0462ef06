#include "tar.hpp"

#include <cstring>
#include <string_view>

#include "names.hpp"

namespace headrace {
namespace {

constexpr std::int64_t block = 512;
constexpr std::int64_t longest_text = 1 << 14;

// Octal digits, with blanks and zeros around them; -1 for anything else.
std::int64_t octal(const std::uint8_t* text, int size) {
  int begin = 0, end = size;
  const auto is_blank = [&](int i) { return text[i] == ' ' || text[i] == 0; };
  while (begin < end && is_blank(begin)) ++begin;
  while (end > begin && is_blank(end - 1)) --end;
  std::int64_t value = 0;
  for (int i = begin; i < end; ++i) {
    if (text[i] < '0' || text[i] > '7') return -1;
    value = value * 8 + (text[i] - '0');
  }
  return value;
}

// Whether the checksum is that of the unsigned bytes, as all programs of today write it.
bool has_checksum(const std::uint8_t* header) {
  std::int64_t sum = 8 * ' ';
  for (int i = 0; i < block; ++i) sum += header[i];
  for (int i = 148; i < 156; ++i) sum -= header[i];
  return octal(header + 148, 8) == sum;
}

// Whether records say nothing of name, size and layout: `length key=value\n`, as often as they fit.
bool says_nothing(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size() && text[at] != 0) {
    std::size_t length = 0, place = at;
    for (; place < text.size() && text[place] >= '0' && text[place] <= '9' && place < at + 6; ++place)
      length = length * 10 + static_cast<std::size_t>(text[place] - '0');
    if (place == at || place >= text.size() || text[place] != ' ') return false;
    if (length <= place + 1 - at || length > text.size() - at || text[at + length - 1] != '\n') return false;
    const std::string_view line = text.substr(place + 1, at + length - place - 2);
    const std::size_t equals = line.find('=');
    if (equals == std::string_view::npos) return false;
    const std::string_view key = line.substr(0, equals);
    if (key == "path" || key == "size" || key.substr(0, 4) == "GNU.") return false;
    at += length;
  }
  return true;
}

// The name of a member; empty for one with other bytes than printable ASCII.
void name_of(const std::uint8_t* header, std::string& name) {
  name.clear();
  const auto add = [&](int from, int most) {
    for (int i = from; i < from + most && header[i]; ++i) name.push_back(static_cast<char>(header[i]));
  };
  if (std::memcmp(header + 257, "ustar\0", 6) == 0 && header[345]) add(345, 155), name.push_back('/');
  add(0, 100);
  for (const char c : name)
    if (c < ' ' || c > '~') return name.clear();
}

}  // namespace

TarMembers scan_tar(BlockReader& reader, std::int64_t at, const std::string& last_key, std::size_t most) {
  TarMembers found;
  std::string name, field, last = last_key;
  std::size_t recent = 0;
  found.next = at;
  while (found.sample.size() < most) {
    std::int64_t place = found.next;
    const std::uint8_t* header = reader.at(place, block);
    if (header == nullptr || !has_checksum(header)) return found;
    if (header[156] == 'x') {
      const std::int64_t size = octal(header + 124, 12);
      if (size < 1 || size > longest_text) return found;
      const std::uint8_t* text = reader.at(place + block, size);
      if (text == nullptr) return found;
      if (!says_nothing({reinterpret_cast<const char*>(text), static_cast<std::size_t>(size)})) return found;
      place += block + (size + block - 1) / block * block;
      header = reader.at(place, block);
      if (header == nullptr || !has_checksum(header)) return found;
    }
    const std::uint8_t kind = header[156];
    const std::int64_t size = octal(header + 124, 12), body = place + block;
    if ((kind != '0' && kind != 0) || size < 0 || header[124] > 127 || size > reader.size() - body) return found;
    name_of(header, name);
    if (name.empty() || name.back() == '/') return found;
    std::string_view key;
    split(name, key, field);
    if (!field.empty()) {
      const bool begins = key != last;
      if (begins) last = key, found.keys.push_back(last);
      const std::size_t number = place_of(field, found.fields, recent);
      if (number == most_fields) {
        if (begins) found.keys.pop_back();
        return found;
      }
      recent = number + 1;
      found.sample.push_back(static_cast<std::int64_t>(found.keys.size()));
      found.field.push_back(static_cast<std::int64_t>(number));
      found.offset.push_back(body), found.length.push_back(size);
    }
    found.next = body + (size + block - 1) / block * block;
  }
  return found;
}

}  // namespace headrace
