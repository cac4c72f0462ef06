// The sample's own random numbers: Philox4x64-10 (Salmon et al., SC 2011), counted and turned into doubles as NumPy does.
#pragma once

#include <cstdint>

namespace headrace {

class Philox {
 public:
  // The counter that headrace.context.seeds lays out: (draws, position, epoch, purpose); `before` numbers were drawn already.
  Philox(std::uint64_t key0, std::uint64_t key1, std::uint64_t position, std::uint64_t epoch, std::uint64_t purpose,
         int before = 0)
      : key_{key0, key1}, counter_{static_cast<std::uint64_t>(before) / 4, position, epoch, purpose} {
    for (int i = before % 4; i > 0; --i) next();
  }

  // Uniform in [0, 1), 53 bits.
  double random() {
    ++drawn_;
    return static_cast<double>(next() >> 11) * (1.0 / 9007199254740992.0);
  }

  int drawn() const { return drawn_; }

 private:
  std::uint64_t next() {
    if (used_ == 4) {
      // NumPy counts first and draws then; word 0 never overflows into the position: that would take 2**64 draws.
      ++counter_[0];
      refill();
      used_ = 0;
    }
    return block_[used_++];
  }

  void refill() {
    std::uint64_t c0 = counter_[0], c1 = counter_[1], c2 = counter_[2], c3 = counter_[3];
    std::uint64_t k0 = key_[0], k1 = key_[1];
    for (int round = 0; round < 10; ++round) {
      if (round > 0) {
        k0 += 0x9E3779B97F4A7C15ULL;
        k1 += 0xBB67AE8584CAA73BULL;
      }
      const unsigned __int128 a = static_cast<unsigned __int128>(0xD2E7470EE14C6C93ULL) * c0;
      const unsigned __int128 b = static_cast<unsigned __int128>(0xCA5A826395121157ULL) * c2;
      c0 = static_cast<std::uint64_t>(b >> 64) ^ c1 ^ k0;
      c1 = static_cast<std::uint64_t>(b);
      c2 = static_cast<std::uint64_t>(a >> 64) ^ c3 ^ k1;
      c3 = static_cast<std::uint64_t>(a);
    }
    block_[0] = c0, block_[1] = c1, block_[2] = c2, block_[3] = c3;
  }

  std::uint64_t key_[2], counter_[4], block_[4] = {};
  int used_ = 4;
  int drawn_ = 0;
};

}  // namespace headrace
