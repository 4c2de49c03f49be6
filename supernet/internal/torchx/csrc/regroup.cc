// Taking, joining and shuffling channels in one pass.
//
// A shuffle block joins two tensors only for the next block to take them apart
// again. Slices and joins as separate operators copy forward and, in the
// backward pass, fill one zeroed tensor for every slice and add them up. Any
// chain of them is a list of channel numbers, and its gradient is the inverse
// list.
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <map>
#include <mutex>
#include <numeric>
#include <vector>

#include "guard.h"

using at::Tensor;
using at::TensorList;
using tx::guard;
using tx::ref;

namespace {

using Ints = std::vector<int64_t>;

// Pixel by pixel: the sources' channels are laid side by side, and the
// destinations filled from them. from[i] < 0 writes zero.
void permute_channels(const std::vector<const float *> &src, const Ints &src_c,
                      const std::vector<float *> &dst, const Ints &dst_c,
                      const std::vector<int32_t> &from, int64_t pixels) {
  int64_t width = std::accumulate(src_c.begin(), src_c.end(), int64_t{0});
  at::parallel_for(0, pixels, std::max<int64_t>(1, 16384 / width),
                   [&](int64_t begin, int64_t end) {
    std::vector<float> row(width + 1);  // the last stays zero
    std::vector<int32_t> at(from);
    for (auto &i : at)
      if (i < 0) i = width;
    for (int64_t p = begin; p < end; p++) {
      float *w = row.data();
      for (size_t s = 0; s < src.size(); s++)
        w = std::copy_n(src[s] + p * src_c[s], src_c[s], w);
      const int32_t *f = at.data();
      for (size_t d = 0; d < dst.size(); d++) {
        float *o = dst[d] + p * dst_c[d];
        for (int64_t i = 0; i < dst_c[d]; i++) o[i] = row[f[i]];
        f += dst_c[d];
      }
    }
  });
}

std::vector<Tensor> run(const std::vector<Tensor> &in, const Ints &out_c,
                        const std::vector<int32_t> &from) {
  std::vector<const float *> src;
  std::vector<float *> dst;
  std::vector<Tensor> out;
  Ints in_c;
  auto size = in[0].sizes().vec();
  for (const Tensor &t : in) {
    src.push_back(t.const_data_ptr<float>());
    in_c.push_back(t.size(1));
  }
  for (int64_t c : out_c) {
    size[1] = c;
    out.push_back(at::empty(size, in[0].options().memory_format(at::MemoryFormat::ChannelsLast)));
    dst.push_back(out.back().mutable_data_ptr<float>());
  }
  permute_channels(src, in_c, dst, out_c, from, size[0] * size[2] * size[3]);
  return out;
}

struct Regroup : torch::autograd::Function<Regroup> {
  static std::vector<Tensor> forward(torch::autograd::AutogradContext *ctx,
                                     TensorList in, Ints out_c, Ints channels) {
    Ints in_c;
    for (const Tensor &t : in) in_c.push_back(t.size(1));
    ctx->saved_data["in"] = in_c;
    ctx->saved_data["out"] = out_c;
    ctx->saved_data["channels"] = channels;
    auto size = in[0].sizes().vec();
    ctx->saved_data["size"] = size;
    return run(in.vec(), out_c, {channels.begin(), channels.end()});
  }

  static torch::autograd::variable_list backward(
      torch::autograd::AutogradContext *ctx, torch::autograd::variable_list grads) {
    Ints in_c = ctx->saved_data["in"].toIntVector();
    Ints out_c = ctx->saved_data["out"].toIntVector();
    Ints channels = ctx->saved_data["channels"].toIntVector();
    Ints size = ctx->saved_data["size"].toIntVector();
    std::vector<int32_t> back(std::accumulate(in_c.begin(), in_c.end(), int64_t{0}), -1);
    for (size_t i = 0; i < channels.size(); i++) back[channels[i]] = i;
    std::vector<Tensor> dense;
    for (size_t o = 0; o < grads.size(); o++) {
      size[1] = out_c[o];
      dense.push_back(grads[o].defined()
                          ? grads[o].contiguous(at::MemoryFormat::ChannelsLast)
                          : at::zeros(size, at::TensorOptions().dtype(at::kFloat).memory_format(
                                                at::MemoryFormat::ChannelsLast)));
    }
    auto r = run(dense, in_c, back);
    r.resize(in_c.size() + 2);  // the two lists have no gradient
    return r;
  }
};

// A list of channels on a device. Copying one there waits for all the work
// before it, and a net asks for the same few at every step. Never destroyed:
// CUDA may be gone before static destructors run.
Tensor listed(const int32_t *c, int64_t n, at::Device device) {
  using Key = std::pair<int64_t, std::vector<int32_t>>;
  constexpr size_t kMost = 4096;
  static auto &mu = *new std::mutex;
  static auto &kept = *new std::map<Key, Tensor>;
  std::lock_guard lock(mu);
  Key key{device.is_cpu() ? -1 : device.index(), {c, c + n}};
  if (auto it = kept.find(key); it != kept.end()) return it->second;
  if (kept.size() >= kMost) kept.clear();
  return kept[key] = at::tensor(at::ArrayRef<int32_t>(c, n), at::kInt).to(device);
}

// With ATen: an evenly spaced selection is a strided slice, others are
// gathered.
Tensor select(const Tensor &x, const int32_t *c, int64_t n) {
  int64_t step = n > 1 ? c[1] - c[0] : 1;
  bool even = step > 0;
  for (int64_t i = 1; i < n; i++) even &= c[i] - c[i - 1] == step;
  if (even && c[0] == 0 && step == 1 && n == x.size(1)) return x;
  Tensor r = even ? x.slice(1, c[0], c[n - 1] + 1, step)
                  : x.index_select(1, listed(c, n, x.device()));
  return r.contiguous(x.suggest_memory_format());
}

}  // namespace

char *tx_regroup(const tx_tensor *in, int32_t n_in, const int32_t *channels,
                 const int32_t *counts, int32_t n_out, tx_tensor *out) {
  return guard([&] {
    std::vector<Tensor> src;
    int64_t total = 0;
    bool fits = true;
    for (int32_t i = 0; i < n_in; i++) {
      const Tensor &t = ref(in[i]);
      TORCH_CHECK(t.dim() == 4 && t.size(0) == ref(in[0]).size(0) &&
                      t.size(2) == ref(in[0]).size(2) && t.size(3) == ref(in[0]).size(3),
                  "regroup: shapes ", t.sizes(), " and ", ref(in[0]).sizes(), " do not match");
      src.push_back(t);
      total += t.size(1);
      fits &= t.device().is_cpu() && t.scalar_type() == at::kFloat &&
              t.is_contiguous(at::MemoryFormat::ChannelsLast);
    }
    Ints out_c(counts, counts + n_out);
    int64_t listed = std::accumulate(out_c.begin(), out_c.end(), int64_t{0});
    std::vector<bool> used(total);
    for (int64_t i = 0; i < listed; i++) {
      TORCH_CHECK(channels[i] >= 0 && channels[i] < total, "regroup: channel ",
                  channels[i], " of ", total);
      fits &= !used[channels[i]];  // a channel used twice needs its gradients added
      used[channels[i]] = true;
    }
    std::vector<Tensor> r;
    if (fits) {
      r = Regroup::apply(TensorList(src), out_c, Ints(channels, channels + listed));
    } else {
      Tensor all = n_in == 1 ? src[0] : at::cat(src, 1);
      for (int64_t c : out_c) {
        r.push_back(select(all, channels, c));
        channels += c;
      }
    }
    for (int32_t o = 0; o < n_out; o++) out[o] = new Tensor(r[o]);
  });
}
