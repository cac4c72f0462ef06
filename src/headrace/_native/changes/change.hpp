// What is done to an image of bytes after its geometry: changes as a recipe has them, and what is drawn for one sample.
#pragma once

#include <vector>

#include "../geometry/philox.hpp"

namespace headrace {

struct Change {
  enum Kind {
    // Done as they are. Behind each, its numbers.
    brightness,    // factor
    contrast,      // factor
    saturation,    // factor
    hue,           // sixths of the circle
    pillow_hue,    // 1/256 of the circle, from 0 to 255
    torch_contrast,    // factor
    torch_saturation,  // factor
    torch_hue,     // share of the circle
    torch_grayscale,
    grayscale,
    invert,
    solarize,      // threshold
    posterize,     // bits
    autocontrast,
    equalize,
    channels,      // the channel that each is taken from
    sharpness,     // factor
    blur,          // rows, columns, sigma: odd numbers of pixels
    warp,          // inverse matrix (9), bilinear or not, fill of each channel
    pillow_warp,   // inverse matrix (6) in 1/65536, of the first pixel's middle; fill of each channel
    erase,         // top, left, height, width; bytes of a pixel
    upside_down,   // mirrored top to bottom
    // What is drawn.
    all,           // its parts, one after the other
    joined,        // the same; warps that follow each other are resampled once
    apply,         // chance: its parts, or none
    choice,        // one of its parts
    weighted,      // sum of the weights, weights: one of its parts
    jitter,        // for brightness, contrast, saturation and hue: whether, least, most; 1 for Pillow's hues, 2 for torch's colors
    distort,       // chance; for the four: least, most
    any_channels,
    any_blur,      // rows, columns, least and most sigma
    any_erase,     // chance, area least and most, log of ratio least and most, bytes of a pixel
    any_affine,    // 1 or -1, which degrees are times; their least, most; center (2); whether it shifts, how far (2);
                   // whether it scales, least, most; how many ways it shears, least, most (4); bilinear or not, fill
    any_perspective,  // chance; how many places a corner may move to across, down; bilinear or not, fill
  };
  Kind kind = all;
  std::vector<double> numbers;
  std::vector<Change> parts;
};

// One thing to do to one image: a kind that is done as it is.
struct Op {
  Change::Kind kind;
  std::vector<double> numbers;
  bool joins = false;  // a warp that is resampled together with the one before it
};

struct ImageSize {
  int height, width, channels;
};

// Add to `ops` what is drawn for one image, as Python's transforms draw it.
void draw(const Change& change, const ImageSize& size, Philox& random, std::vector<Op>& ops);

// What is wrong with the numbers of a change for images of this size; null if nothing is. `bytes`: of a pixel.
const char* complaint(const Change& change, const ImageSize& size, std::size_t bytes);

}  // namespace headrace
