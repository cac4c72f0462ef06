// The rows of one batch: which samples they are made of, in which order, and where they are written.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "geometry/philox.hpp"
#include "recipe.hpp"
#include "render.hpp"
#include "source/source.hpp"

namespace headrace {

// Where in the data the first sample of a batch is: what its random numbers are derived from.
struct Place {
  std::uint64_t key0, key1, epoch, position, purpose;
};

struct BatchRows {
  std::shared_ptr<const Recipe> recipe;
  std::shared_ptr<const Source> source;
  std::vector<std::int64_t> keys;
  Place place;
  // By row, how far its sample is from the place; empty: as far as the row.
  std::vector<std::int64_t> which;
  std::uint8_t* out;

  std::size_t count() const { return keys.size(); }

  // Make row `i`. `drawn` random numbers were drawn for it before, and have been afterwards. False: the row is missing,
  // and `scratch.reading.failure` may say why.
  bool make(std::size_t i, Scratch& scratch, Seconds& seconds, std::int32_t& drawn) const {
    Reading& reading = scratch.reading;
    reading.ahead = i + 1 < keys.size() ? source->ahead(keys[i + 1]) : Ahead{};
    reading.seconds = 0, reading.failure.kind = ReadFailure::none;
    const bool read = source->read(keys[i], recipe->max_bytes, reading);
    seconds.read += reading.seconds;
    if (!read) return false;
    const std::uint64_t position = place.position + (which.empty() ? i : static_cast<std::uint64_t>(which[i]));
    Philox random(place.key0, place.key1, position, place.epoch, place.purpose, drawn < 0 ? 0 : drawn);
    const bool made = render(*recipe, reading.sample, random, scratch, out + i * recipe->row.bytes(), seconds);
    drawn = random.drawn();
    return source->intact() && made;
  }
};

}  // namespace headrace
