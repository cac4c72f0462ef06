// Keys and fields of samples, from the names of the members of an archive.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace headrace {

constexpr std::size_t most_fields = 64;

// Whether the first folder, or the name, is such as `__meta__`.
inline bool is_meta(std::string_view name) {
  const std::string_view first = name.substr(0, name.find('/'));
  return first.size() >= 4 && first.substr(0, 2) == "__" && first.substr(first.size() - 2) == "__";
}

// Key and field; no field for a member that belongs to no sample.
inline void split(std::string_view name, std::string_view& key, std::string& field) {
  field.clear();
  if (name.substr(0, 2) == "./") name.remove_prefix(2);
  const std::size_t slash = name.rfind('/');
  const std::size_t base = slash == std::string_view::npos ? 0 : slash + 1;
  const std::size_t dot = name.find('.', base);
  key = name.substr(0, dot);
  if (dot == std::string_view::npos || dot == base || is_meta(name)) return;
  for (const char c : name.substr(dot + 1)) field.push_back(c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c);
}

// Which of the fields has this name; they come in turn, so the search begins at `guess`. A new one is added, unless there
// are `most_fields`: then it is that number.
inline std::size_t place_of(const std::string& field, std::vector<std::string>& fields, std::size_t guess) {
  const std::size_t count = fields.size();
  for (std::size_t i = 0; i < count; ++i)
    if (fields[(guess + i) % count] == field) return (guess + i) % count;
  if (count < most_fields) fields.push_back(field);
  return count;
}

}  // namespace headrace
