// Batch norm in training mode together with its activation.
//
// Run apart, the two make six passes over the activations and keep one more
// tensor; here it is one pass for the statistics and one that writes, each
// way. The backward pass recomputes the activation's sign from the
// convolution's output instead of keeping it. Holds for dense channels-last
// float32 on the CPU; anything else goes through ATen.
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>
#include <vector>

#include "guard.h"
#include "simd.h"

using at::Tensor;
using tx::give;
using tx::guard;
using tx::opt;
using tx::ref;

namespace {

constexpr int64_t kBlock = 64;  // rows summed in float before a double takes over

// Sums of (x - shift) and its square over rows, per channel. The shift, one
// row of x, keeps the difference of squares from cancelling.
TX_SIMD void moments(const float *__restrict x, int64_t rows, int64_t c,
                     const float *__restrict shift, float *__restrict s1,
                     float *__restrict s2) {
  for (int64_t r = 0; r < rows; r++, x += c)
    for (int64_t i = 0; i < c; i++) {
      float d = x[i] - shift[i];
      s1[i] += d;
      s2[i] += d * d;
    }
}

// y = a·x + b, clamped to low..top: an activation, or no bounds for none.
TX_SIMD void scale_act(const float *__restrict x, float *__restrict y, int64_t rows,
                       int64_t c, const float *__restrict a,
                       const float *__restrict b, float low, float top) {
  for (int64_t r = 0; r < rows; r++, x += c, y += c)
    for (int64_t i = 0; i < c; i++) {
      float v = a[i] * x[i] + b[i];
      v = v < low ? low : v;
      y[i] = v > top ? top : v;
    }
}

// Sums over rows of dz and dz·(x - mean), where dz is the part of dy that
// passed the activation's bounds.
TX_SIMD void grad_sums(const float *__restrict x, const float *__restrict dy,
                       int64_t rows, int64_t c, const float *__restrict a,
                       const float *__restrict b, const float *__restrict mean,
                       float low, float top, float *__restrict s1,
                       float *__restrict s2) {
  for (int64_t r = 0; r < rows; r++, x += c, dy += c)
    for (int64_t i = 0; i < c; i++) {
      float v = a[i] * x[i] + b[i], g = dy[i];
      g = v > low ? g : 0.f;
      g = v < top ? g : 0.f;
      s1[i] += g;
      s2[i] += g * (x[i] - mean[i]);
    }
}

// dx = a·dz + p·x + q
TX_SIMD void grad_input(const float *__restrict x, const float *__restrict dy,
                        float *__restrict dx, int64_t rows, int64_t c,
                        const float *__restrict a, const float *__restrict b,
                        const float *__restrict p, const float *__restrict q,
                        float low, float top) {
  for (int64_t r = 0; r < rows; r++, x += c, dy += c, dx += c)
    for (int64_t i = 0; i < c; i++) {
      float v = a[i] * x[i] + b[i], g = dy[i];
      g = v > low ? g : 0.f;
      g = v < top ? g : 0.f;
      dx[i] = a[i] * g + (p[i] * x[i] + q[i]);
    }
}

// Per-channel pairs of sums over all rows, one partial per thread, added up in
// thread order: the result depends on the thread count, not on timing.
struct Sums {
  std::vector<double> one, two;
  Sums(int64_t c) : one(c), two(c) {}
};

template <class F>
Sums reduce_rows(int64_t rows, int64_t c, const F &block) {
  int64_t grain = std::max<int64_t>(kBlock, 32768 / c);
  std::vector<Sums> parts(at::get_num_threads(), Sums(c));
  at::parallel_for(0, rows, grain, [&](int64_t begin, int64_t end) {
    Sums &part = parts[at::get_thread_num()];
    std::vector<float> f(2 * c);
    for (int64_t r = begin; r < end; r += kBlock) {
      std::fill(f.begin(), f.end(), 0.f);
      block(r, std::min(kBlock, end - r), f.data(), f.data() + c);
      for (int64_t i = 0; i < c; i++) part.one[i] += f[i], part.two[i] += f[c + i];
    }
  });
  for (size_t t = 1; t < parts.size(); t++)
    for (int64_t i = 0; i < c; i++) {
      parts[0].one[i] += parts[t].one[i];
      parts[0].two[i] += parts[t].two[i];
    }
  return std::move(parts[0]);
}

template <class F>
void each_rows(int64_t rows, int64_t c, const F &f) {
  at::parallel_for(0, rows, std::max<int64_t>(1, 32768 / c), f);
}

float low_of(int64_t act) { return act == TX_ACT_NONE ? -INFINITY : 0.f; }
float top_of(int64_t act) { return act == TX_ACT_RELU6 ? 6.f : INFINITY; }

struct NormAct : torch::autograd::Function<NormAct> {
  static Tensor forward(torch::autograd::AutogradContext *ctx, const Tensor &x,
                        const std::optional<Tensor> &gamma,
                        const std::optional<Tensor> &beta, Tensor mean,
                        Tensor var, double momentum, double eps, int64_t act) {
    int64_t c = x.size(1), rows = x.numel() / c;
    const float *px = x.const_data_ptr<float>();
    Sums s = reduce_rows(rows, c, [&](int64_t r, int64_t n, float *s1, float *s2) {
      moments(px + r * c, n, c, px, s1, s2);
    });

    // Rows: a, b, the batch mean and 1/σ.
    Tensor k = at::empty({4, c}, x.options().memory_format(at::MemoryFormat::Contiguous));
    float *a = k.mutable_data_ptr<float>(), *b = a + c, *m = b + c, *inv = m + c;
    float *run_mean = mean.mutable_data_ptr<float>(), *run_var = var.mutable_data_ptr<float>();
    const float *g = gamma ? gamma->const_data_ptr<float>() : nullptr;
    const float *h = beta ? beta->const_data_ptr<float>() : nullptr;
    double n = rows;
    for (int64_t i = 0; i < c; i++) {
      double d = s.one[i] / n, mu = px[i] + d;
      double v = std::max(0., s.two[i] / n - d * d);
      double is = 1 / std::sqrt(v + eps), scale = is * (g ? g[i] : 1);
      a[i] = scale;
      b[i] = (h ? h[i] : 0) - mu * scale;
      m[i] = mu;
      inv[i] = is;
      run_mean[i] += momentum * (mu - run_mean[i]);
      run_var[i] += momentum * (v * n / (n - 1) - run_var[i]);
    }

    Tensor y = at::empty_like(x);
    float *py = y.mutable_data_ptr<float>();
    each_rows(rows, c, [&](int64_t begin, int64_t end) {
      scale_act(px + begin * c, py + begin * c, end - begin, c, a, b,
            low_of(act), top_of(act));
    });
    ctx->save_for_backward({x, k});
    ctx->saved_data["act"] = act;
    ctx->saved_data["gamma"] = gamma.has_value();
    ctx->saved_data["beta"] = beta.has_value();
    return y;
  }

  static torch::autograd::variable_list backward(
      torch::autograd::AutogradContext *ctx, torch::autograd::variable_list grads) {
    auto saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &k = saved[1];
    int64_t act = ctx->saved_data["act"].toInt();
    Tensor dy = grads[0].contiguous(at::MemoryFormat::ChannelsLast);
    int64_t c = x.size(1), rows = x.numel() / c;
    const float *px = x.const_data_ptr<float>(), *pd = dy.const_data_ptr<float>();
    const float *a = k.const_data_ptr<float>(), *b = a + c, *m = b + c, *inv = m + c;
    float low = low_of(act), top = top_of(act);
    Sums s = reduce_rows(rows, c, [&](int64_t r, int64_t n, float *s1, float *s2) {
      grad_sums(px + r * c, pd + r * c, n, c, a, b, m, low, top, s1, s2);
    });

    // dx = a·(dz - Σdz/n - (x-mean)·inv²·Σdz(x-mean)/n) = a·dz + p·x + q
    Tensor pq = at::empty({2, c}, k.options());
    float *p = pq.mutable_data_ptr<float>(), *q = p + c;
    Tensor dgamma, dbeta;
    if (ctx->saved_data["gamma"].toBool()) dgamma = at::empty({c}, k.options());
    if (ctx->saved_data["beta"].toBool()) dbeta = at::empty({c}, k.options());
    for (int64_t i = 0; i < c; i++) {
      double w = double(inv[i]) * inv[i] * s.two[i] / rows;
      p[i] = -a[i] * w;
      q[i] = -a[i] * (s.one[i] / rows - m[i] * w);
      if (dgamma.defined()) dgamma.mutable_data_ptr<float>()[i] = s.two[i] * inv[i];
      if (dbeta.defined()) dbeta.mutable_data_ptr<float>()[i] = s.one[i];
    }
    Tensor dx = at::empty_like(x);
    float *po = dx.mutable_data_ptr<float>();
    each_rows(rows, c, [&](int64_t begin, int64_t end) {
      grad_input(px + begin * c, pd + begin * c, po + begin * c, end - begin, c,
                 a, b, p, q, low, top);
    });
    return {dx, dgamma, dbeta, Tensor(), Tensor(), Tensor(), Tensor(), Tensor()};
  }
};

bool fits(const Tensor &x) {
  return x.device().is_cpu() && x.scalar_type() == at::kFloat && x.dim() == 4 &&
         x.is_contiguous(at::MemoryFormat::ChannelsLast);
}

// Autograd wants absent arguments absent, not undefined.
std::optional<Tensor> maybe(tx_tensor t) {
  return t ? std::optional<Tensor>(ref(t)) : std::nullopt;
}

void check_channels(const Tensor &t, const char *name, int64_t c) {
  TORCH_CHECK(!t.defined() || (t.dim() == 1 && t.size(0) == c && t.is_contiguous()),
              "norm: ", name, " is not a vector of ", c, " channels");
}

}  // namespace

char *tx_norm_act(tx_tensor x, tx_tensor gamma, tx_tensor beta, tx_tensor mean,
                  tx_tensor var, double momentum, double eps, int32_t act,
                  tx_tensor *out) {
  return guard([&] {
    const Tensor &in = ref(x);
    TORCH_CHECK(in.dim() == 4 && in.numel() > in.size(1),
                "norm: needs more than one value per channel, got shape ", in.sizes());
    if (fits(in)) {
      check_channels(opt(gamma), "gamma", in.size(1));
      check_channels(opt(beta), "beta", in.size(1));
      check_channels(ref(mean), "the running mean", in.size(1));
      check_channels(ref(var), "the running variance", in.size(1));
      give(out, NormAct::apply(in, maybe(gamma), maybe(beta), ref(mean), ref(var),
                               momentum, eps, int64_t(act)));
      return;
    }
    Tensor y = at::batch_norm(in, opt(gamma), opt(beta), ref(mean), ref(var),
                              true, momentum, eps, true);
    if (act == TX_ACT_RELU) at::relu_(y);
    if (act == TX_ACT_RELU6) at::hardtanh_(y, 0, 6);
    give(out, y);
  });
}
