#include "records.hpp"

#include <algorithm>
#include <string_view>

#include "../checksum/crc32c.hpp"

namespace headrace {
namespace {

constexpr std::size_t most_names = 256;
constexpr std::int64_t list = 4;

std::uint64_t little(const std::uint8_t* data, int size) {
  std::uint64_t value = 0;
  for (int i = size - 1; i >= 0; --i) value = value << 8 | data[i];
  return value;
}

bool has_sum(const std::uint8_t* data, std::size_t size) {
  const std::uint32_t sum = crc32c(data, size);
  return (sum >> 15 | sum << 17) + 0xa282ead8u == static_cast<std::uint32_t>(little(data + size, 4));
}

// A field of a protobuf message.
struct Part {
  std::uint64_t number;
  int wire;
  const std::uint8_t *begin, *end;
};

// The number at `at`, which moves behind it; false for one without an end, or of more than 64 bits.
bool varint(const std::uint8_t*& at, const std::uint8_t* end, std::uint64_t& value) {
  value = 0;
  for (int shift = 0; at < end && shift < 70; shift += 7) {
    const std::uint8_t byte = *at++;
    value |= static_cast<std::uint64_t>(byte & 127) << shift;
    if (byte < 128) return shift < 63 || byte < 2;
  }
  return false;
}

// The next field of a message, after which `at` is; false for damage.
bool next_part(const std::uint8_t*& at, const std::uint8_t* end, Part& part) {
  std::uint64_t tag = 0, size = 0;
  if (!varint(at, end, tag)) return false;
  part.number = tag >> 3, part.wire = static_cast<int>(tag & 7);
  part.begin = at;
  if (part.wire == 2) {
    if (!varint(at, end, size)) return false;
    part.begin = at;
  } else if (part.wire == 0) {
    const std::uint8_t* stop = at;
    if (!varint(stop, end, size)) return false;
    size = static_cast<std::uint64_t>(stop - at);
  } else if (part.wire == 1 || part.wire == 5) {
    size = part.wire == 1 ? 8 : 4;
  } else {
    return false;
  }
  if (part.number == 0 || size > static_cast<std::uint64_t>(end - at)) return false;
  at += size;
  part.end = at;
  return true;
}

struct Feature {
  std::string_view name;
  int kind = 0;  // 0: it has no list
  bool single = false;
  const std::uint8_t *begin = nullptr, *end = nullptr;
  std::uint64_t integer = 0;
};

// Whether a run of numbers holds one alone.
bool is_one(const std::uint8_t* begin, const std::uint8_t* end) {
  if (begin == end || end - begin > 10) return false;
  for (const std::uint8_t* at = begin; at + 1 < end; ++at)
    if (*at < 128) return false;
  return true;
}

bool read_values(const Part& given, Feature& feature) {
  const std::uint8_t* at = given.begin;
  std::size_t count = 0;
  bool single = false;
  feature.kind = static_cast<int>(given.number);
  feature.begin = given.begin, feature.end = given.end;
  Part value{}, first{};
  while (at < given.end) {
    if (!next_part(at, given.end, value) || value.number != 1) return false;
    const int plain = feature.kind == 1 ? 2 : feature.kind == 2 ? 5 : 0;
    if (value.wire != plain && value.wire != 2) return false;
    if (feature.kind == 1 || value.wire != 2) {
      single = true;
    } else if (feature.kind == 2) {
      if ((value.end - value.begin) % 4) return false;
      single = value.end - value.begin == 4;
    } else {
      if (value.end > value.begin && value.end[-1] > 127) return false;
      single = is_one(value.begin, value.end);
    }
    if (++count == 1) first = value;
  }
  feature.single = count == 1 && single;
  if (!feature.single) return true;
  feature.begin = first.begin, feature.end = first.end;
  const std::uint8_t* number = first.begin;
  return feature.kind != 3 || (varint(number, first.end, feature.integer) && number == first.end);
}

bool read_entry(const Part& entry, Feature& feature) {
  const std::uint8_t* at = entry.begin;
  bool has_feature = false;
  Part part{};
  while (at < entry.end) {
    if (!next_part(at, entry.end, part) || part.wire != 2) return false;
    if (part.number == 1) {
      feature.name = {reinterpret_cast<const char*>(part.begin), static_cast<std::size_t>(part.end - part.begin)};
    } else if (part.number == 2 && !has_feature) {
      has_feature = true;
      const std::uint8_t* inside = part.begin;
      if (inside == part.end) continue;
      Part values{};
      if (!next_part(inside, part.end, values) || inside != part.end) return false;
      if (values.wire != 2 || values.number > 3 || !read_values(values, feature)) return false;
    } else {
      return false;
    }
  }
  for (const char c : feature.name)
    if (c < ' ' || c > '~') return false;
  return true;
}

bool read_example(const std::uint8_t* data, std::size_t size, std::vector<Feature>& features) {
  features.clear();
  const std::uint8_t *at = data, *end = data + size;
  Part part{}, entry{};
  while (at < end) {
    if (!next_part(at, end, part) || part.number != 1 || part.wire != 2) return false;
    for (const std::uint8_t* inside = part.begin; inside < part.end;) {
      if (!next_part(inside, part.end, entry) || entry.number != 1 || entry.wire != 2) return false;
      Feature feature;
      if (features.size() == most_names || !read_entry(entry, feature)) return false;
      // A feature without a list counts too, for a second one of its name.
      for (const Feature& before : features)
        if (before.name == feature.name) return false;
      features.push_back(feature);
    }
  }
  return true;
}

// Which of the names each feature has; false where it held another kind before, or there are too many names.
bool add_names(const std::vector<Feature>& features, Records& found, std::vector<int>& kinds,
               std::vector<std::int64_t>& numbers) {
  numbers.clear();
  std::size_t guess = 0;
  for (const Feature& feature : features) {
    // Features come in turn: most often it is the one after that of the feature before.
    const std::size_t count = found.names.size();
    std::size_t number = count;
    for (std::size_t i = 0; i < count && number == count; ++i)
      if (found.names[(guess + i) % count] == feature.name) number = (guess + i) % count;
    if (number == count) {
      if (count == most_names) return false;
      found.names.emplace_back(feature.name), kinds.push_back(0);
    }
    if (feature.kind != 0 && kinds[number] != 0 && kinds[number] != feature.kind) return false;
    if (feature.kind != 0) kinds[number] = feature.kind;
    numbers.push_back(static_cast<std::int64_t>(number)), guess = number + 1;
  }
  return true;
}

void add_features(const std::vector<Feature>& features, const std::vector<std::int64_t>& numbers,
                  const std::uint8_t* data, std::int64_t begin, Records& found) {
  for (std::size_t i = 0; i < features.size(); ++i) {
    const Feature& feature = features[i];
    if (feature.kind == 0) continue;
    found.record.push_back(static_cast<std::int64_t>(found.offset.size()));
    found.name.push_back(numbers[i]);
    found.kind.push_back(feature.kind + (feature.single ? 0 : list));
    found.begin.push_back(begin + (feature.begin - data)), found.bytes.push_back(feature.end - feature.begin);
    found.integer.push_back(static_cast<std::int64_t>(feature.integer));
  }
}

}  // namespace

Records scan_records(BlockReader& reader, std::int64_t at, const RecordChecks& checks) {
  Records found;
  std::vector<Feature> features;
  std::vector<int> kinds;
  std::vector<std::int64_t> numbers;
  found.next = at;
  while (found.offset.size() < checks.most) {
    const std::uint8_t* const head = reader.at(found.next, 12);
    if (head == nullptr || !has_sum(head, 8)) return found;
    const std::uint64_t claimed = little(head, 8);
    const std::int64_t left = std::min(reader.size() - found.next - 16, checks.most_bytes);
    if (left < 0 || claimed > static_cast<std::uint64_t>(left)) return found;
    const std::int64_t begin = found.next + 12, size = static_cast<std::int64_t>(claimed);
    if (checks.data || checks.features) {
      const std::uint8_t* const data = reader.at(begin, size + 4);
      const std::size_t count = static_cast<std::size_t>(size);
      if (data == nullptr || (checks.data && !has_sum(data, count))) return found;
      if (checks.features) {
        if (!read_example(data, count, features) || !add_names(features, found, kinds, numbers)) return found;
        add_features(features, numbers, data, begin, found);
      }
    }
    found.offset.push_back(begin), found.length.push_back(size);
    found.next = begin + size + 4;
  }
  return found;
}

}  // namespace headrace
