// Sources from Python's objects.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "../source/arrays.hpp"
#include "../source/bytes.hpp"
#include "../source/files.hpp"
#include "../source/mapped.hpp"
#include "../source/pieces.hpp"
#include "../source/ranges.hpp"
#include "bindings.hpp"

namespace headrace {
namespace {

using Bytes = Array<std::uint8_t>;
using Begins = nb::ndarray<nb::ro, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Numbers = Begins;

Paths paths_of(const Bytes& text, const Begins& begins, const nb::bytes& folder) {
  const bool wide = begins.itemsize() == 8;
  if (!wide && begins.itemsize() != 4) throw std::invalid_argument("`begins` must have items of 4 or 8 bytes");
  if (begins.size() == 0) throw std::invalid_argument("`begins` must hold one number more than there are paths");
  return Paths(reinterpret_cast<const char*>(text.data()), begins.data(), wide,
               static_cast<std::int64_t>(begins.size()) - 1, std::string(folder.c_str(), folder.size()));
}

std::vector<FileFacts> facts_of(const std::optional<Array<std::int64_t>>& given, std::int64_t files) {
  std::vector<FileFacts> facts(static_cast<std::size_t>(files));
  if (!given) return facts;
  if (given->ndim() != 2 || given->shape(0) != facts.size() || given->shape(1) != 2)
    throw std::invalid_argument("`facts` must have the shape (files, 2): size and time of modification of each");
  for (std::size_t i = 0; i < facts.size(); ++i)
    facts[i].size = given->data()[2 * i], facts[i].modified_ns = given->data()[2 * i + 1];
  return facts;
}

Integers integers(const Numbers& numbers) {
  if (numbers.dtype() == nb::dtype<std::int64_t>()) return {numbers.data(), Integers::i64};
  if (numbers.dtype() == nb::dtype<std::int32_t>()) return {numbers.data(), Integers::i32};
  if (numbers.dtype() == nb::dtype<std::uint32_t>()) return {numbers.data(), Integers::u32};
  throw std::invalid_argument("`file`, `offset` and `length` must be arrays of int64, int32 or uint32");
}

HeldSource ranges(Bytes text, Begins begins, const nb::bytes& folder, Numbers file, Numbers offset, Numbers length,
                  const std::optional<Array<std::int64_t>>& facts, std::size_t open_files) {
  Paths paths = paths_of(text, begins, folder);
  const std::int64_t files = paths.count();
  const std::size_t count = file.size();
  if (offset.size() != count || length.size() != count)
    throw std::invalid_argument("`file`, `offset` and `length` must have one number for each sample");
  const Integers of_file = integers(file), offsets = integers(offset), lengths = integers(length);
  for (std::size_t row = 0; row < count; ++row) {
    const auto i = static_cast<std::int64_t>(row);
    const std::int64_t at = offsets[i], size = lengths[i];
    if (of_file[i] < 0 || of_file[i] >= files || at < 0 || size < 0 || at > INT64_MAX - size)
      throw std::invalid_argument("sample " + std::to_string(i) + " has no range: file " +
                                  std::to_string(of_file[i]) + " of " + std::to_string(files) + ", offset " +
                                  std::to_string(at) + ", length " + std::to_string(size));
  }
  auto open = std::make_unique<OpenFiles>(std::move(paths), facts_of(facts, files), open_files);
  return {std::make_shared<RangeSource>(std::move(open), of_file, offsets, lengths,
                                        static_cast<std::int64_t>(count)),
          keep([text, begins, file, offset, length] {})};
}

HeldSource pieces(const std::vector<nb::bytes>& paths, const Array<std::int64_t>& facts, Vector first, Vector file,
                  Vector offset, Vector length) {
  const std::vector<FileFacts> known = facts_of(facts, static_cast<std::int64_t>(paths.size()));
  const std::size_t count = file.size();
  const std::int64_t* const at = first.data();
  if (first.size() == 0 || offset.size() != count || length.size() != count || at[0] != 0 ||
      at[first.size() - 1] != static_cast<std::int64_t>(count) || !std::is_sorted(at, at + first.size()))
    throw std::invalid_argument("`first` must rise from 0 to the number of pieces, which have a file, offset and length each");
  for (std::size_t i = 0; i < count; ++i)
    if (file.data()[i] < 0 || file.data()[i] >= static_cast<std::int64_t>(paths.size()) || offset.data()[i] < 0 ||
        length.data()[i] < 0 || length.data()[i] > known[static_cast<std::size_t>(file.data()[i])].size - offset.data()[i])
      throw std::invalid_argument("piece " + std::to_string(i) + " lies in no file");
  std::vector<PieceFile> files;
  for (std::size_t i = 0; i < known.size(); ++i)
    files.push_back({std::string(paths[i].c_str(), paths[i].size()), known[i].size, known[i].modified_ns});
  const PieceSpans spans{first.data(), file.data(), offset.data(), length.data()};
  return {std::make_shared<PieceSource>(std::move(files), spans, static_cast<std::int64_t>(first.size()) - 1),
          keep([first, file, offset, length] {})};
}

HeldSource packed(Bytes buffer, Vector begins, bool mapped) {
  const std::int64_t size = static_cast<std::int64_t>(buffer.size());
  const std::int64_t* const at = begins.data();
  if (begins.size() == 0 || at[0] < 0 || at[begins.size() - 1] > size || !std::is_sorted(at, at + begins.size()))
    throw std::invalid_argument("`begins` must rise from 0 at least to the buffer's size at most, one more than images");
  return {std::make_shared<PackedBytesSource>(buffer.data(), size, at, static_cast<std::int64_t>(begins.size()) - 1,
                                              mapped),
          keep([buffer, begins] {})};
}

nb::object path_of(const ReadFailure& failure) {
  return nb::steal(PyUnicode_DecodeFSDefaultAndSize(failure.path.data(), static_cast<Py_ssize_t>(failure.path.size())));
}

const char* kind_of(const ReadFailure& failure) {
  switch (failure.kind) {
    case ReadFailure::missing:
      return "missing";
    case ReadFailure::removed:
      return "removed";
    case ReadFailure::replaced:
      return "replaced";
    case ReadFailure::changed:
      return "changed";
    case ReadFailure::cut_short:
      return "cut short";
    default:
      return "unreadable";
  }
}

HeldSource files_source(Bytes text, Begins begins, const nb::bytes& folder) {
  return {std::make_shared<FileSource>(paths_of(text, begins, folder)), keep([text, begins] {})};
}

HeldSource bytes_source(const nb::list& images) {
  std::vector<std::pair<const std::uint8_t*, std::size_t>> contents;
  const nb::tuple held(images);
  for (const nb::handle image : held) {
    if (!PyBytes_Check(image.ptr())) throw nb::type_error("`images` must be a list of bytes");
    contents.emplace_back(reinterpret_cast<const std::uint8_t*>(PyBytes_AsString(image.ptr())),
                          static_cast<std::size_t>(PyBytes_Size(image.ptr())));
  }
  return {std::make_shared<BytesSource>(std::move(contents)), keep([held] {})};
}

HeldSource arrays_source(Bytes images, bool mapped) {
  if (images.ndim() != 3 && (images.ndim() != 4 || images.shape(3) < 1 || images.shape(3) > 4))
    throw std::invalid_argument("`images` must have the shape (N, H, W) or (N, H, W, C), with C from 1 to 4");
  const int channels = images.ndim() == 3 ? 1 : static_cast<int>(images.shape(3));
  return {std::make_shared<ArraySource>(images.data(), static_cast<std::int64_t>(images.shape(0)),
                                        static_cast<int>(images.shape(1)), static_cast<int>(images.shape(2)), channels,
                                        mapped),
          keep([images] {})};
}

template <class T>
using Each = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

HeldSource mapped_source(const std::vector<Bytes>& files, Each<std::int32_t> file, Each<std::int64_t> offset,
                         Each<std::int64_t> length, Each<std::uint32_t> checksum, Each<std::int32_t> height,
                         Each<std::int32_t> width, int channels) {
  const std::size_t count = file.size();
  for (const std::size_t size : {offset.size(), length.size(), checksum.size(), height.size(), width.size()})
    if (size != count) throw std::invalid_argument("there must be one number of each kind for each sample");
  if (channels < 1 || channels > 4) throw std::invalid_argument("`channels` must be from 1 to 4");
  std::vector<MappedBytes> maps;
  for (const Bytes& each : files) maps.push_back({each.data(), static_cast<std::int64_t>(each.size())});
  const MappedSpans spans{file.data(), offset.data(), length.data(), checksum.data(), height.data(), width.data()};
  return {std::make_shared<MappedSource>(std::move(maps), spans, static_cast<std::int64_t>(count), channels),
          keep([files, file, offset, length, checksum, height, width] {})};
}

// A whole file, mapped; no descriptor stays open, as one for each of a thousand shards would. None if the file is another
// than its size and time of modification say, or cannot be mapped.
nb::object map_file(const nb::bytes& path, std::int64_t size, std::int64_t modified_ns) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (file < 0) return nb::none();
  struct stat facts {};
  void* data = MAP_FAILED;
#ifdef __APPLE__
  const auto at = [&facts] { return facts.st_mtimespec.tv_sec * INT64_C(1000000000) + facts.st_mtimespec.tv_nsec; };
#else
  const auto at = [&facts] { return facts.st_mtim.tv_sec * INT64_C(1000000000) + facts.st_mtim.tv_nsec; };
#endif
  if (::fstat(file, &facts) == 0 && facts.st_size == size && at() == modified_ns && size > 0)
    data = ::mmap(nullptr, static_cast<std::size_t>(size), PROT_READ, MAP_SHARED, file, 0);
  ::close(file);
  if (data == MAP_FAILED) return nb::none();
  struct Held {
    void* data;
    std::size_t size;
  };
  const nb::capsule owner(new Held{data, static_cast<std::size_t>(size)}, [](void* held) noexcept {
    Held* const map = static_cast<Held*>(held);
    ::munmap(map->data, map->size);
    delete map;
  });
  const auto count = static_cast<std::size_t>(size);
  return nb::cast(nb::ndarray<nb::numpy, const std::uint8_t, nb::ndim<1>>(data, {count}, owner));
}

}  // namespace

void bind_sources(nb::module_& module) {
  nb::class_<HeldSource>(module, "Source", "Where samples come from; safe on any number of threads.")
      .def_static("files", &files_source, nb::arg("text"), nb::arg("begins"), nb::arg("folder"),
                  "One encoded image in each file.")
      .def_static("ranges", &ranges, nb::arg("text"), nb::arg("begins"), nb::arg("folder"), nb::arg("file"),
                  nb::arg("offset"), nb::arg("length"), nb::arg("facts") = nb::none(), nb::arg("open_files") = 64,
                  "Encoded images in shards: for each sample its file, and where in the file it lies.")
      .def_static("pieces", &pieces, nb::arg("paths"), nb::arg("facts"), nb::arg("first"), nb::arg("file"),
                  nb::arg("offset"), nb::arg("length"),
                  "Encoded images in files that nobody changes: sample i is what pieces first[i] to first[i + 1] hold.")
      .def_static("arrays", &arrays_source, nb::arg("images"), nb::arg("mapped") = false,
                  "Pixels in an array of bytes, (N, H, W) or (N, H, W, C).")
      .def_static("bytes", &bytes_source, nb::arg("images"), "Encoded images, each in bytes of its own.")
      .def_static("packed", &packed, nb::arg("buffer"), nb::arg("begins"), nb::arg("mapped") = false,
                  "Encoded images side by side in one buffer.")
      .def_static("mapped", &mapped_source, nb::arg("files"), nb::arg("file"), nb::arg("offset"), nb::arg("length"),
                  nb::arg("checksum"), nb::arg("height"), nb::arg("width"), nb::arg("channels"),
                  "Samples in memory-mapped files, with checksums: encoded, or pixels of any size.")
      .def("__len__", [](const HeldSource& held) { return held.source->length(); })
      .def_prop_ro(
          "open_files",
          [](const HeldSource& held) {
            const auto* ranges = dynamic_cast<const RangeSource*>(held.source.get());
            return ranges == nullptr ? std::size_t{0} : ranges->files().held();
          },
          "How many files are held open.");

  module.def("map_file", &map_file, nb::arg("path"), nb::arg("size"), nb::arg("modified_ns"),
             "A whole file as a read-only array, mapped; None if it has another size or time of modification.");
  module.attr("NARROW_RANGES") = true;  // ranges may be of 32 bits

  nb::class_<ReadFailure>(module, "ReadFailure", "Why a range of a file cannot be read.")
      .def_prop_ro("kind", &kind_of)
      .def_prop_ro("path", &path_of)
      .def_ro("offset", &ReadFailure::offset)
      .def_ro("length", &ReadFailure::length)
      .def_ro("found", &ReadFailure::found, "The file's size now, in bytes; -1 if it is not known.")
      .def_ro("error", &ReadFailure::error, "The operating system's errno, or 0.");
}

}  // namespace headrace
