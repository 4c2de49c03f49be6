// Operators that are a few ATen calls; norm_act.cc and regroup.cc hold those
// with kernels of their own.
#include <ATen/CPUGeneratorImpl.h>

#include <cmath>

#include "guard.h"

using at::Tensor;
using tx::give;
using tx::guard;
using tx::opt;
using tx::ref;

char *tx_act_inplace(tx_tensor x, int32_t act) {
  return guard([&] {
    if (act == TX_ACT_RELU) at::relu_(ref(x));
    if (act == TX_ACT_RELU6) at::hardtanh_(ref(x), 0, 6);
  });
}

char *tx_fold_norm(tx_tensor weight, tx_tensor gamma, tx_tensor beta,
                   tx_tensor mean, tx_tensor var, double eps,
                   tx_tensor *out_weight, tx_tensor *out_bias) {
  return guard([&] {
    c10::NoGradGuard no_grad;
    // In double: the folded weight is then the rounding of the exact one.
    Tensor scale = (ref(var).to(at::kDouble) + eps).rsqrt();
    if (gamma) scale = scale * ref(gamma);
    Tensor shift = -ref(mean).to(at::kDouble) * scale;
    if (beta) shift = shift + ref(beta);
    const Tensor &w = ref(weight);
    Tensor folded = (w.to(at::kDouble) * scale.view({-1, 1, 1, 1}))
                        .to(at::kFloat)
                        .contiguous(w.suggest_memory_format());
    give(out_weight, folded);
    give(out_bias, shift.to(at::kFloat));
  });
}

char *tx_dropout(tx_tensor x, double rate, uint64_t seed, tx_tensor *out) {
  return guard([&] {
    auto generator = at::detail::createCPUGenerator(seed);
    Tensor mask = at::empty(ref(x).sizes(), at::kFloat)
                      .bernoulli_(1 - rate, generator)
                      .div_(1 - rate);
    give(out, ref(x) * mask.to(ref(x).device()));
  });
}

char *tx_cross_entropy(tx_tensor logits, tx_tensor labels, double smoothing,
                       tx_tensor *out) {
  return guard([&] {
    give(out, at::cross_entropy_loss(ref(logits), ref(labels), {},
                                     at::Reduction::Mean, -100, smoothing));
  });
}

char *tx_score(tx_tensor loss, tx_tensor logits, tx_tensor labels,
               double *loss_value, int64_t *correct) {
  return guard([&] {
    c10::NoGradGuard no_grad;
    Tensor hits = ref(logits).argmax(1).eq(ref(labels)).sum();
    *loss_value = ref(loss).item<double>();
    *correct = hits.item<int64_t>();
  });
}
