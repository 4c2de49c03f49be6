// A caching allocator for libtorch's CPU tensors.
//
// glibc gives large blocks back to the kernel when they are freed, so every
// training step faults its activations in again, page by page. Here a freed
// block of 64 KiB or more waits, by size class, for the next request; blocks
// of 2 MiB and more ask for huge pages. What waits is bounded: when the total
// would pass a quarter more than the peak in use, it goes back to the system.
#include <c10/core/CPUAllocator.h>
#include <sys/mman.h>

#include <bit>
#include <cstdlib>
#include <mutex>
#include <new>
#include <unordered_map>
#include <vector>

#include "guard.h"

namespace {

constexpr size_t kCached = 64 << 10;
constexpr size_t kHuge = 2 << 20;
constexpr size_t kSlack = 256 << 20;
constexpr size_t kHeader = 64;  // keeps the alignment that ATen asks for

struct Header {
  size_t bytes;  // of the whole block where it is cached, else 0
};

// Eight classes for each power of two: at most an eighth is wasted.
size_t class_of(size_t n) {
  size_t step = std::bit_floor(n) / 8;
  n = (n + step - 1) / step * step;
  size_t page = n >= kHuge ? kHuge / 8 : 4096;
  return (n + page - 1) / page * page;
}

void *map(size_t bytes) {
  size_t align = bytes >= kHuge ? kHuge : 4096;
  size_t room = bytes + align - 4096;
  void *p = mmap(nullptr, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) return nullptr;
  auto at = reinterpret_cast<uintptr_t>(p);
  uintptr_t begin = (at + align - 1) / align * align;
  if (begin > at) munmap(p, begin - at);
  if (at + room > begin + bytes)
    munmap(reinterpret_cast<void *>(begin + bytes), at + room - begin - bytes);
  p = reinterpret_cast<void *>(begin);
  if (bytes >= kHuge) madvise(p, bytes, MADV_HUGEPAGE);
  return p;
}

class Cache final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t n) override {
    void *p = n == 0 ? nullptr : take(n);
    return {p, p, &Cache::give_back, c10::Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &Cache::give_back; }
  void copy_data(void *dst, const void *src, size_t n) const override {
    default_copy_data(dst, src, n);
  }

  void release() {
    std::lock_guard lock(mu_);
    drop_idle();
  }
  void count(int64_t *used, int64_t *peak, int64_t *held) {
    std::lock_guard lock(mu_);
    *used = used_;
    *peak = peak_;
    *held = used_ + idle_;
  }

  // Never destroyed: tensors may outlive static destructors.
  static Cache &get() {
    static Cache *c = new Cache;
    return *c;
  }

 private:
  void *take(size_t n) {
    void *block = nullptr;
    size_t bytes = 0;
    if (n + kHeader < kCached) {
      if (posix_memalign(&block, kHeader, n + kHeader) != 0) block = nullptr;
    } else {
      bytes = class_of(n + kHeader);
      block = take_cached(bytes);
    }
    TORCH_CHECK_WITH(OutOfMemoryError, block, "out of host memory: ", n, " bytes");
    new (block) Header{bytes};
    return static_cast<char *>(block) + kHeader;
  }

  void *take_cached(size_t bytes) {
    std::lock_guard lock(mu_);
    auto &waiting = idle_blocks_[bytes];
    void *block;
    if (!waiting.empty()) {
      block = waiting.back();
      waiting.pop_back();
      idle_ -= bytes;
    } else {
      if (used_ + idle_ + bytes > peak_ + peak_ / 4 + kSlack) drop_idle();
      block = map(bytes);
      if (!block) {
        drop_idle();
        block = map(bytes);
      }
      if (!block) return nullptr;
    }
    used_ += bytes;
    peak_ = std::max(peak_, used_);
    return block;
  }

  static void give_back(void *p) {
    if (!p) return;
    void *block = static_cast<char *>(p) - kHeader;
    size_t bytes = static_cast<Header *>(block)->bytes;
    if (bytes == 0) {
      free(block);
      return;
    }
    Cache &c = get();
    std::lock_guard lock(c.mu_);
    c.used_ -= bytes;
    c.idle_ += bytes;
    c.idle_blocks_[bytes].push_back(block);
  }

  void drop_idle() {
    for (auto &[bytes, blocks] : idle_blocks_) {
      for (void *b : blocks) munmap(b, bytes);
      blocks.clear();
    }
    idle_ = 0;
  }

  std::mutex mu_;
  std::unordered_map<size_t, std::vector<void *>> idle_blocks_;
  size_t used_ = 0, idle_ = 0, peak_ = 0;
};

}  // namespace

void tx_cache_host_memory(void) {
  static bool once = [] {
    c10::SetCPUAllocator(&Cache::get(), 1);
    return true;
  }();
  (void)once;
}

void tx_host_memory(int64_t *used, int64_t *peak, int64_t *held) {
  Cache::get().count(used, peak, held);
}

void tx_release_host_memory(void) { Cache::get().release(); }
