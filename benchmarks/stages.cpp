// How long libjpeg-turbo takes for the stages of decoding each file, in full: for native_profile.py.
//   stages REPEATS FILE...      prints for all files together: seconds of Huffman decoding, inverse DCT, upsampling and color
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <vector>

#include <jpeglib.h>

using Bytes = std::vector<unsigned char>;

static double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

enum class Until { coefficients, components, pixels };

static double decode(const Bytes& file, Until until) {
  jpeg_error_mgr errors;
  jpeg_decompress_struct info;
  info.err = jpeg_std_error(&errors);
  jpeg_create_decompress(&info);
  const double began = now();
  jpeg_mem_src(&info, file.data(), static_cast<unsigned long>(file.size()));
  jpeg_read_header(&info, TRUE);
  // At a quarter of the size all codes are read, and next to nothing is transformed.
  if (until == Until::coefficients) info.scale_denom = 4;
  info.raw_data_out = until == Until::components;
  info.out_color_space = until == Until::coefficients ? info.jpeg_color_space : JCS_RGB;
  jpeg_start_decompress(&info);
  if (info.raw_data_out) {
    const int rows = info.max_v_samp_factor * DCTSIZE;
    std::vector<std::vector<unsigned char>> planes(info.num_components);
    std::vector<std::vector<JSAMPROW>> lines(info.num_components);
    std::vector<JSAMPARRAY> all;
    for (int c = 0; c < info.num_components; ++c) {
      const std::size_t stride = info.comp_info[c].width_in_blocks * DCTSIZE + 64;
      planes[c].resize(stride * rows);
      for (int y = 0; y < rows; ++y) lines[c].push_back(&planes[c][stride * y]);
      all.push_back(lines[c].data());
    }
    while (info.output_scanline < info.output_height) jpeg_read_raw_data(&info, all.data(), rows);
  } else {
    std::vector<unsigned char> row(static_cast<std::size_t>(info.output_width) * info.output_components);
    JSAMPROW line = row.data();
    while (info.output_scanline < info.output_height) jpeg_read_scanlines(&info, &line, 1);
  }
  jpeg_finish_decompress(&info);
  const double seconds = now() - began;
  jpeg_destroy_decompress(&info);
  return seconds;
}

int main(int argc, char** argv) {
  const int repeats = std::atoi(argv[1]);
  double sums[3] = {0, 0, 0};
  for (int i = 2; i < argc; ++i) {
    std::ifstream stream(argv[i], std::ios::binary);
    const Bytes file{std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
    for (int stage = 0; stage < 3; ++stage) {
      double least = 1e9;
      for (int n = 0; n < repeats; ++n) least = std::min(least, decode(file, static_cast<Until>(stage)));
      sums[stage] += least;
    }
  }
  std::printf("%.9f %.9f %.9f\n", sums[0], sums[1] - sums[0], sums[2] - sums[1]);
}
