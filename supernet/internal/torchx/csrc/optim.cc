// SGD as PyTorch defines it, over a list of leaves.
#include <ATen/Parallel.h>

#include <cmath>
#include <map>
#include <vector>

#include "guard.h"
#include "simd.h"

using at::Tensor;
using tx::guard;
using tx::ref;

namespace {

struct Rates {
  float lr, momentum, decay;
  bool nesterov;
};

TX_SIMD void update(float *__restrict p, const float *__restrict grad,
                    float *__restrict v, int64_t n, Rates k) {
  for (int64_t i = 0; i < n; i++) {
    float g = grad[i] + k.decay * p[i];
    v[i] = k.momentum * v[i] + g;
    p[i] -= k.lr * (k.nesterov ? g + k.momentum * v[i] : v[i]);
  }
}

bool flat(const Tensor &p, const Tensor &g, const Tensor &v) {
  return p.device().is_cpu() && p.is_non_overlapping_and_dense() &&
         p.strides() == g.strides() && p.strides() == v.strides();
}

void update_one(const Tensor &p, const Tensor &g, const Tensor &v, Rates k) {
  if (flat(p, g, v)) {
    float *pp = p.mutable_data_ptr<float>(), *pv = v.mutable_data_ptr<float>();
    const float *pg = g.const_data_ptr<float>();
    at::parallel_for(0, p.numel(), 1 << 15, [&](int64_t begin, int64_t end) {
      update(pp + begin, pg + begin, pv + begin, end - begin, k);
    });
    return;
  }
  Tensor d = k.decay == 0 ? g : g.add(p, k.decay);
  v.mul_(k.momentum).add_(d);
  p.add_(k.nesterov ? d.add(v, k.momentum) : v, -k.lr);
}

struct Group {
  std::vector<Tensor> p, g, v;
};

// On an accelerator every launch counts: all tensors of one decay together.
void update_group(Group &t, Rates k) {
  auto &[p, g, v] = t;
  if (k.decay != 0) at::_foreach_add_(g, p, k.decay);
  at::_foreach_mul_(v, k.momentum);
  at::_foreach_add_(v, g);
  if (k.nesterov) {
    at::_foreach_add_(g, v, k.momentum);
    at::_foreach_add_(p, g, -k.lr);
  } else {
    at::_foreach_add_(p, v, -k.lr);
  }
}

// torch.nn.utils.clip_grad_norm_ with the Euclidean norm.
void clip_norm(std::vector<Tensor> &grads, double most) {
  auto norms = at::_foreach_norm(grads);
  Tensor total = at::stack(norms).norm();
  at::_foreach_mul_(grads, (most / (total + 1e-6)).clamp_max(1.));
}

}  // namespace

char *tx_sgd(const tx_tensor *leaves, const tx_tensor *velocity,
             const double *decay, int64_t n, const tx_sgd_options *o) {
  return guard([&] {
    c10::NoGradGuard no_grad;
    std::vector<Tensor> p, g, v;
    bool host = true;
    for (int64_t i = 0; i < n; i++) {
      Tensor grad = ref(leaves[i]).grad();
      TORCH_CHECK(grad.defined(), "sgd: leaf ", i, " has no gradient");
      TORCH_CHECK(ref(velocity[i]).sizes() == grad.sizes(), "sgd: velocity ", i,
                  " has shape ", ref(velocity[i]).sizes(), ", not ", grad.sizes());
      p.push_back(ref(leaves[i]).detach());
      g.push_back(grad);
      v.push_back(ref(velocity[i]));
      host &= grad.device().is_cpu();
    }
    if (o->clip_value > 0) {
      at::_foreach_clamp_min_(g, -o->clip_value);
      at::_foreach_clamp_max_(g, o->clip_value);
    }
    if (o->clip_norm > 0) clip_norm(g, o->clip_norm);
    if (host) {
      for (int64_t i = 0; i < n; i++)
        update_one(p[i], g[i], v[i],
                   {float(o->lr), float(o->momentum), float(decay[i]), o->nesterov != 0});
      return;
    }
    std::map<double, Group> groups;
    for (int64_t i = 0; i < n; i++) {
      Group &t = groups[decay[i]];
      t.p.push_back(p[i]);
      t.g.push_back(g[i]);
      t.v.push_back(v[i]);
    }
    for (auto &[of, t] : groups)
      update_group(t, {float(o->lr), float(o->momentum), float(of), o->nesterov != 0});
  });
}
