// A block of a GPU's threads on a host, and what kernels.cu uses of CUDA.
#ifndef EPO_TESTS_UNIT_CORE_HOST_BLOCK_H_
#define EPO_TESTS_UNIT_CORE_HOST_BLOCK_H_

#include <ucontext.h>

#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <vector>

namespace epo::host {

struct Index {
  int x = 0;
  int y = 0;
};

// Runs a kernel's blocks one after another. In each, every lane runs until it waits for the others,
// then the next one does: a round. Used by one thread.
class Block {
 public:
  // The one whose lane is running.
  static Block& Current() { return *current_; }

  void Run(Index blocks, Index threads, const std::function<void()>& kernel) {
    current_ = this;
    kernel_ = &kernel;
    size = threads;
    lanes_ = std::vector<Lane>(static_cast<size_t>(threads.x) * threads.y);
    for (block.y = 0; block.y < blocks.y; ++block.y) {
      for (block.x = 0; block.x < blocks.x; ++block.x) RunOne();
    }
  }

  // What `value` is in the lane of the warp whose number differs by `lanes`.
  template <class Value>
  Value Exchange(Value value, int lanes) {
    const size_t round = round_ % 2;
    std::memcpy(lanes_[lane_].sent[round].data(), &value, sizeof(value));
    Wait();
    std::memcpy(&value, lanes_[lane_ ^ lanes].sent[round].data(), sizeof(value));
    return value;
  }

  // Lets the other lanes come as far.
  void Wait() { swapcontext(&lanes_[lane_].context, &main_); }

  Index block, thread, size;

 private:
  struct Lane {
    ucontext_t context;
    std::vector<char> stack = std::vector<char>(64 << 10);
    bool ended = false;
    // In even and in odd rounds: a lane may send again before its neighbour has read.
    std::array<std::array<char, 8>, 2> sent;
  };

  static void Enter() {
    Block& self = *current_;
    (*self.kernel_)();
    self.lanes_[self.lane_].ended = true;
  }

  void RunOne() {
    for (Lane& lane : lanes_) {
      lane.ended = false;
      getcontext(&lane.context);
      lane.context.uc_stack.ss_sp = lane.stack.data();
      lane.context.uc_stack.ss_size = lane.stack.size();
      lane.context.uc_link = &main_;
      makecontext(&lane.context, &Block::Enter, 0);
    }
    bool any = true;
    for (round_ = 0; any; ++round_) {
      any = false;
      for (lane_ = 0; lane_ < std::ssize(lanes_); ++lane_) {
        if (lanes_[lane_].ended) continue;
        any = true;
        thread = {static_cast<int>(lane_) % size.x, static_cast<int>(lane_) / size.x};
        swapcontext(&main_, &lanes_[lane_].context);
      }
    }
  }

  static inline Block* current_ = nullptr;
  const std::function<void()>* kernel_ = nullptr;
  std::vector<Lane> lanes_;
  std::ptrdiff_t lane_ = 0;
  int64_t round_ = 0;
  ucontext_t main_;
};

}  // namespace epo::host

// NOLINTBEGIN(bugprone-reserved-identifier): these are CUDA's names
#define EPO_KERNEL [[maybe_unused]] static
#define __device__ [[maybe_unused]] static
// Blocks run one after another.
#define __shared__ static
#define threadIdx (epo::host::Block::Current().thread)
#define blockIdx (epo::host::Block::Current().block)
#define blockDim (epo::host::Block::Current().size)
#define __syncthreads() epo::host::Block::Current().Wait()
#define __shfl_xor_sync(mask, value, lanes) epo::host::Block::Current().Exchange(value, lanes)
#define __uint_as_float(bits) std::bit_cast<float>(static_cast<unsigned>(bits))
#define __int_as_float(bits) std::bit_cast<float>(static_cast<int>(bits))
#define __float_as_uint(value) std::bit_cast<unsigned>(static_cast<float>(value))
// NOLINTEND(bugprone-reserved-identifier)

namespace epo::host {
template <class Value>
Value rsqrt(Value value) {
  return 1 / std::sqrt(value);
}
}  // namespace epo::host

#endif  // EPO_TESTS_UNIT_CORE_HOST_BLOCK_H_
