// The kernels of GpuKernels, for one dtype and head_dim. NVRTC compiles them on the machine with
// the GPU, from cuda_kernels.cc; tests/unit/core/host_kernels.cc on a host, a thread a lane. NVRTC
// brings no headers.
//
// Whoever compiles defines EPO_BFLOAT16, EPO_FLOAT16, EPO_FLOAT32 or EPO_FLOAT64, and kSlots, how
// many channels of a head a lane has. T is what tensors hold, W what is computed in.

#ifndef EPO_KERNEL
#define EPO_KERNEL extern "C" __global__
#endif

typedef long long int64;

#if EPO_BFLOAT16
typedef unsigned short T;
typedef float W;
__device__ W Load(const T* x) { return __uint_as_float((unsigned)*x << 16); }
__device__ void Store(T* x, W value) {
  const unsigned bits = __float_as_uint(value);
  *x = value != value ? 0x7fff : (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}
#elif EPO_FLOAT16
typedef unsigned short T;
typedef float W;
__device__ W Load(const T* x) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(*x));
  return value;
}
__device__ void Store(T* x, W value) {
  unsigned short bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  *x = bits;
}
#else
#if EPO_FLOAT64
typedef double T;
#else
typedef float T;
#endif
typedef T W;
__device__ W Load(const T* x) { return *x; }
__device__ void Store(T* x, W value) { *x = value; }
#endif

__device__ W Infinity() { return (W)__int_as_float(0x7f800000); }
__device__ float Exp(float x) { return expf(x); }
__device__ double Exp(double x) { return exp(x); }
__device__ float Log(float x) { return logf(x); }
__device__ double Log(double x) { return log(x); }

// One thread a pair of channels.
EPO_KERNEL void Rotate(T* x, const W* cos, const W* sin, int64 pairs, int heads, int head_dim,
                       int half) {
  const int64 i = (int64)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= pairs) return;
  const int64 head = i / half;
  const int channel = (int)(i % half);
  const int64 factor = head / heads * half + channel;
  T* at = x + head * head_dim + channel;
  const W a = Load(at);
  const W b = Load(at + half);
  Store(at, a * cos[factor] - b * sin[factor]);
  Store(at + half, b * cos[factor] + a * sin[factor]);
}

// One warp a row and head; the rows of a block are neighbours, so that most of what it reads is in
// the cache. The softmax is summed up on the way, relative to the largest score so far.
EPO_KERNEL void Attend(const T* query, const T* key, const T* value, const T* parent_key,
                       const T* parent_value, int64 parent_stride, const int64* parent,
                       const int64* first, const int64* base, const int64* split,
                       const int64* tail_base, const int64* position, int64 rows, int heads,
                       int kv_heads, int head_dim, W scale, T* out) {
  const int64 row = (int64)blockIdx.x * blockDim.y + threadIdx.y;
  if (row >= rows) return;
  const int head = blockIdx.y;
  const int64 offset = head / (heads / kv_heads) * head_dim;
  const int64 stride = (int64)kv_heads * head_dim;
  const int64 inherited = parent[row] * parent_stride + offset;
  const int64 changed = first[row];
  const int64 own = base[row];
  const int64 own_end = split[row];
  const int64 own_tail = tail_base[row];
  const int64 last = position[row];
  const int64 at = (row * heads + head) * head_dim;

  W q[kSlots], sums[kSlots];
  for (int s = 0; s < kSlots; ++s) {
    const int channel = threadIdx.x + 32 * s;
    q[s] = channel < head_dim ? Load(query + at + channel) * scale : 0;
    sums[s] = 0;
  }
  W largest = -Infinity();
  W total = 0;
  for (int64 j = 0; j <= last; ++j) {
    const T* k = parent_key + inherited + j * stride;
    const T* v = parent_value + inherited + j * stride;
    if (j >= changed) {
      const int64 of = (j == last ? row : (j < own_end ? own : own_tail) + j) * stride + offset;
      k = key + of;
      v = value + of;
    }
    W score = 0;
    for (int s = 0; s < kSlots; ++s) {
      const int channel = threadIdx.x + 32 * s;
      if (channel < head_dim) score += q[s] * Load(k + channel);
    }
    for (int lanes = 16; lanes > 0; lanes /= 2) score += __shfl_xor_sync(~0u, score, lanes);
    const W before = largest;
    if (score > largest) largest = score;
    const W keep = Exp(before - largest);
    const W weight = Exp(score - largest);
    total = total * keep + weight;
    for (int s = 0; s < kSlots; ++s) {
      const int channel = threadIdx.x + 32 * s;
      if (channel < head_dim) sums[s] = sums[s] * keep + weight * Load(v + channel);
    }
  }
  for (int s = 0; s < kSlots; ++s) {
    const int channel = threadIdx.x + 32 * s;
    if (channel < head_dim) Store(out + at + channel, sums[s] / total);
  }
}

// One warp a row. The normalised row is float32's whatever T is, as in transformers; the product
// with the weight is T's.
EPO_KERNEL void RmsNorm(const T* x, const T* weight, int64 rows, int width, float epsilon, T* out) {
  const int64 row = (int64)blockIdx.x * blockDim.y + threadIdx.y;
  if (row >= rows) return;
  x += row * width;
  out += row * width;
  W squares = 0;
  for (int i = threadIdx.x; i < width; i += 32) {
    const float value = (float)Load(x + i);
    squares += value * value;
  }
  for (int lanes = 16; lanes > 0; lanes /= 2) squares += __shfl_xor_sync(~0u, squares, lanes);
  const float factor = rsqrt(squares / width + epsilon);
  for (int i = threadIdx.x; i < width; i += 32) {
    T normed;
    Store(&normed, (W)((float)Load(x + i) * factor));
    Store(out + i, Load(weight + i) * Load(&normed));
  }
}

// Joins sums of exponentials that are relative to different largest values.
__device__ void Join(W& largest, W& total, W other_largest, W other_total) {
  const W most = largest > other_largest ? largest : other_largest;
  if (most == -Infinity()) return;
  total = total * Exp(largest - most) + other_total * Exp(other_largest - most);
  largest = most;
}

// One block of 256 a row.
EPO_KERNEL void LogSumExp(const T* logits, int64 columns, W* out, int64 out_stride) {
  const T* x = logits + blockIdx.x * columns;
  W largest = -Infinity();
  W total = 0;
  for (int64 i = threadIdx.x; i < columns; i += 256) {
    const W value = Load(x + i);
    if (value > largest) {
      total = total * Exp(largest - value) + 1;
      largest = value;
    } else {
      total += Exp(value - largest);
    }
  }
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    Join(largest, total, __shfl_xor_sync(~0u, largest, lanes), __shfl_xor_sync(~0u, total, lanes));
  }
  __shared__ W largests[8], totals[8];
  if (threadIdx.x % 32 == 0) {
    largests[threadIdx.x / 32] = largest;
    totals[threadIdx.x / 32] = total;
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int warp = 1; warp < 8; ++warp) Join(largest, total, largests[warp], totals[warp]);
  out[blockIdx.x * out_stride] = largest + Log(total);
}
