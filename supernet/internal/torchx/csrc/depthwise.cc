// Depthwise convolution with a weight gradient of its own.
//
// oneDNN computes the weight gradient of channels-last 5×5 and 7×7 depthwise
// kernels at a tenth of the speed of everything around it. Here each image is
// copied, sixteen channels at a time, into a zero-padded scratch, and a whole
// row of the kernel accumulates in registers.
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <vector>

#include "guard.h"
#include "simd.h"

using at::Tensor;
using tx::give;
using tx::guard;
using tx::ref;

namespace {

constexpr int64_t kLanes = 16;
typedef float Vector __attribute__((vector_size(kLanes * sizeof(float))));
// A struct, because a template argument loses the alignment of a bare vector.
struct alignas(kLanes * sizeof(float)) Lanes {
  Vector v;
};

struct Geometry {
  int64_t n, c, h, w, oh, ow, kernel, stride, pad;

  int64_t blocks() const { return (c + kLanes - 1) / kLanes; }
  int64_t padded_w() const { return (ow - 1) * stride + kernel; }
  // Output rows handled at once, so that the scratch stays in the second cache.
  int64_t band() const {
    int64_t row = padded_w() * stride + ow;
    return std::clamp<int64_t>((128 << 10) / (row * int64_t{sizeof(Lanes)}), 1, oh);
  }
};

// Copies w pixels of sixteen channels, have of which exist, into dst.
TX_SIMD void gather(Lanes *dst, const float *src, int64_t w, int64_t c, int64_t have) {
  if (have >= kLanes) {
    for (int64_t x = 0; x < w; x++) __builtin_memcpy(dst + x, src + x * c, sizeof(Lanes));
    return;
  }
  for (int64_t x = 0; x < w; x++) {
    Lanes v{};
    for (int64_t i = 0; i < have; i++) v.v[i] = src[x * c + i];
    dst[x] = v;
  }
}

// dw[ky][kx] += Σ over rows and columns of dy · x. The row of the kernel is a
// compile-time size so that it lives in registers.
template <int K, int S>
inline __attribute__((always_inline)) void accumulate_fixed(
    const Lanes *x, int64_t padded_w, const Lanes *dy, int64_t rows, int64_t ow, Lanes *dw) {
  for (int ky = 0; ky < K; ky++) {
    Vector sum[K] = {};
    for (int64_t oy = 0; oy < rows; oy++) {
      const Lanes *px = x + (oy * S + ky) * padded_w, *pd = dy + oy * ow;
      for (int64_t ox = 0; ox < ow; ox++, px += S) {
        Vector g = pd[ox].v;
#pragma GCC unroll 8
        for (int kx = 0; kx < K; kx++) sum[kx] += g * px[kx].v;
      }
    }
    for (int kx = 0; kx < K; kx++) dw[ky * K + kx].v += sum[kx];
  }
}

#define TX_ACCUMULATE(K, S)                                                     \
  TX_SIMD void accumulate_##K##_##S(const Lanes *x, int64_t padded_w,           \
                                    const Lanes *dy, int64_t rows, int64_t ow,  \
                                    Lanes *dw) {                                \
    accumulate_fixed<K, S>(x, padded_w, dy, rows, ow, dw);                      \
  }
TX_ACCUMULATE(3, 1)
TX_ACCUMULATE(3, 2)
TX_ACCUMULATE(5, 1)
TX_ACCUMULATE(5, 2)
TX_ACCUMULATE(7, 1)
TX_ACCUMULATE(7, 2)

using Accumulate = void (*)(const Lanes *, int64_t, const Lanes *, int64_t, int64_t, Lanes *);

Accumulate accumulate_for(int64_t kernel, int64_t stride) {
  if (stride != 1 && stride != 2) return nullptr;
  switch (kernel) {
    case 3: return stride == 1 ? accumulate_3_1 : accumulate_3_2;
    case 5: return stride == 1 ? accumulate_5_1 : accumulate_5_2;
    case 7: return stride == 1 ? accumulate_7_1 : accumulate_7_2;
  }
  return nullptr;
}

struct Scratch {
  std::vector<Lanes> x, dy;
  Scratch(const Geometry &g)
      : x(((g.band() - 1) * g.stride + g.kernel) * g.padded_w()), dy(g.band() * g.ow) {}
};

// One image's share of one block of channels.
void one_image(const Geometry &g, Accumulate f, const float *x, const float *dy,
               int64_t have, Scratch &s, Lanes *dw) {
  int64_t pw = g.padded_w();
  for (int64_t top = 0; top < g.oh; top += g.band()) {
    int64_t rows = std::min(g.band(), g.oh - top);
    std::fill(s.x.begin(), s.x.end(), Lanes{});
    for (int64_t r = 0; r < (rows - 1) * g.stride + g.kernel; r++) {
      int64_t y = top * g.stride + r - g.pad;
      if (y < 0 || y >= g.h) continue;
      int64_t w = std::min(g.w, pw - g.pad);
      gather(&s.x[r * pw + g.pad], x + y * g.w * g.c, w, g.c, have);
    }
    gather(s.dy.data(), dy + top * g.ow * g.c, rows * g.ow, g.c, have);
    f(s.x.data(), pw, s.dy.data(), rows, g.ow, dw);
  }
}

// Writes the gradient, (c, 1, k, k) row-major. Every thread adds up its own
// images, and the threads' sums are added in order.
void weight_gradient(const Geometry &g, Accumulate f, const float *x,
                     const float *dy, float *dw) {
  int64_t kk = g.kernel * g.kernel;
  std::vector<std::vector<Lanes>> parts(at::get_num_threads());
  at::parallel_for(0, g.n, 1, [&](int64_t begin, int64_t end) {
    auto &sum = parts[at::get_thread_num()];
    sum.assign(g.blocks() * kk, Lanes{});
    Scratch scratch(g);
    for (int64_t i = begin; i < end; i++)
      for (int64_t b = 0; b < g.blocks(); b++)
        one_image(g, f, x + i * g.h * g.w * g.c + b * kLanes,
                  dy + i * g.oh * g.ow * g.c + b * kLanes,
                  std::min(kLanes, g.c - b * kLanes), scratch, &sum[b * kk]);
  });
  for (int64_t ch = 0; ch < g.c; ch++)
    for (int64_t k = 0; k < kk; k++) {
      float total = 0;
      for (auto &part : parts)
        if (!part.empty()) total += part[ch / kLanes * kk + k].v[ch % kLanes];
      dw[ch * kk + k] = total;
    }
}

bool channels_last(const Tensor &t) {
  return t.device().is_cpu() && t.scalar_type() == at::kFloat && t.dim() == 4 &&
         t.is_contiguous(at::MemoryFormat::ChannelsLast);
}

struct Depthwise : torch::autograd::Function<Depthwise> {
  static Tensor forward(torch::autograd::AutogradContext *ctx, const Tensor &x,
                        const Tensor &w, int64_t stride, int64_t pad) {
    Tensor y = at::conv2d(x, w, {}, stride, pad, 1, x.size(1));
    ctx->save_for_backward({x, w});
    ctx->saved_data["stride"] = stride;
    ctx->saved_data["pad"] = pad;
    return y;
  }

  static torch::autograd::variable_list backward(
      torch::autograd::AutogradContext *ctx, torch::autograd::variable_list grads) {
    auto saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &w = saved[1];
    Tensor dy = grads[0].contiguous(at::MemoryFormat::ChannelsLast);
    int64_t stride = ctx->saved_data["stride"].toInt(), pad = ctx->saved_data["pad"].toInt();
    Tensor dx, dw;
    if (ctx->needs_input_grad(0))
      dx = std::get<0>(at::convolution_backward(
          dy, x, w, std::nullopt, {stride, stride}, {pad, pad}, {1, 1}, false, {0, 0},
          x.size(1), {true, false, false}));
    if (ctx->needs_input_grad(1)) {
      Geometry g{x.size(0), x.size(1), x.size(2), x.size(3), dy.size(2), dy.size(3),
                 w.size(2), stride, pad};
      dw = at::empty_like(w);  // with one input channel every layout is row-major
      weight_gradient(g, accumulate_for(g.kernel, stride), x.const_data_ptr<float>(),
                      dy.const_data_ptr<float>(), dw.mutable_data_ptr<float>());
    }
    return {dx, dw, Tensor(), Tensor()};
  }
};

}  // namespace

char *tx_depthwise(tx_tensor x, tx_tensor weight, int64_t stride, int64_t pad,
                   tx_tensor *out) {
  return guard([&] {
    const Tensor &in = ref(x), &w = ref(weight);
    TORCH_CHECK(in.dim() == 4 && w.dim() == 4 && w.size(0) == in.size(1) && w.size(1) == 1,
                "depthwise: weight ", w.sizes(), " does not fit input ", in.sizes());
    bool fits = channels_last(in) && channels_last(w) && w.size(2) == w.size(3) &&
                accumulate_for(w.size(2), stride);
    give(out, fits ? Depthwise::apply(in, w, stride, pad)
                   : at::conv2d(in, w, {}, stride, pad, 1, in.size(1)));
  });
}
